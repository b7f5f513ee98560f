"""What takes time on AWS, and the clock by which it happens here."""

import heapq
import itertools
import logging
import random
import threading
import time

from kup_cloud import calls, settings

LOG = logging.getLogger(__name__)

# Seconds on AWS, as a rule; --time-scale says how much of it is waited here.
SECONDS = {
    # An instance from pending to running: 5 s (daemonology.net, 2021-08-12) to 16 s (brevdev/ec2-coldboot-research).
    "running": 10,
    # From stopping to stopped, and from shutting-down to terminated.
    "stopped": 20,
    "terminated": 30,
    # How long an ended instance is still described: docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html, about an hour.
    "forgotten": 3600,
    # A volume from creating to available.
    "volume": 2,
    # A network load balancer from provisioning to active: minutes (kubernetes/kubernetes#44695); its interfaces go after it has.
    "balancer": 120,
    "balancer interfaces": 60,
    # hashicorp/learn-terraform-provision-eks-cluster#22; kubernetes-sigs/cluster-api-provider-aws#1328.
    "nat gateway": 80,
    "nat gateway deleted": 60,
    # How long an Auto Scaling group takes to launch what it lacks, and to go when it is empty.
    "group": 8,
    "group deleted": 5,
    # How long a deleted bucket's name can't be taken again: aws/aws-cli#2593 speaks of up to an hour.
    "bucket name": 60,
    # A quota that is raised without anybody's looking at it.
    "quota": 60,
}

_due: list = []
_order = itertools.count()
_wake = threading.Condition(calls.STATE)
_counts: dict[str, int] = {}


def seconds(what: str) -> float:
    """How long this takes here, this time: on AWS's bad days between half and three times as long."""
    _counts[what] = _counts.get(what, 0) + 1
    stretch = random.Random(f"{settings.SEED}/{what}/{_counts[what]}").uniform(0.5, 3) if settings.HOSTILE else 1
    return SECONDS[what] * stretch * settings.TIME_SCALE


def later(what: str, effect):
    """Lets something happen when its time has come."""
    heapq.heappush(_due, (time.monotonic() + seconds(what), next(_order), effect))
    _wake.notify_all()


def settle(_call=None):
    """Lets happen what is due. The order is that of the times, whoever comes to ask."""
    while _due and _due[0][0] <= time.monotonic():
        _, _, effect = heapq.heappop(_due)
        try:
            effect()
        except Exception:
            LOG.exception("what was to happen later failed")
        for tell in listeners:
            tell()


# Called after each such change, which no call made.
listeners: list = []


def keep_time():
    with _wake:
        while True:
            _wake.wait(max(0.001, _due[0][0] - time.monotonic()) if _due else None)
            settle()


def begin():
    threading.Thread(target=keep_time, daemon=True).start()
