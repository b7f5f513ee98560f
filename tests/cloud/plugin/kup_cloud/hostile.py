"""AWS on its worst days: errors of its own, connections that break, replies that are lost after the call took effect, no capacity.

What is done to a call follows from the seed and from which call of its action it is: the same client in the same order meets the same.
"""

import random

from kup_cloud import calls, settings
from kup_cloud.calls import refuse

# In a hundred calls that only read, and in a hundred that change something.
BROKEN = (2, 3)
RESET = (1, 1)
THROTTLED = (1, 2)
# After the call took effect.
BROKEN_AFTER = (0, 1.5)
LOST = (0.5, 3)
# In a hundred launches.
NO_CAPACITY = 4
NO_QUOTA = 2


def chance(call, what: str) -> random.Random:
    return random.Random(f"{settings.SEED}/{call.service}/{call.action}/{call.nth}/{what}")


def choose(call, what: str, **shares) -> str | None:
    """One of these, each with its share in a hundred, or none."""
    at = chance(call, what).uniform(0, 100)
    for name, share in shares.items():
        at -= share
        if at < 0:
            return name
    return None


def before(call):
    kind = int(call.mutates)
    what = choose(call, "before", broken=BROKEN[kind], reset=RESET[kind], throttled=THROTTLED[kind])
    if what:
        call.fault = f"{what} before"
    if what == "throttled":
        raise calls.throttled(call)
    if what == "reset":
        call.drop()
    if what:
        raise calls.broken(call)
    if call.service == "ec2" and call.action == "RunInstances":
        capacity(call)


def capacity(call):
    what = choose(call, "capacity", none=NO_CAPACITY, quota=NO_QUOTA)
    if what:
        call.fault = f"{what} of capacity"
    type, zone = call.request.get("InstanceType"), (call.request.get("Placement") or {}).get("AvailabilityZone")
    if what == "none":
        refuse(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {type} capacity in the Availability Zone you requested ({zone or call.region + 'a'}). "
            "Our system will be working on provisioning additional capacity.",
            500,
        )
    if what == "quota":
        refuse(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of 1 allows for the instance bucket that the specified instance "
            "type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )


def after(call):
    """The call has taken effect, or was refused; the client shall not know."""
    if call.lost or (call.fault or "").endswith("before"):
        return
    kind = int(call.mutates)
    what = choose(call, "after", broken=BROKEN_AFTER[kind], lost=LOST[kind])
    if what is None:
        return
    call.fault = f"{what} after"
    if what == "lost":
        call.drop()
    else:
        call.error = calls.broken(call)
