"""Client tokens: the same call twice takes effect once, and is answered twice.

docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html. LocalStack looks at no token. ELBv2 has none, and takes names for
them: "If you attempt to create multiple load balancers with the same settings, each call succeeds" (API_CreateLoadBalancer).
"""

import copy
import json

from kup_cloud.calls import refuse

# What else of a call is no part of what it asks for.
ASIDE = {"ClientToken", "DryRun"}
NAMED = {("elbv2", "CreateLoadBalancer"): "DuplicateLoadBalancerName", ("elbv2", "CreateTargetGroup"): "DuplicateTargetGroupName"}

# What was asked, and answered.
_kept: dict[tuple, tuple[str, dict]] = {}


def key_of(call) -> tuple | None:
    token = call.request.get("ClientToken") if call.service == "ec2" else None
    if (call.service, call.action) in NAMED:
        token = call.request.get("Name")
    return (call.account, call.region, call.service, call.action, token) if token and not call.request.get("DryRun") else None


def asked(call) -> str:
    return json.dumps({k: v for k, v in call.request.items() if k not in ASIDE}, sort_keys=True, default=str)


def replay(call):
    key = key_of(call)
    known = _kept.get(key) if key else None
    if known is None or call.answer is not None:
        return
    before, answer = known
    if call.service == "elbv2":
        if not exists(call, answer):
            del _kept[key]
        elif before != asked(call):
            thing = "load balancer" if call.action == "CreateLoadBalancer" else "target group"
            refuse(NAMED[call.service, call.action], f"A {thing} with the same name '{call.request['Name']}' exists, but with different settings")
        else:
            call.answer = copy.deepcopy(answer)
        return
    if before != asked(call):
        refuse("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
    call.answer = copy.deepcopy(answer)
    if call.action == "RunInstances":
        renew(call)


def exists(call, answer) -> bool:
    balancers = [one["LoadBalancerArn"] in call.balancers.load_balancers for one in answer.get("LoadBalancers", [])]
    groups = [one["TargetGroupArn"] in call.balancers.target_groups for one in answer.get("TargetGroups", [])]
    return all(balancers + groups)


def renew(call):
    """The instances as they are now. An ended one can't be had again (IdempotentInstanceTerminated, in EC2's list of error codes)."""
    instances = {i.id: i for i in call.ec2.all_instances()}
    for said in call.answer["Instances"]:
        instance = instances.get(said["InstanceId"])
        if instance is None or instance.state in ("shutting-down", "terminated"):
            refuse("IdempotentInstanceTerminated", "The request to launch an instance uses an idempotent client token, but the instance has been terminated.")
        said["State"] = {"Name": instance.state, "Code": instance.state_code}


def keep(call):
    if key := key_of(call):
        _kept.setdefault(key, (asked(call), copy.deepcopy(call.answer)))
