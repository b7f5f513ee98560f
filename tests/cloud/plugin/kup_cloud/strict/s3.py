"""A bucket's name is not free at once when the bucket is deleted."""

from kup_cloud import dwell
from kup_cloud.calls import refuse
from kup_cloud.strict import note, rule

_busy: set[str] = set()


@note("s3:DeleteBucket")
def deleted(call, _answer):
    name = call.request["Bucket"]
    _busy.add(name)
    dwell.later("bucket name", lambda: _busy.discard(name))


@rule("s3:CreateBucket")
def busy(call, asked):
    if asked.get("Bucket") in _busy:
        refuse("OperationAborted", "A conflicting conditional operation is currently in progress against this resource. Please try again.", 409)
