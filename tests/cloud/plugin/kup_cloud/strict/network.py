"""What is in use in a network can't be removed."""

from kup_cloud.calls import refuse
from kup_cloud.strict import rule


def dependency(message: str):
    refuse("DependencyViolation", message)


def groups_of(ec2, vpc=None):
    return [group for id, groups in ec2.groups.items() if vpc in (None, id) for group in groups.values()]


def group_of(ec2, id):
    return next((group for group in groups_of(ec2) if group.id == id), None)


@rule("ec2:DeleteSecurityGroup")
def group_in_use(call, asked):
    group = group_of(call.ec2, asked.get("GroupId"))
    if group is None:
        return
    if group.name == "default":
        refuse("CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user')
    used = any(group in nic._group_set for nic in call.ec2.enis.values())
    others = [other for other in groups_of(call.ec2) if other is not group]
    named = any(rule.source_group.get("GroupId") == group.id for other in others for rule in other.ingress_rules + other.egress_rules)
    if used or named:
        dependency(f"resource {group.id} has a dependent object")


@rule("ec2:DeleteSubnet")
def subnet_in_use(call, asked):
    id = asked.get("SubnetId")
    if any(nic.subnet.id == id for nic in call.ec2.enis.values()):
        dependency(f"The subnet '{id}' has dependencies and cannot be deleted.")


def public_addresses(ec2, vpc) -> bool:
    """Whether an interface in the VPC has one."""
    elastic = any(address.eni and address.eni.subnet.vpc_id == vpc for address in ec2.addresses)
    return elastic or any(nic.public_ip and nic.subnet.vpc_id == vpc for nic in ec2.enis.values())


@rule("ec2:DetachInternetGateway")
def gateway_in_use(call, asked):
    vpc = asked.get("VpcId")
    gateway = call.ec2.internet_gateways.get(asked.get("InternetGatewayId"))
    if gateway and gateway.vpc and gateway.vpc.id == vpc and public_addresses(call.ec2, vpc):
        dependency(f"Network {vpc} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.")


@rule("ec2:AttachInternetGateway")
def one_gateway(call, asked):
    vpc, id = asked.get("VpcId"), asked.get("InternetGatewayId")
    for gateway in call.ec2.internet_gateways.values():
        if gateway.vpc and gateway.vpc.id == vpc and gateway.id != id:
            refuse("InvalidParameterValue", f"Network {vpc} already has an internet gateway attached")


@rule("ec2:DeleteNetworkInterface")
def interface_in_use(call, asked):
    nic = call.ec2.enis.get(asked.get("NetworkInterfaceId"))
    if nic and (nic.instance or nic.status == "in-use"):
        refuse("InvalidParameterValue", f"Network interface '{nic.id}' is currently in use.")


@rule("ec2:ReleaseAddress")
def address_in_use(call, asked):
    for address in call.ec2.addresses:
        if address.allocation_id == asked.get("AllocationId") and (address.eni or address.instance):
            refuse("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")


@rule("ec2:AssociateAddress")
def address_needs_a_way_out(call, asked):
    nic = call.ec2.enis.get(asked.get("NetworkInterfaceId"))
    if nic is None:
        instance = next((i for i in call.ec2.all_instances() if i.id == asked.get("InstanceId")), None)
        if instance is None:
            return
        if instance.state not in ("running", "stopped", "stopping"):
            refuse("InvalidInstanceID", f"The {instance.state} instance '{instance.id}' is not in a valid state for this operation.")
        nic = instance.nics.get(0)
    vpc = nic.subnet.vpc_id
    if not any(gateway.vpc and gateway.vpc.id == vpc for gateway in call.ec2.internet_gateways.values()):
        refuse("Gateway.NotAttached", f"Network {vpc} is not attached to any internet gateway")
    if not asked.get("AllowReassociation"):
        taken = next((a for a in call.ec2.addresses if a.eni is nic and a.allocation_id != asked.get("AllocationId")), None)
        if taken:
            refuse("Resource.AlreadyAssociated", f"resource {nic.id} is already associated with address {taken.public_ip}")


@rule("ec2:DeleteRouteTable")
def table_in_use(call, asked):
    table = call.ec2.route_tables.get(asked.get("RouteTableId"))
    if table and (table.associations or table.main_association_id):
        dependency(f"The routeTable '{table.id}' has dependencies and cannot be deleted.")


@rule("ec2:DeleteDhcpOptions")
def options_in_use(call, asked):
    id = asked.get("DhcpOptionsId")
    if any(vpc.dhcp_options and vpc.dhcp_options.id == id for vpc in call.ec2.vpcs.values()):
        dependency(f"The dhcpOptions '{id}' has dependencies and cannot be deleted.")


@rule("ec2:DeleteVpc")
def vpc_in_use(call, asked):
    ec2, id = call.ec2, asked.get("VpcId")
    vpc = ec2.vpcs.get(id)
    if vpc is None:
        return
    others = [group for group in groups_of(ec2, id) if group.name != "default"]
    subnets = [s for zone in ec2.subnets.values() for s in zone.values() if s.vpc_id == id]
    gateways = [gateway for gateway in ec2.internet_gateways.values() if gateway.vpc and gateway.vpc.id == id]
    tables = [table for table in ec2.route_tables.values() if table.vpc_id == id and not table.main_association_id]
    endpoints = [endpoint for endpoint in ec2.vpc_end_points.values() if endpoint.vpc_id == id and endpoint.state != "deleted"]
    # Rules of other networks' groups, over a peering, may name its default one.
    default = next((group for group in groups_of(ec2, id) if group.name == "default"), None)
    named = default and any(
        rule.source_group.get("GroupId") == default.id for group in groups_of(ec2) if group is not default for rule in group.ingress_rules + group.egress_rules
    )
    if others or subnets or gateways or tables or endpoints or named:
        dependency(f"The vpc '{id}' has dependencies and cannot be deleted.")


@rule("ec2:CreateSecurityGroup")
def name_of_a_group(call, asked):
    if asked.get("GroupName", "").startswith("sg-"):
        refuse("InvalidParameterValue", f"Value ({asked['GroupName']}) for parameter groupName is invalid. Group names may not be in the format sg-*.")


@rule("ec2:ModifyVpcAttribute")
def one_attribute_a_call(call, asked):
    if asked.get("EnableDnsSupport") and asked.get("EnableDnsHostnames"):
        refuse("InvalidParameterCombination", "Fields for multiple attribute types specified: enableDnsSupport, enableDnsHostnames")
