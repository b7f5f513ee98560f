"""As many as an account may have: those of service-quotas (quotas.py), by the codes that EC2 has for them."""

from kup_cloud import quotas
from kup_cloud.calls import refuse
from kup_cloud.strict import rule
from kup_cloud.strict.network import group_of, groups_of


def quota(ec2, service: str, code: str) -> int:
    return quotas.value(ec2.account_id, ec2.region_name, service, code)


def within(ec2, there: int, more: int, service: str, code: str, error: str, message: str):
    if there + more > quota(ec2, service, code):
        refuse(error, message)


@rule("ec2:CreateVpc")
def vpcs(call, asked):
    within(call.ec2, len(call.ec2.vpcs), 1, "vpc", "L-F678F1CE", "VpcLimitExceeded", "The maximum number of VPCs has been reached.")


@rule("ec2:CreateSubnet")
def subnets(call, asked):
    there = sum(s.vpc_id == asked.get("VpcId") for zone in call.ec2.subnets.values() for s in zone.values())
    within(call.ec2, there, 1, "vpc", "L-407747CB", "SubnetLimitExceeded", "The maximum number of subnets has been reached.")


@rule("ec2:CreateInternetGateway")
def gateways(call, asked):
    there = len(call.ec2.internet_gateways)
    within(call.ec2, there, 1, "vpc", "L-A4707A72", "InternetGatewayLimitExceeded", "The maximum number of internet gateways has been reached.")


@rule("ec2:CreateSecurityGroup")
def groups(call, asked):
    message = "The maximum number of security groups has been reached."
    within(call.ec2, len(groups_of(call.ec2)), 1, "vpc", "L-E79EC296", "SecurityGroupLimitExceeded", message)


@rule("ec2:AllocateAddress")
def addresses(call, asked):
    there = len(call.ec2.addresses)
    within(call.ec2, there, 1, "ec2", "L-0263D0A3", "AddressLimitExceeded", "The maximum number of addresses has been reached.")


@rule("ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress")
def rules_of_a_group(call, asked):
    group = group_of(call.ec2, asked.get("GroupId"))
    if group is None:
        return
    there = group.ingress_rules if call.action.endswith("Ingress") else group.egress_rules
    sources = ("IpRanges", "Ipv6Ranges", "UserIdGroupPairs", "PrefixListIds")
    more = sum(len(permission.get(source) or []) for permission in asked.get("IpPermissions") or [] for source in sources)
    message = "The maximum number of rules per security group has been reached."
    within(call.ec2, len(there), more, "vpc", "L-0EA8095F", "RulesPerSecurityGroupLimitExceeded", message)


@rule("ec2:CreateNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute")
def groups_of_an_interface(call, asked):
    check_groups(call.ec2, asked.get("Groups") or [])


def check_groups(ec2, wanted):
    message = "The maximum number of security groups per interface has been reached."
    within(ec2, 0, len(wanted), "vpc", "L-2AFB9258", "SecurityGroupsPerInterfaceLimitExceeded", message)


def processors_of(type: str) -> int:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return INSTANCE_TYPES.get(type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 1)


def check_processors(ec2, type: str, count: int, spot: bool):
    """Spot and on-demand instances have a quota each; only those that aren't ended count."""
    running = [i for i in ec2.all_instances() if i.state in ("pending", "running") and (i.lifecycle == "spot") == spot]
    there = sum(processors_of(i.instance_type) for i in running)
    limit = quota(ec2, "ec2", "L-34B43A08" if spot else "L-1216C47A")
    if there + processors_of(type) * count > limit:
        if spot:
            refuse("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        refuse(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified "
            "instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )
