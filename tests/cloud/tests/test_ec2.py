"""EC2 as kup uses it."""

import base64

import pytest
from botocore.exceptions import ClientError
from conftest import REGION, tagged, tags

IMAGES = {
    "/aws/service/debian/release/13/latest/amd64": ("x86_64", "/dev/xvda", "debian-13-"),
    "/aws/service/debian/release/13/latest/arm64": ("arm64", "/dev/xvda", "debian-13-"),
    "/aws/service/debian/release/12/latest/amd64": ("x86_64", "/dev/xvda", "debian-12-"),
    "/aws/service/debian/release/12/latest/arm64": ("arm64", "/dev/xvda", "debian-12-"),
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id": ("x86_64", "/dev/sda1", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-"),
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id": ("arm64", "/dev/sda1", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-"),
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64": ("x86_64", "/dev/xvda", "al2023-ami-2023."),
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64": ("arm64", "/dev/xvda", "al2023-ami-2023."),
}


def image_of(aws, parameter, region=REGION):
    id = aws.client("ssm", region).get_parameter(Name=parameter)["Parameter"]["Value"]
    (image,) = aws.client("ec2", region).describe_images(ImageIds=[id])["Images"]
    return image


@pytest.mark.lacks(moto="only Amazon Linux has its parameters, and those images call themselves /dev/sda1")
@pytest.mark.parametrize("region", ["us-west-2", "us-east-1", "eu-central-1"])
def test_images_of_all_distributions(aws, region):
    for parameter, (architecture, root, name) in IMAGES.items():
        image = image_of(aws, parameter, region)
        assert image["Architecture"] == architecture, parameter
        assert image["RootDeviceName"] == root, parameter
        assert image["Name"].startswith(name), parameter
        assert image["State"] == "available" and image["RootDeviceType"] == "ebs" and image["VirtualizationType"] == "hvm"
        (disk,) = image["BlockDeviceMappings"]
        assert disk["DeviceName"] == root and disk["Ebs"]["DeleteOnTermination"] and disk["Ebs"]["VolumeSize"] >= 8
        assert disk["Ebs"]["VolumeType"] == "gp3" or "al2023" in name or "debian" in name


@pytest.mark.lacks(moto="has no Debian")
def test_images_in_one_call_and_by_their_path(aws):
    ssm = aws.client("ssm")
    found = ssm.get_parameters(Names=[*IMAGES, "/aws/service/debian/release/99/latest/amd64"])
    assert {p["Name"] for p in found["Parameters"]} == set(IMAGES)
    assert found["InvalidParameters"] == ["/aws/service/debian/release/99/latest/amd64"]
    listed = ssm.get_parameters_by_path(Path="/aws/service/debian/release/13/latest")["Parameters"]
    assert sorted(p["Name"] for p in listed) == [p for p in IMAGES if p.startswith("/aws/service/debian/release/13/")]
    parameter = ssm.get_parameter(Name=next(iter(IMAGES)))["Parameter"]
    assert parameter["Type"] == "String" and parameter["DataType"] == "aws:ec2:image" and parameter["Version"] >= 1


def test_an_image_that_is_not_there(aws):
    ssm, ec2 = aws.client("ssm"), aws.client("ec2")
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name="/aws/service/debian/release/99/latest/amd64")
    with pytest.raises(ClientError, match="InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=["ami-0123456789abcdef0"])


@pytest.mark.lacks(moto="has no Debian")
def test_images_by_owner_and_name(aws):
    ec2 = aws.client("ec2")
    for owner, name in {"136693071363": "debian-13-amd64-*", "099720109477": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-*"}.items():
        (image,) = ec2.describe_images(Owners=[owner], Filters=[{"Name": "name", "Values": [name]}])["Images"]
        assert image["OwnerId"] == owner and image["Public"]
    # Debian and Canonical aren't Amazon.
    assert not ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": ["debian-13-amd64-*"]}])["Images"]


TYPES = {"t3.medium": ("x86_64", 2, 4096), "t3.small": ("x86_64", 2, 2048), "t2.micro": ("x86_64", 1, 1024), "m5.large": ("x86_64", 2, 8192), "t4g.small": ("arm64", 2, 2048), "m7g.large": ("arm64", 2, 8192), "c6i.xlarge": ("x86_64", 4, 8192)}


def test_instance_types(aws):
    ec2 = aws.client("ec2")
    found = {t["InstanceType"]: t for t in ec2.describe_instance_types(InstanceTypes=list(TYPES))["InstanceTypes"]}
    assert found.keys() == TYPES.keys()
    for name, (architecture, cpus, memory) in TYPES.items():
        assert architecture in found[name]["ProcessorInfo"]["SupportedArchitectures"]
        assert found[name]["VCpuInfo"]["DefaultVCpus"] == cpus
        assert found[name]["MemoryInfo"]["SizeInMiB"] == memory
    with pytest.raises(ClientError, match="InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["t3.gigantic"])


def test_instance_types_offered(aws):
    ec2 = aws.client("ec2")
    for region in ["us-west-2", "us-east-1"]:
        offered = aws.client("ec2", region).describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(TYPES)}]
        )["InstanceTypeOfferings"]
        assert {o["InstanceType"] for o in offered if o["Location"] == region + "a"} == TYPES.keys()
        assert all(o["LocationType"] == "availability-zone" for o in offered)
    none = ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["t3.gigantic"]}])
    assert none["InstanceTypeOfferings"] == []
    here = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["t3.small"]}, {"Name": "location", "Values": ["us-west-2b"]}]
    )["InstanceTypeOfferings"]
    assert [o["Location"] for o in here] == ["us-west-2b"]


def test_zones(aws):
    zones = aws.client("ec2").describe_availability_zones()["AvailabilityZones"]
    assert {"us-west-2a", "us-west-2b", "us-west-2c", "us-west-2d"} <= {z["ZoneName"] for z in zones}
    assert all(z["State"] == "available" and z["ZoneType"] == "availability-zone" and z["RegionName"] == REGION for z in zones)


@pytest.mark.lacks(moto="has no OptInStatus, and passes over a zone that is not there")
def test_zones_that_can_be_used(aws):
    zones = aws.client("ec2").describe_availability_zones(ZoneNames=["us-west-2a"])["AvailabilityZones"]
    assert [z["OptInStatus"] for z in zones] == ["opt-in-not-required"]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        aws.client("ec2").describe_availability_zones(ZoneNames=["us-west-2z"])


USER_DATA = "#!/bin/sh\necho 'ü$(hostname)'\n"


def describe(ec2, **of):
    (instance,) = [i for r in ec2.describe_instances(**of)["Reservations"] for i in r["Instances"]]
    return instance


def user_data(ec2, instance):
    return base64.b64decode(ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]).decode()


def test_an_instance_keeps_what_it_was_given(aws, network, image, profile, name):
    ec2 = aws.client("ec2")
    eni = ec2.create_network_interface(
        SubnetId=network.subnets[0],
        PrivateIpAddress="172.20.0.10",
        Groups=[network.group],
        Description="a master's",
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags(Name=name)}],
    )["NetworkInterface"]
    assert eni["PrivateIpAddress"] == "172.20.0.10" and tagged(eni) == {"Name": name}
    key = ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    instance = ec2.run_instances(
        ImageId=image,
        InstanceType="t3.medium",
        MinCount=1,
        MaxCount=1,
        KeyName=name,
        UserData=USER_DATA,
        ClientToken=name,
        NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": eni["NetworkInterfaceId"]}],
        IamInstanceProfile={"Arn": profile},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}}],
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags(Name=name)}, {"ResourceType": "volume", "Tags": tags(Name=name)}],
    )["Instances"][0]
    found = describe(ec2, InstanceIds=[instance["InstanceId"]])
    assert found["InstanceType"] == "t3.medium" and found["ImageId"] == image and found["KeyName"] == key["KeyName"]
    assert user_data(ec2, found["InstanceId"]) == USER_DATA
    assert found["MetadataOptions"]["HttpTokens"] == "required" and found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert found["IamInstanceProfile"]["Arn"] == profile
    assert found["PrivateIpAddress"] == "172.20.0.10" and tagged(found) == {"Name": name}
    assert found["SubnetId"] == network.subnets[0] and found["VpcId"] == network.vpc and found["Placement"]["AvailabilityZone"] == "us-west-2a"
    (interface,) = found["NetworkInterfaces"]
    assert interface["NetworkInterfaceId"] == eni["NetworkInterfaceId"] and [g["GroupId"] for g in interface["Groups"]] == [network.group]
    (disk,) = found["BlockDeviceMappings"]
    (volume,) = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
    assert volume["Size"] == 20 and volume["VolumeType"] == "gp3" and volume["Encrypted"] and tagged(volume) == {"Name": name}
    assert volume["Attachments"][0]["Device"] == "/dev/xvda"


@pytest.mark.lacks(moto="shows no groups of a given interface at its instance, keeps it in use after the end, and says that no disk goes with its instance")
def test_an_interface_outlives_its_instance(aws, network, image):
    ec2 = aws.client("ec2")
    eni = ec2.create_network_interface(SubnetId=network.subnets[-1], Groups=[network.group])["NetworkInterface"]["NetworkInterfaceId"]
    (subnet,) = ec2.describe_subnets(SubnetIds=network.subnets[-1:])["Subnets"]
    for _ in range(2):
        instance = ec2.run_instances(
            ImageId=image, InstanceType="t3.medium", MinCount=1, MaxCount=1, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": eni}]
        )["Instances"][0]["InstanceId"]
        found = describe(ec2, InstanceIds=[instance])
        assert [g["GroupId"] for g in found["SecurityGroups"]] == [network.group]
        assert found["Placement"]["AvailabilityZone"] == subnet["AvailabilityZone"] != "us-west-2a"
        (disk,) = found["BlockDeviceMappings"]
        assert disk["DeviceName"] == "/dev/xvda"
        (volume,) = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        assert volume["Attachments"][0]["DeleteOnTermination"]
        ec2.terminate_instances(InstanceIds=[instance])
        assert describe(ec2, InstanceIds=[instance])["State"]["Name"] == "terminated"
        (left,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"]
        assert left["Status"] == "available" and "Attachment" not in left
        with pytest.raises(ClientError, match="InvalidVolume.NotFound"):
            ec2.describe_volumes(VolumeIds=[volume["VolumeId"]])


def template_data(network, image, profile, name):
    return {
        "ImageId": image,
        "InstanceType": "t3.small",
        "KeyName": name,
        "UserData": base64.b64encode(USER_DATA.encode()).decode(),
        "IamInstanceProfile": {"Arn": profile},
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": [network.group], "AssociatePublicIpAddress": True, "DeleteOnTermination": True}],
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}}],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags(Name=name)}, {"ResourceType": "volume", "Tags": tags(Name=name)}],
    }


@pytest.fixture
def template(aws, network, image, profile, name):
    ec2 = aws.client("ec2")
    ec2.create_key_pair(KeyName=name)
    made = ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData=template_data(network, image, profile, name),
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags(Name=name)}],
    )["LaunchTemplate"]
    return made["LaunchTemplateId"]


@pytest.mark.lacks(moto="counts a template's own tags as what it launches")
def test_a_launch_template_keeps_what_it_was_given(aws, template, network, image, profile, name):
    ec2 = aws.client("ec2")
    (found,) = ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    assert tagged(found) == {"Name": name} and found["DefaultVersionNumber"] == 1
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=["$Default"])["LaunchTemplateVersions"]
    assert version["LaunchTemplateData"] == template_data(network, image, profile, name)


def test_versions_of_a_launch_template(aws, template, network, image, profile, name):
    ec2 = aws.client("ec2")
    second = template_data(network, image, profile, name) | {"InstanceType": "t3.medium"}
    assert ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=second)["LaunchTemplateVersion"]["VersionNumber"] == 2
    (found,) = ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]
    assert (found["DefaultVersionNumber"], found["LatestVersionNumber"]) == (1, 2)
    ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=["$Default"])["LaunchTemplateVersions"]
    assert version["VersionNumber"] == 2 and version["LaunchTemplateData"]["InstanceType"] == "t3.medium"
    ec2.delete_launch_template(LaunchTemplateId=template)
    with pytest.raises(ClientError, match="InvalidLaunchTemplateName.NotFoundException"):
        ec2.describe_launch_templates(LaunchTemplateNames=[name])


def made_from_template(ec2, instance, network, image, profile, name):
    """That an instance is what its template says."""
    assert instance["ImageId"] == image and instance["InstanceType"] == "t3.small" and instance.get("KeyName") == name
    assert user_data(ec2, instance["InstanceId"]) == USER_DATA
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["IamInstanceProfile"]["Arn"] == profile
    assert [g["GroupId"] for g in instance["SecurityGroups"]] == [network.group]
    assert [g["GroupId"] for g in instance["NetworkInterfaces"][0]["Groups"]] == [network.group]
    assert instance["PublicIpAddress"]
    assert tagged(instance)["Name"] == name
    (disk,) = instance["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/xvda"
    (volume,) = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
    assert volume["Size"] == 30 and volume["Encrypted"] and volume["VolumeType"] == "gp3" and tagged(volume) == {"Name": name}


@pytest.mark.lacks(moto="takes image, type, key, user-data, tags and groups outside interfaces from a template, nothing else")
def test_an_instance_from_a_launch_template(aws, template, network, image, profile, name):
    ec2 = aws.client("ec2")
    instance = ec2.run_instances(MinCount=1, MaxCount=1, SubnetId=network.subnets[1], LaunchTemplate={"LaunchTemplateId": template})["Instances"][0]
    found = describe(ec2, InstanceIds=[instance["InstanceId"]])
    made_from_template(ec2, found, network, image, profile, name)
    assert found["SubnetId"] == network.subnets[1]


@pytest.mark.lacks(moto="answers with the last rule only, and shows no description of a rule that names a group")
def test_security_groups_and_rules(aws, network, name):
    ec2 = aws.client("ec2")
    group = ec2.create_security_group(
        GroupName=f"{name}-nodes", Description="nodes", VpcId=network.vpc, TagSpecifications=[{"ResourceType": "security-group", "Tags": tags(Name=name)}]
    )["GroupId"]
    made = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 6443, "ToPort": 6443, "UserIdGroupPairs": [{"GroupId": network.group, "Description": "API"}]},
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.0/24", "Description": "SSH"}]},
        ],
        TagSpecifications=[{"ResourceType": "security-group-rule", "Tags": tags(Name=name)}],
    )["SecurityGroupRules"]
    assert len(made) == 2 and all(tagged(r) == {"Name": name} for r in made)
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert {(r["FromPort"], r.get("CidrIpv4"), r.get("ReferencedGroupInfo", {}).get("GroupId"), r["Description"]) for r in rules if not r["IsEgress"]} == {
        (6443, None, network.group, "API"),
        (22, "192.0.2.0/24", None, "SSH"),
    }
    assert [(r["IpProtocol"], r["CidrIpv4"]) for r in rules if r["IsEgress"]] == [("-1", "0.0.0.0/0")]
    with pytest.raises(ClientError, match="InvalidPermission.Duplicate"):
        ec2.authorize_security_group_ingress(
            GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.0/24", "Description": "SSH"}]}]
        )
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[r["SecurityGroupRuleId"] for r in made])
    assert not [r for r in ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"] if not r["IsEgress"]]
    with pytest.raises(ClientError, match="InvalidGroup.Duplicate"):
        ec2.create_security_group(GroupName=f"{name}-nodes", Description="nodes", VpcId=network.vpc)


def test_network(aws, name):
    ec2 = aws.client("ec2")

    def given(kind):
        return [{"ResourceType": kind, "Tags": tags(Name=name)}]

    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16", TagSpecifications=given("vpc"))["Vpc"]
    assert tagged(vpc) == {"Name": name}
    for attribute in ["EnableDnsSupport", "EnableDnsHostnames"]:
        ec2.modify_vpc_attribute(VpcId=vpc["VpcId"], **{attribute: {"Value": True}})
        assert ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=attribute[0].lower() + attribute[1:])[attribute]["Value"]
    options = ec2.create_dhcp_options(
        DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.internal"]}, {"Key": "domain-name-servers", "Values": ["AmazonProvidedDNS"]}],
        TagSpecifications=given("dhcp-options"),
    )["DhcpOptions"]
    ec2.associate_dhcp_options(DhcpOptionsId=options["DhcpOptionsId"], VpcId=vpc["VpcId"])
    assert ec2.describe_vpcs(VpcIds=[vpc["VpcId"]])["Vpcs"][0]["DhcpOptionsId"] == options["DhcpOptionsId"]
    subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="172.20.0.0/24", AvailabilityZone="us-west-2c", TagSpecifications=given("subnet"))["Subnet"]
    assert tagged(subnet) == {"Name": name} and subnet["AvailableIpAddressCount"] == 251
    ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": True})
    assert ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"][0]["MapPublicIpOnLaunch"]
    gateway = ec2.create_internet_gateway(TagSpecifications=given("internet-gateway"))["InternetGateway"]
    assert tagged(gateway) == {"Name": name}
    ec2.attach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc["VpcId"])
    table = ec2.create_route_table(VpcId=vpc["VpcId"], TagSpecifications=given("route-table"))["RouteTable"]
    assert tagged(table) == {"Name": name}
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway["InternetGatewayId"])
    association = ec2.associate_route_table(RouteTableId=table["RouteTableId"], SubnetId=subnet["SubnetId"])["AssociationId"]
    endpoint = ec2.create_vpc_endpoint(
        VpcId=vpc["VpcId"], ServiceName="com.amazonaws.us-west-2.s3", VpcEndpointType="Gateway", RouteTableIds=[table["RouteTableId"]], TagSpecifications=given("vpc-endpoint")
    )["VpcEndpoint"]
    assert endpoint["VpcEndpointType"] == "Gateway" and endpoint["RouteTableIds"] == [table["RouteTableId"]] and endpoint["State"] == "available"
    (found,) = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["VpcEndpoints"]
    assert found["VpcEndpointId"] == endpoint["VpcEndpointId"] and tagged(found) == {"Name": name}

    # Nothing that is in use goes, and then all of it does.
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_vpc(VpcId=vpc["VpcId"])
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"])
    ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint["VpcEndpointId"]])
    left = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["VpcEndpoints"]
    assert [e["State"] for e in left] == ["deleted"] * (aws.backend == "moto")
    ec2.disassociate_route_table(AssociationId=association)
    ec2.delete_route_table(RouteTableId=table["RouteTableId"])
    ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc["VpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"])
    ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    with pytest.raises(ClientError, match="InvalidVpcID.NotFound"):
        ec2.describe_vpcs(VpcIds=[vpc["VpcId"]])


@pytest.mark.lacks(moto="drops tags given when DHCP options are made, and removes the options with their VPC")
def test_dhcp_options_have_tags_and_outlive_their_vpc(aws, name):
    ec2 = aws.client("ec2")
    made = ec2.create_dhcp_options(
        DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.internal"]}], TagSpecifications=[{"ResourceType": "dhcp-options", "Tags": tags(Name=name)}]
    )["DhcpOptions"]
    assert tagged(made) == {"Name": name}
    (found,) = ec2.describe_dhcp_options(Filters=[{"Name": "tag:Name", "Values": [name]}])["DhcpOptions"]
    assert found["DhcpOptionsId"] == made["DhcpOptionsId"]
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    ec2.associate_dhcp_options(DhcpOptionsId=made["DhcpOptionsId"], VpcId=vpc)
    ec2.delete_vpc(VpcId=vpc)
    ec2.delete_dhcp_options(DhcpOptionsId=made["DhcpOptionsId"])
    assert not ec2.describe_dhcp_options(Filters=[{"Name": "tag:Name", "Values": [name]}])["DhcpOptions"]


def test_addresses_interfaces_and_volumes(aws, network, name):
    ec2 = aws.client("ec2")
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags(Name=name)}])
    (found,) = ec2.describe_addresses(Filters=[{"Name": "tag:Name", "Values": [name]}])["Addresses"]
    assert found["AllocationId"] == address["AllocationId"] and found["Domain"] == "vpc" and tagged(found) == {"Name": name}
    eni = ec2.create_network_interface(
        SubnetId=network.subnets[0], Groups=[network.group], TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags(Name=name)}]
    )["NetworkInterface"]["NetworkInterfaceId"]
    # Before any instance is there.
    association = ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=eni)["AssociationId"]
    (found,) = ec2.describe_network_interfaces(Filters=[{"Name": "tag:Name", "Values": [name]}])["NetworkInterfaces"]
    assert found["NetworkInterfaceId"] == eni and found["Association"]["PublicIp"] == address["PublicIp"]
    (found,) = ec2.describe_addresses(AllocationIds=[address["AllocationId"]])["Addresses"]
    assert found["NetworkInterfaceId"] == eni and found["AssociationId"] == association
    ec2.disassociate_address(AssociationId=association)
    ec2.release_address(AllocationId=address["AllocationId"])
    assert not ec2.describe_addresses(Filters=[{"Name": "tag:Name", "Values": [name]}])["Addresses"]
    ec2.delete_network_interface(NetworkInterfaceId=eni)
    with pytest.raises(ClientError, match="InvalidNetworkInterfaceID.NotFound"):
        ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])

    volume = ec2.create_volume(
        AvailabilityZone="us-west-2a", Size=20, VolumeType="gp3", Encrypted=True, Iops=3000, Throughput=125, ClientToken=name, TagSpecifications=[{"ResourceType": "volume", "Tags": tags(Name=name)}]
    )["VolumeId"]
    (found,) = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [name]}])["Volumes"]
    assert found["VolumeId"] == volume and found["Size"] == 20 and found["VolumeType"] == "gp3" and found["Encrypted"] and found["State"] == "available"
    ec2.delete_volume(VolumeId=volume)
    assert not ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [name]}])["Volumes"]


def test_key_pairs(aws, name):
    ec2 = aws.client("ec2")
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIpg3l3s6yZ0bHhKXBQmV9KnGcVHJhSSfzGzVbNfKkHT test"
    made = ec2.import_key_pair(KeyName=name, PublicKeyMaterial=public.encode(), TagSpecifications=[{"ResourceType": "key-pair", "Tags": tags(Name=name)}])
    assert tagged(made) == {"Name": name}
    (found,) = ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]
    assert found["KeyFingerprint"] == made["KeyFingerprint"] and found["KeyType"] == "ed25519" and tagged(found) == {"Name": name}
    (found,) = ec2.describe_key_pairs(KeyNames=[name], IncludePublicKey=True)["KeyPairs"]
    assert found["PublicKey"].split()[:2] == public.split()[:2]
    with pytest.raises(ClientError, match="InvalidKeyPair.Duplicate"):
        ec2.import_key_pair(KeyName=name, PublicKeyMaterial=public.encode())
    ec2.delete_key_pair(KeyName=name)
    with pytest.raises(ClientError, match="InvalidKeyPair.NotFound"):
        ec2.describe_key_pairs(KeyNames=[name])
