"""Temporary credentials of the roles that instances have."""

import datetime

from moto.core.utils import utcnow
from moto.sts.models import sts_backends

# As AWS: six hours, and new ones well before they end.
LIFETIME = 6 * 3600
RENEWED = datetime.timedelta(minutes=30)

_given = {}


def of(account: str, region: str, role_arn: str, session: str) -> dict:
    known = _given.get((role_arn, session))
    if known is None or known.expiration - utcnow() < RENEWED:
        known = sts_backends[account]["aws"].assume_role(
            region_name=region, role_session_name=session, role_arn=role_arn, policy=None, duration=LIFETIME, external_id=None
        )
        _given[role_arn, session] = known
    form = "%Y-%m-%dT%H:%M:%SZ"
    return {
        "Code": "Success",
        "LastUpdated": (known.expiration - datetime.timedelta(seconds=LIFETIME)).strftime(form),
        "Type": "AWS-HMAC",
        "AccessKeyId": known.access_key_id,
        "SecretAccessKey": known.secret_access_key,
        "Token": known.session_token,
        "Expiration": known.expiration.strftime(form),
    }


def holder_of(access_key: str):
    """The role, assumed by an instance, whose temporary key this is."""
    return next((assumed for assumed in _given.values() if assumed.access_key_id == access_key), None)
