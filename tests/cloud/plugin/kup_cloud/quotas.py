"""Service Quotas: what a new account has of what kup uses, what this account, which is no new one, was given since, and what it asks for.

An increase that is asked for is granted, in a while where things take their time (dwell.py): what AWS gives without anybody's looking at it.
"""

import datetime
import itertools

from localstack.aws.api import CommonServiceException

from kup_cloud import settings
from kup_cloud.calls import refuse

NAMES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "vpc": "Amazon Virtual Private Cloud (Amazon VPC)"}

QUOTAS = {
    "ec2": [
        ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0, True),
        ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5.0, True),
        ("L-0263D0A3", "EC2-VPC Elastic IPs", 5.0, True),
    ],
    "vpc": [
        ("L-F678F1CE", "VPCs per Region", 5.0, True),
        ("L-407747CB", "Subnets per VPC", 200.0, True),
        ("L-A4707A72", "Internet gateways per Region", 5.0, True),
        ("L-E79EC296", "VPC security groups per Region", 2500.0, True),
        ("L-2AFB9258", "Security groups per network interface", 5.0, True),
        ("L-0EA8095F", "Inbound or outbound rules per security group", 60.0, True),
    ],
}

# AWS raises the number of virtual CPUs as an account is used.
APPLIED = {"L-1216C47A": 64.0, "L-34B43A08": 64.0}

# What follows another one, and is raised by raising that: docs.aws.amazon.com/general/latest/gr/vpc-service.html.
FOLLOWS = {"L-A4707A72": "L-F678F1CE"}

# What was given when it was asked for, by account and region; and all that was asked for.
_given: dict[tuple[str, str], dict[str, float]] = {}
_asked: list[dict] = []
_ids = itertools.count(1)


def applied_to(account: str, region: str) -> dict[str, float]:
    """What this account has in this region that a new one has not."""
    applied = APPLIED | _given.get((account, region), {})
    return applied | {code: applied[first] for code, first in FOLLOWS.items() if first in applied}


def value(account: str, region: str, service: str, code: str) -> int:
    """How many it may have."""
    default = next(default for known, _, default, _ in QUOTAS[service] if known == code)
    return int(applied_to(account, region).get(code, default))


class NoSuchResource(CommonServiceException):
    def __init__(self):
        super().__init__("NoSuchResourceException", "The request failed because the specified service or quota does not exist.", sender_fault=True)


def quotas(context, service: str, applied: dict[str, float]) -> list[dict]:
    if service not in QUOTAS:
        raise NoSuchResource
    return [
        {
            "ServiceCode": service,
            "ServiceName": NAMES[service],
            "QuotaArn": f"arn:aws:servicequotas:{context.region}:{context.account_id}:{service}/{code}",
            "QuotaCode": code,
            "QuotaName": name,
            "Value": applied.get(code, value),
            "Unit": "None",
            "Adjustable": adjustable,
            "GlobalQuota": False,
        }
        for code, name, value, adjustable in QUOTAS[service]
    ]


def get(context, request, applied=None, **_):
    applied = applied_to(context.account_id, context.region) if applied is None else applied
    for quota in quotas(context, request["ServiceCode"], applied):
        if quota["QuotaCode"] == request["QuotaCode"]:
            return {"Quota": quota}
    raise NoSuchResource


def get_default(context, request, **_):
    return get(context, request, {})


def list_(context, request, applied=None, **_):
    applied = applied_to(context.account_id, context.region) if applied is None else applied
    found = quotas(context, request["ServiceCode"], applied)
    start, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or 100)
    answer = {"Quotas": found[start : start + size]}
    if start + size < len(found):
        answer["NextToken"] = str(start + size)
    return answer


def list_defaults(context, request, **_):
    return list_(context, request, {})


# docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_RequestServiceQuotaIncrease.html; the words about a value that is none are in
# cloud-custodian/cloud-custodian#8939.
def request(context, request, **_):
    quota, desired = get(context, request)["Quota"], float(request["DesiredValue"])
    where, code = (context.account_id, context.region), quota["QuotaCode"]
    if desired <= quota["Value"]:
        refuse("IllegalArgumentException", "You must provide a quota value greater than the current quota value")
    if any(one["QuotaArn"] == quota["QuotaArn"] and one["Status"] == "PENDING" for one in _asked):
        refuse("ResourceAlreadyExistsException", "Only one open service quota increase request is allowed per quota.")
    same = "ServiceCode", "ServiceName", "QuotaCode", "QuotaName", "QuotaArn", "GlobalQuota", "Unit"
    now = datetime.datetime.now(datetime.UTC)
    asked = {"Id": f"{next(_ids):032x}", "DesiredValue": desired, "Status": "PENDING", "Created": now, "LastUpdated": now}
    asked |= {key: quota[key] for key in same}
    _asked.append(asked)

    def grant():
        _given.setdefault(where, {})[code] = desired
        asked["Status"], asked["LastUpdated"] = "APPROVED", datetime.datetime.now(datetime.UTC)

    answer = dict(asked)
    if settings.STRICT:
        from kup_cloud import dwell

        dwell.later("quota", grant)
    else:
        grant()
    return {"RequestedQuota": answer}


def get_requested(_context, request, **_):
    for asked in _asked:
        if asked["Id"] == request["RequestId"]:
            return {"RequestedQuota": dict(asked)}
    raise NoSuchResource


HANDLERS = {
    "GetServiceQuota": get,
    "GetAWSDefaultServiceQuota": get_default,
    "GetRequestedServiceQuotaChange": get_requested,
    "ListServiceQuotas": list_,
    "ListAWSDefaultServiceQuotas": list_defaults,
    "RequestServiceQuotaIncrease": request,
}
