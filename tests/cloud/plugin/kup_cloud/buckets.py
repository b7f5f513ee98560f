"""Token buckets: how many calls of an action an account may make in a region, and how soon it may make more.

docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html has the kinds; the figures are those by which
kubernetes-sigs/cluster-api-provider-aws limits itself (pkg/cloud/scope/session.go). They are in real seconds, whatever the time scale.
"""

import time

from kup_cloud import calls

# How many at once, and how many more in a second.
READS = (100, 20)
# EC2's reads of everything: without a filter, an id or a page size.
UNFILTERED = (50, 10)
MUTATES = (200, 5)
LAUNCHES = (5, 2)
# Which of them S3 counts, it counts by the thousand.
UNCOUNTED = ("s3",)

_filled: dict[tuple, tuple[float, float]] = {}


def size_of(call) -> tuple[int, int]:
    if call.service == "ec2" and call.action in ("RunInstances", "StartInstances"):
        return LAUNCHES
    if call.mutates:
        return MUTATES
    if call.service == "ec2" and not any(call.request.values()):
        return UNFILTERED
    return READS


def check(call):
    if call.service in UNCOUNTED:
        return
    size, refill = size_of(call)
    key = call.account, call.region, call.service, call.action, size
    now = time.monotonic()
    tokens, at = _filled.get(key, (size, now))
    tokens = min(size, tokens + (now - at) * refill)
    _filled[key] = (tokens if tokens < 1 else tokens - 1, now)
    if tokens < 1:
        call.fault = "throttled"
        raise calls.throttled(call)
