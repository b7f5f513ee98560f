"""Eventual consistency: what is new is not known everywhere at once, and what is gone is still listed.

docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html; hashicorp/terraform-provider-aws#8029, #21628 and
gardener/gardener-extension-provider-aws#1947 for what meets one who doesn't wait. EC2 and IAM only: S3 is consistent.
"""

import copy
import json
import re
import time

from kup_cloud import hostile, settings
from kup_cloud.calls import refuse
from kup_cloud.strict import instances

# Seconds on AWS, scaled like all others. Half of what is new is known at once.
KNOWN = 10
TAGGED = 10
LISTED = 20
# EC2 takes a new instance profile after a while: seconds, as a rule, and up to two minutes (hashicorp/terraform#15341).
PROFILE = 120

# What the ids begin with, and what EC2 says of one that it doesn't know.
NOT_FOUND = {
    "vpc": ("InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
    "subnet": ("InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "sg": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "igw": ("InvalidInternetGatewayID.NotFound", "The internetGateway ID '{}' does not exist"),
    "rtb": ("InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "vol": ("InvalidVolume.NotFound", "The volume '{}' does not exist."),
    "i": ("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist"),
    "eni": ("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '{}' does not exist"),
    "eipalloc": ("InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist"),
    "dopt": ("InvalidDhcpOptionsID.NotFound", "The dhcpOption ID '{}' does not exist"),
    "lt": ("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID {}, does not exist."),
    "vpce": ("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '{}' does not exist"),
}
ID = re.compile(r"(vpc|subnet|sg|igw|rtb|vol|i|eni|eipalloc|dopt|lt|vpce)-[0-9a-f]{8,17}")

# A filter finds what there is, and a launch template may name what isn't there: EC2 only warns of it (API_CreateLaunchTemplate, Warning).
UNCHECKED = {"Filters", "LaunchTemplateData"}

# Which list of an answer has what, by which name.
LISTS = {
    "DescribeVpcs": ("Vpcs", "VpcId"),
    "DescribeSubnets": ("Subnets", "SubnetId"),
    "DescribeSecurityGroups": ("SecurityGroups", "GroupId"),
    "DescribeInternetGateways": ("InternetGateways", "InternetGatewayId"),
    "DescribeRouteTables": ("RouteTables", "RouteTableId"),
    "DescribeVolumes": ("Volumes", "VolumeId"),
    "DescribeNetworkInterfaces": ("NetworkInterfaces", "NetworkInterfaceId"),
    "DescribeAddresses": ("Addresses", "AllocationId"),
    "DescribeDhcpOptions": ("DhcpOptions", "DhcpOptionsId"),
    "DescribeLaunchTemplates": ("LaunchTemplates", "LaunchTemplateId"),
    "DescribeVpcEndpoints": ("VpcEndpoints", "VpcEndpointId"),
    "ListRoles": ("Roles", "RoleName"),
    "ListUsers": ("Users", "UserName"),
    "ListInstanceProfiles": ("InstanceProfiles", "InstanceProfileName"),
    "ListPolicies": ("Policies", "Arn"),
}
# What makes an id, and where its answer has it.
MADE = {
    "CreateVpc": ("Vpc", "VpcId"),
    "CreateSubnet": ("Subnet", "SubnetId"),
    "CreateSecurityGroup": (None, "GroupId"),
    "CreateInternetGateway": ("InternetGateway", "InternetGatewayId"),
    "CreateRouteTable": ("RouteTable", "RouteTableId"),
    "CreateVolume": (None, "VolumeId"),
    "CreateNetworkInterface": ("NetworkInterface", "NetworkInterfaceId"),
    "AllocateAddress": (None, "AllocationId"),
    "CreateDhcpOptions": ("DhcpOptions", "DhcpOptionsId"),
    "CreateLaunchTemplate": ("LaunchTemplate", "LaunchTemplateId"),
    "CreateVpcEndpoint": ("VpcEndpoint", "VpcEndpointId"),
    "CreateRole": ("Role", "RoleName"),
    "CreateUser": ("User", "UserName"),
    "CreateInstanceProfile": ("InstanceProfile", "InstanceProfileName"),
    "CreatePolicy": ("Policy", "Arn"),
}
# What IAM is asked for, by the names that its calls have for it. One of each kind may have the same.
NAMED = {"RoleName": "role", "UserName": "user", "InstanceProfileName": "instance profile", "PolicyArn": "policy"}
# How its lists and its calls that make something call what they have under NAMED.
KINDS = {"ListPolicies": "PolicyArn", "CreatePolicy": "PolicyArn"}
# What is made and deleted of these, by the name of the call's own thing.
OWN = {"CreateRole": "RoleName", "CreateUser": "UserName", "CreateInstanceProfile": "InstanceProfileName"}
REMOVED = {"DeleteRole": "RoleName", "DeleteUser": "UserName", "DeleteInstanceProfile": "InstanceProfileName", "DeletePolicy": "PolicyArn"}

# Until when each isn't known everywhere, is still listed, and which of its tags are missing.
_new: dict[str, float] = {}
_gone: dict[str, float] = {}
_tags: dict[str, tuple[float, set[str]]] = {}
_profiles: dict[str, float] = {}
# What was last listed, by what was asked and the id.
_seen: dict[tuple[str, str], dict] = {}


def window(call, what: str, limit: float, power: int = 1) -> float:
    """For how long it is so, of this call's making: mostly shortly, if the power is high."""
    draw = hostile.chance(call, what).random()
    return time.monotonic() + draw**power * limit * settings.TIME_SCALE


def unlucky(call, what: str) -> bool:
    """Whether this call meets a part of AWS that knows nothing of it yet."""
    return hostile.chance(call, what).random() < 0.5


def words(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in UNCHECKED:
                yield from words(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from words(inner)
    elif isinstance(value, str):
        yield value


def check(call):
    if call.answer is not None:
        return
    now = time.monotonic()
    if call.service == "ec2" and unlucky(call, "new"):
        for word in words(call.request):
            if ID.fullmatch(word) and _new.get(word, 0) > now:
                call.fault = "not known yet"
                code, message = NOT_FOUND[word.split("-")[0]]
                refuse(code, message.format(word))
    if call.service == "iam" and unlucky(call, "new"):
        for name, kind in NAMED.items():
            # Who makes it is told that it exists.
            if name != OWN.get(call.action) and _new.get(key_of(call, name, call.request.get(name)), 0) > now:
                call.fault = "not known yet"
                refuse("NoSuchEntity", f"The {kind} with name {call.request[name]} cannot be found.", 404)
    profile(call, now)


def profile(call, now):
    """The same words as for one that never was (hashicorp/terraform-provider-aws#4769, #6079)."""
    if call.action not in ("RunInstances", "CreateAutoScalingGroup", "UpdateAutoScalingGroup"):
        return
    policy = (call.request.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    template = instances.of_template(call.ec2, call.request.get("LaunchTemplate") or policy.get("LaunchTemplateSpecification"))
    given = call.request.get("IamInstanceProfile") or template.get("IamInstanceProfile")
    found = given and instances.profile_of(call.iam, given)
    if found and _profiles.get(found.name, 0) > now:
        call.fault = "profile not known yet"
        said = instances.invalid_profile(given)
        if call.service == "ec2":
            refuse("InvalidParameterValue", said)
        refuse("ValidationError", f"You must use a valid fully-formed launch template. {said}")


def key_of(call, name: str, id) -> str:
    """EC2's ids are of one kind each; IAM's names are not."""
    return id if call.service == "ec2" else f"{KINDS.get(call.action, name)} {id}"


def hide(call):
    """Notes what this call made and removed, and lets its answer be behind."""
    if call.service not in ("ec2", "iam"):
        return
    if call.mutates:
        remember(call)
    elif call.action in LISTS:
        behind(call)


def remember(call):
    made = MADE.get(call.action)
    if made:
        around, name = made
        own = (call.answer.get(around) if around else call.answer)[name]
        id = key_of(call, name, own)
        # It was removed before, and has come again under the same name.
        _gone.pop(id, None)
        if hostile.chance(call, "known").random() < 0.5:
            _new[id] = window(call, "known for", KNOWN)
        if call.action == "CreateInstanceProfile":
            _profiles[own] = window(call, "profile", PROFILE, 4)
    if call.action == "RunInstances":
        for instance in call.answer["Instances"]:
            _new[instance["InstanceId"]] = window(call, "known for", KNOWN)
    removed = []
    if call.service == "ec2" and call.action.startswith(("Delete", "Release")):
        removed = [word for word in words(call.request) if ID.fullmatch(word)]
    elif call.action in REMOVED:
        name = REMOVED[call.action]
        removed = [key_of(call, name, call.request[name])]
    for id in removed:
        _gone[id] = window(call, "listed", LISTED)
        _new.pop(id, None)
    if call.action == "CreateTags":
        for id in call.request.get("Resources") or []:
            _tags[id] = window(call, "tagged", TAGGED), {tag["Key"] for tag in call.request.get("Tags") or []}


def behind(call):
    now = time.monotonic()
    key, name = LISTS[call.action]
    asked = json.dumps([call.action, call.request], sort_keys=True, default=str)
    filtered = {f["Name"].removeprefix("tag:") for f in call.request.get("Filters") or [] if f["Name"].startswith("tag:")}
    ghosts, missing = unlucky(call, "ghosts"), unlucky(call, "missing")
    shown = []
    for item in call.answer.get(key) or []:
        id = key_of(call, name, item.get(name))
        _seen[asked, id] = copy.deepcopy(item)
        if missing and _new.get(id, 0) > now:
            call.fault = "not listed yet"
            continue
        until, late = _tags.get(id, (0, set()))
        if missing and until > now:
            call.fault = "tags not there yet"
            if late & filtered:
                continue
            item = item | {"Tags": [tag for tag in item.get("Tags") or [] if tag["Key"] not in late]}
        shown.append(item)
    if ghosts:
        there = {key_of(call, name, item.get(name)) for item in shown}
        for (before, id), item in _seen.items():
            if before == asked and id not in there and _gone.get(id, 0) > now:
                call.fault = "still listed"
                shown.append(copy.deepcopy(item))
    call.answer[key] = shown
