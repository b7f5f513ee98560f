"""What is in use can't be removed, what is out of range can't be made: in a network, for each rule what LocalStack does and what AWS does.

The codes are those of docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, unless a test names another source.
"""

import pytest
from botocore.exceptions import ClientError
from conftest import eventually


def rule(port, source):
    pair = {"UserIdGroupPairs": [{"GroupId": source}]} if source.startswith("sg-") else {"IpRanges": [{"CidrIp": source}]}
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **pair}


# kubernetes-sigs/cluster-api-provider-aws#1846: an interface holds its group.
def test_a_group_in_use(both, own):
    nic = own.interface()
    with both.refuses(strict="DependencyViolation"):
        own.ec2.delete_security_group(GroupId=own.group)
    own.ec2.delete_network_interface(NetworkInterfaceId=nic)
    with both.refuses(lenient="InvalidGroup.NotFound"):
        own.ec2.delete_security_group(GroupId=own.group)


# kubernetes/kops#1943: groups that name each other.
def test_a_group_that_another_names(both, own):
    other = own.new_group("other")
    own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[rule(22, other)])
    with both.refuses(strict="DependencyViolation"):
        own.ec2.delete_security_group(GroupId=other)
    # One that names itself is no one else's.
    own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[rule(23, own.group)])
    own.ec2.delete_security_group(GroupId=own.group)


def test_the_default_group(both, own):
    (default,) = own.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [own.vpc]}, {"Name": "group-name", "Values": ["default"]}])["SecurityGroups"]
    if both.profile == "strict":
        with both.refuses(strict="CannotDelete"):
            own.ec2.delete_security_group(GroupId=default["GroupId"])


def test_a_subnet_in_use(both, own):
    nic = own.interface()
    with both.refuses(strict="DependencyViolation"):
        own.ec2.delete_subnet(SubnetId=own.subnets[0])
    own.ec2.delete_network_interface(NetworkInterfaceId=nic)
    own.ec2.delete_subnet(SubnetId=own.subnets[1])


# gruntwork-io/cloud-nuke#431 and #1132: the code is that of a wrong value.
def test_an_interface_in_use(both, own, debian):
    nic = own.interface()
    own.run(debian, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": nic}])
    with both.refuses(strict="InvalidParameterValue"):
        own.ec2.delete_network_interface(NetworkInterfaceId=nic)


# hashicorp/terraform-provider-aws#27513.
def test_an_interface_for_two(both, own, debian):
    nic = own.interface()
    own.run(debian, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": nic}])
    with both.refuses(strict="InvalidNetworkInterface.InUse"):
        own.run(debian, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": nic}])


# hashicorp/terraform-provider-aws#10934: a public address holds the gateway.
def test_a_gateway_with_public_addresses_behind_it(both, own):
    gateway, nic = own.gateway(), own.interface()
    address = own.ec2.allocate_address(Domain="vpc")["AllocationId"]
    own.ec2.associate_address(AllocationId=address, NetworkInterfaceId=nic)
    with both.refuses(strict="DependencyViolation"):
        own.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=own.vpc)
    # It is in use itself.
    with both.refuses(strict="InvalidIPAddress.InUse"):
        own.ec2.release_address(AllocationId=address)


def test_a_network_without_a_gateway_has_no_public_addresses(both, own):
    nic = own.interface()
    address = own.ec2.allocate_address(Domain="vpc")["AllocationId"]
    with both.refuses(strict="Gateway.NotAttached"):
        own.ec2.associate_address(AllocationId=address, NetworkInterfaceId=nic)


def test_an_interface_has_one_address(both, own):
    own.gateway()
    nic = own.interface()
    one, two = (own.ec2.allocate_address(Domain="vpc")["AllocationId"] for _ in range(2))
    own.ec2.associate_address(AllocationId=one, NetworkInterfaceId=nic)
    with both.refuses(strict="Resource.AlreadyAssociated"):
        own.ec2.associate_address(AllocationId=two, NetworkInterfaceId=nic)


def test_one_gateway_a_network(both, own):
    own.gateway()
    with both.refuses(strict="InvalidParameterValue"):
        own.gateway()


def test_a_network_in_use(both, own):
    other = both.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = own.ec2.create_security_group(GroupName="last", Description="a test's", VpcId=other)["GroupId"]
    with both.refuses(strict="DependencyViolation"):
        own.ec2.delete_vpc(VpcId=other)
    if both.profile == "strict":
        own.ec2.delete_security_group(GroupId=group)
        own.ec2.delete_vpc(VpcId=other)


def test_a_network_with_a_gateway(both, own):
    other = both.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    gateway = own.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    own.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=other)
    with both.refuses(strict="DependencyViolation"):
        own.ec2.delete_vpc(VpcId=other)
    if both.profile == "strict":
        own.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=other)
        own.ec2.delete_vpc(VpcId=other)
        own.ec2.delete_internet_gateway(InternetGatewayId=gateway)


def test_a_route_table_in_use(both, own):
    table = own.ec2.create_route_table(VpcId=own.vpc)["RouteTable"]["RouteTableId"]
    association = own.ec2.associate_route_table(RouteTableId=table, SubnetId=own.subnets[0])["AssociationId"]
    # moto knows this one.
    with both.refuses(lenient="DependencyViolation", strict="DependencyViolation"):
        own.ec2.delete_route_table(RouteTableId=table)
    own.ec2.disassociate_route_table(AssociationId=association)
    own.ec2.delete_route_table(RouteTableId=table)


def test_dhcp_options_in_use(both, own):
    options = own.ec2.create_dhcp_options(DhcpConfigurations=[{"Key": "domain-name", "Values": ["a.test"]}])["DhcpOptions"]["DhcpOptionsId"]
    own.ec2.associate_dhcp_options(DhcpOptionsId=options, VpcId=own.vpc)
    with both.refuses(lenient="DependencyViolation", strict="DependencyViolation"):
        own.ec2.delete_dhcp_options(DhcpOptionsId=options)
    own.ec2.associate_dhcp_options(DhcpOptionsId="default", VpcId=own.vpc)
    own.ec2.delete_dhcp_options(DhcpOptionsId=options)


# --- ranges ---------------------------------------------------------------------------------------------------------------------


# API_CreateVpc: between /28 and /16.
@pytest.mark.parametrize("cidr, code", [("10.0.0.0/8", "InvalidVpc.Range"), ("10.0.0.0/29", "InvalidVpc.Range"), ("10.0.0.0/33", "InvalidParameterValue"), ("ten", "InvalidParameterValue")])
def test_the_range_of_a_network(both, cidr, code):
    ec2 = both.client("ec2")
    # LocalStack's codes are the same for what it refuses; it may be another for nonsense.
    with pytest.raises(ClientError) as refused:
        ec2.create_vpc(CidrBlock=cidr)
    if both.profile == "strict":
        assert refused.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("cidr, code", [("172.21.0.0/24", "InvalidSubnet.Range"), ("172.20.9.0/29", "InvalidSubnet.Range"), ("172.20.0.128/25", "InvalidSubnet.Conflict"), ("x/24", "InvalidParameterValue")])
def test_the_range_of_a_subnet(both, own, cidr, code):
    # moto takes one that is too small.
    lenient = None if cidr.endswith("/29") else code
    with both.refuses(lenient=lenient, strict=code):
        own.subnets.append(own.ec2.create_subnet(VpcId=own.vpc, CidrBlock=cidr)["Subnet"]["SubnetId"])


@pytest.mark.parametrize("cidr", ["10.0.0.0/33", "10.0.0.256/32", "10.0.0.0"])
def test_the_range_of_a_rule(both, own, cidr):
    with both.refuses(lenient="InvalidParameterValue", strict="InvalidParameterValue"):
        own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[rule(22, cidr)])


def test_ports_the_wrong_way_round(both, own):
    backwards = rule(22, "10.0.0.0/8") | {"FromPort": 80, "ToPort": 22}
    with both.refuses(strict="InvalidParameterValue"):
        own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[backwards])


# --- limits and names -----------------------------------------------------------------------------------------------------------


# docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html: as many as a new account may have.
def test_as_many_networks_as_there_may_be(both):
    ec2 = both.client("ec2")
    made = []
    with both.refuses(strict="VpcLimitExceeded"):
        for _ in range(5):
            made.append(ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
    for vpc in made:
        ec2.delete_vpc(VpcId=vpc)
    # The default one counts.
    assert both.profile == "lenient" or len(made) == 4


def test_as_many_addresses_as_there_may_be(both):
    ec2 = both.client("ec2")
    made = []
    with both.refuses(strict="AddressLimitExceeded"):
        for _ in range(6):
            made.append(ec2.allocate_address(Domain="vpc")["AllocationId"])
    for address in made:
        ec2.release_address(AllocationId=address)
    assert both.profile == "lenient" or len(made) == 5


def test_as_many_rules_and_groups_as_there_may_be(both, own):
    many = [rule(port, "10.0.0.0/8") for port in range(1000, 1061)]
    with both.refuses(lenient="RulesPerSecurityGroupLimitExceeded", strict="RulesPerSecurityGroupLimitExceeded"):
        own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=many)
    groups = [own.new_group(str(i)) for i in range(6)]
    with both.refuses(strict="SecurityGroupsPerInterfaceLimitExceeded"):
        own.ec2.create_network_interface(SubnetId=own.subnets[0], Groups=groups)


def test_names_of_groups(both, own):
    for refused in [{"GroupName": own.name}, {"GroupName": "sg-mine"}]:
        taken = refused["GroupName"] == own.name
        with both.refuses(lenient="InvalidGroup.Duplicate" if taken else None, strict="InvalidGroup.Duplicate" if taken else "InvalidParameterValue"):
            own.ec2.create_security_group(**refused, Description="a test's", VpcId=own.vpc)


def test_what_is_there_already(both, own):
    own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[rule(22, "10.0.0.0/8")])
    with both.refuses(lenient="InvalidPermission.Duplicate", strict="InvalidPermission.Duplicate"):
        own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[rule(22, "10.0.0.0/8")])
    own.ec2.create_key_pair(KeyName=own.name)
    with both.refuses(lenient="InvalidKeyPair.Duplicate", strict="InvalidKeyPair.Duplicate"):
        own.ec2.create_key_pair(KeyName=own.name)
    own.ec2.delete_key_pair(KeyName=own.name)


# API_ModifyVpcAttribute: "you can only modify one attribute at a time".
def test_one_attribute_a_call(both, own):
    on = {"Value": True}
    with both.refuses(strict="InvalidParameterCombination"):
        own.ec2.modify_vpc_attribute(VpcId=own.vpc, EnableDnsSupport=on, EnableDnsHostnames=on)


# --- gateways for private networks ----------------------------------------------------------------------------------------------


# hashicorp/learn-terraform-provision-eks-cluster#22; kubernetes-sigs/cluster-api-provider-aws#1328: its address is held until it is gone.
def test_a_nat_gateway_takes_its_time(both, own):
    own.gateway()
    address = own.ec2.allocate_address(Domain="vpc")["AllocationId"]
    made = own.ec2.create_nat_gateway(SubnetId=own.subnets[0], AllocationId=address)["NatGateway"]
    assert made["State"] == {"lenient": "available", "strict": "pending"}[both.profile]
    id = made["NatGatewayId"]

    def state():
        return own.ec2.describe_nat_gateways(NatGatewayIds=[id])["NatGateways"][0]["State"]

    eventually(lambda: state() == "available")
    own.ec2.delete_nat_gateway(NatGatewayId=id)
    with both.refuses(strict="InvalidIPAddress.InUse"):
        own.ec2.release_address(AllocationId=address)
    eventually(lambda: state() == "deleted")
