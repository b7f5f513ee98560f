"""AWS's rules that LocalStack doesn't keep.

Each is a function with the calls that it is about: a rule looks at a call before it takes effect, and refuses it as AWS would; a note
looks at the answer, and remembers or changes what is to be. The sources stand with the tests (tests/cloud/tests/test_strict_*.py).
"""

import functools
from collections import defaultdict

from localstack.http import Response

from kup_cloud.calls import refuse

_rules = defaultdict(list)
_notes = defaultdict(list)


def rule(*calls: str):
    """rule("ec2:DeleteVpc"): called with the call and what it asks, before LocalStack is."""

    def add(function):
        for name in calls:
            _rules[name].append(function)
        return function

    return add


def note(*calls: str):
    """note("ec2:CreateVolume"): called with the call and its answer, if there was no error."""

    def add(function):
        for name in calls:
            _notes[name].append(function)
        return function

    return add


def check(call):
    if call.answer is not None:
        return
    for function in _rules[f"{call.service}:{call.action}"]:
        function(call, call.request)
    # API_RunInstances, and all others of EC2: "If you have the required permissions, the error response is DryRunOperation".
    if call.service == "ec2" and call.request.get("DryRun"):
        refuse("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def note_answer(call):
    if not isinstance(call.answer, Response):
        for function in _notes[f"{call.service}:{call.action}"]:
            function(call, call.answer)


@functools.cache
def mend():
    """Loads all rules, and gives the services' state the times that it has on AWS."""
    from kup_cloud import balancers as balancer_names
    from kup_cloud import dwell
    from kup_cloud import groups as scaling
    from kup_cloud import instances as launching
    from kup_cloud.strict import balancers, groups, iam, instances, limits, network, ranges, s3, waiting  # noqa: F401

    # What they patch comes first.
    launching.mend()
    scaling.mend()
    balancer_names.mend()
    waiting.mend()
    groups.mend()
    balancers.mend()
    dwell.begin()
