"""S3: LocalStack's own provider, with the conditions that AWS knows and it doesn't: If-Match on deletion, and the expected owner.

What is stored is part of the emulator's own state.
"""

import os
import tempfile

from localstack.aws.api import handler
from localstack.aws.api.s3 import AccessDenied, PreconditionFailed
from localstack.aws.skeleton import create_dispatch_table
from localstack.services.s3.provider import S3Provider
from localstack.services.s3.storage.ephemeral import EphemeralS3ObjectStore


class Provider(S3Provider):
    service = "s3"

    def __init__(self):
        # LocalStack's own place for objects is the same for all emulators on a machine: buckets of one name would share it.
        super().__init__(EphemeralS3ObjectStore(os.path.join(tempfile.gettempdir(), "s3")))

    @handler("DeleteObject")
    def delete_object(self, context, bucket, key, if_match=None, version_id=None, **more):
        if if_match:
            _, found = self._get_cross_account_bucket(context, bucket)
            current = found.get_object(key=key, version_id=version_id)
            if if_match not in ("*", current.quoted_etag, current.etag):
                raise PreconditionFailed("At least one of the pre-conditions you specified did not hold", Condition="If-Match")
        return super().delete_object(context, bucket, key, version_id=version_id, **more)


def table(provider):
    """Every operation that names the owner whom it expects is refused if that is not who owns the bucket."""
    return {operation: owned(provider, call) for operation, call in create_dispatch_table(provider).items()}


def owned(provider, call):
    def checked(context, request):
        expected = (request or {}).get("ExpectedBucketOwner")
        if expected:
            _, bucket = provider._get_cross_account_bucket(context, request["Bucket"])
            if bucket.bucket_account_id != expected:
                raise AccessDenied("Access Denied")
        return call(context, request)

    return checked
