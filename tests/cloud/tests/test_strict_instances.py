"""Launches, volumes and launch templates as AWS takes them; for each rule what LocalStack does and what AWS does."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from conftest import Emulated, Network, emulator, eventually, free_port, tags


# kubermatic/kubermatic#144: 16,384 bytes before they are encoded.
def test_user_data(both, own, debian):
    own.run(debian, UserData="#" * 16384)
    with both.refuses(strict="InvalidParameterValue"):
        own.run(debian, UserData="#" * 16385)


# github-aws-runners/terraform-aws-github-runner#3700: another code in a template.
def test_user_data_of_a_template(both, own):
    def make(data):
        id = own.ec2.create_launch_template(LaunchTemplateName=own.name, LaunchTemplateData={"UserData": data})["LaunchTemplate"]["LaunchTemplateId"]
        own.ec2.delete_launch_template(LaunchTemplateId=id)

    make(base64.b64encode(b"#" * 16384).decode())
    with both.refuses(strict="InvalidUserData.Malformed"):
        make(base64.b64encode(b"#" * 16385).decode())
    with both.refuses(lenient="InvalidUserData.Malformed", strict="InvalidUserData.Malformed"):
        make("#!/bin/sh")


# EC2's list of error codes.
def test_images(both, own):
    with both.refuses(strict="InvalidAMIID.NotFound"):
        own.run("ami-0123456789abcdef0")
    with both.refuses(strict="InvalidAMIID.Malformed"):
        own.run("ami-debian")


def test_types_and_keys(both, own, debian):
    with both.refuses(strict="InvalidParameterValue"):
        own.run(debian, InstanceType="t3.gigantic")
    # The image is for another processor.
    with both.refuses(strict="InvalidParameterValue"):
        own.run(debian, InstanceType="t4g.small")
    with both.refuses(strict="InvalidKeyPair.NotFound"):
        own.run(debian, KeyName="nobody's")


# hashicorp/packer#9810 and hashicorp/terraform-provider-aws#6079: told as any wrong value.
def test_an_unknown_profile(both, own, debian):
    with both.refuses(lenient="NoSuchEntity", strict="InvalidParameterValue"):
        own.run(debian, IamInstanceProfile={"Name": "nobody"})


# API_RunInstances: "If you specify a network interface, you must specify any security groups and subnets as part of the network interface".
def test_groups_belong_to_the_interface(both, own, debian):
    nic = own.interface()
    with both.refuses(strict="InvalidParameterCombination"):
        own.run(debian, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": nic}], SecurityGroupIds=[own.group])


# docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html: by virtual CPUs.
def test_as_many_processors_as_there_may_be(both, own, debian):
    with both.refuses(strict="VcpuLimitExceeded"):
        own.run(debian, InstanceType="c6i.16xlarge", MaxCount=2)


# docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html.
def test_an_instance_takes_its_time(both, own, debian):
    id = own.run(debian)
    if both.profile == "strict":
        assert own.state(id) == "pending"
    eventually(lambda: own.state(id) == "running")
    own.ec2.stop_instances(InstanceIds=[id])
    if both.profile == "strict":
        assert own.state(id) == "stopping"
        with both.refuses(strict="IncorrectInstanceState"):
            own.ec2.start_instances(InstanceIds=[id])
    eventually(lambda: own.state(id) == "stopped")
    own.ec2.start_instances(InstanceIds=[id])
    eventually(lambda: own.state(id) == "running")
    own.ec2.terminate_instances(InstanceIds=[id])
    assert own.state(id) == {"lenient": "terminated", "strict": "shutting-down"}[both.profile]
    # Until it has ended, what it used is not free.
    with both.refuses(strict="DependencyViolation"):
        own.ec2.delete_subnet(SubnetId=own.subnets[0])
    eventually(lambda: own.state(id) == "terminated")
    with both.refuses(lenient="InvalidSubnetID.NotFound"):
        own.ec2.delete_subnet(SubnetId=own.subnets[0])


# docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html: it "remains visible in the console for a short while".
def test_an_ended_instance_is_forgotten(state):
    port = free_port()
    # An hour is a third of a second.
    emulator("start", "--profile", "strict", "--time-scale", 0.0001, "--port", port, state=state)
    try:
        quick = Emulated("localstack", port, state, "strict")
        network = Network(quick.client("ec2"), "quick")
        image = quick.client("ssm").get_parameter(Name="/aws/service/debian/release/13/latest/amd64")["Parameter"]["Value"]
        id = network.run(image)
        network.ec2.terminate_instances(InstanceIds=[id])
        eventually(lambda: network.ec2.describe_instances()["Reservations"] == [])
        with quick.refuses(strict="InvalidInstanceID.NotFound"):
            network.state(id)
    finally:
        emulator("stop", "--port", port, state=state)


# docs.aws.amazon.com/ebs/latest/userguide/ebs-attaching-volume.html; EC2's list of error codes.
def test_a_volume(both, own, debian):
    instance = own.run(debian)
    made = own.ec2.create_volume(AvailabilityZone="us-west-2a", Size=1)
    volume = made["VolumeId"]
    # moto too answers so, and means nothing by it.
    assert made["State"] == "creating"

    def state():
        return own.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"]

    def attach(of=volume):
        own.ec2.attach_volume(VolumeId=of, InstanceId=instance, Device="/dev/sdf")

    if both.profile == "strict":
        with both.refuses(strict="IncorrectState"):
            attach()
    eventually(lambda: state() == "available" and own.state(instance) == "running")
    far = own.ec2.create_volume(AvailabilityZone="us-west-2b", Size=1)["VolumeId"]
    eventually(lambda: own.ec2.describe_volumes(VolumeIds=[far])["Volumes"][0]["State"] == "available")
    with both.refuses(strict="InvalidVolume.ZoneMismatch"):
        attach(far)
    attach()
    with both.refuses(strict="VolumeInUse"):
        attach()
    with both.refuses(lenient="VolumeInUse", strict="VolumeInUse"):
        own.ec2.delete_volume(VolumeId=volume)
    own.ec2.detach_volume(VolumeId=volume)
    own.ec2.delete_volume(VolumeId=volume)


# --- the same call twice --------------------------------------------------------------------------------------------------------


# docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html.
def test_a_token_makes_one_instance(both, own, debian):
    token = f"{own.name}-token"
    one = own.run(debian, ClientToken=token)
    two = own.run(debian, ClientToken=token)
    assert (one == two) == (both.profile == "strict")
    with both.refuses(strict="IdempotentParameterMismatch"):
        own.run(debian, ClientToken=token, InstanceType="t3.medium")
    eventually(lambda: own.state(one) == "running")
    own.ec2.terminate_instances(InstanceIds=[one])
    # EC2's list of error codes: it can't be had again.
    with both.refuses(strict="IdempotentInstanceTerminated"):
        own.run(debian, ClientToken=token)


def test_a_token_makes_one_volume(both):
    ec2 = both.client("ec2")
    volumes = {ec2.create_volume(AvailabilityZone="us-west-2a", Size=1, ClientToken="v")["VolumeId"] for _ in range(2)}
    assert len(volumes) == {"lenient": 2, "strict": 1}[both.profile]
    # What was refused has not used its token up. moto makes volumes anywhere.
    for zone, code in {"us-west-9z": "InvalidZone.NotFound", "us-west-2a": None}.items():
        with both.refuses(strict=code):
            volumes.add(ec2.create_volume(AvailabilityZone=zone, Size=1, ClientToken="w")["VolumeId"])
    for volume in volumes:
        ec2.delete_volume(VolumeId=volume)


# API_CreateVpc, and all others: "the error response is DryRunOperation".
def test_a_dry_run_does_nothing(both, own):
    before = len(own.ec2.describe_vpcs()["Vpcs"])
    with both.refuses(lenient="DryRunOperation", strict="DryRunOperation"):
        own.ec2.authorize_security_group_ingress(GroupId=own.group, IpPermissions=[], DryRun=True)
    with both.refuses(strict="DryRunOperation"):
        vpc = own.ec2.create_vpc(CidrBlock="10.0.0.0/16", DryRun=True)["Vpc"]["VpcId"]
        # What moto made, though nothing was to be made.
        assert len(own.ec2.describe_vpcs()["Vpcs"]) == before + 1
        own.ec2.delete_vpc(VpcId=vpc)
    assert len(own.ec2.describe_vpcs()["Vpcs"]) == before
    # The rules come first.
    with both.refuses(lenient="DryRunOperation", strict="InvalidAMIID.NotFound"):
        own.run("ami-0123456789abcdef0", DryRun=True)


# --- how often, and how much at once --------------------------------------------------------------------------------------------


# docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html: five launches at once, two more a second.
def test_launches_are_counted(both, own, debian):
    def launch(_=None):
        try:
            # Those that do nothing count too.
            own.ec2.run_instances(ImageId=debian, InstanceType="t3.small", MinCount=1, MaxCount=1, DryRun=True)
        except ClientError as error:
            return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]

    # What other tests have used up comes back.
    may = ("DryRunOperation", 412)
    for _ in range(60):
        if launch() == may:
            break
        time.sleep(0.5)
    # At once, so that a slow machine does not let as many come back meanwhile.
    with ThreadPoolExecutor(10) as pool:
        said = {may, *pool.map(launch, range(30))}
    assert said == {"lenient": {may}, "strict": {may, ("RequestLimitExceeded", 503)}}[both.profile]
    # Two a second come back.
    assert own.run(debian)


# kubernetes-sigs/cluster-api-provider-aws#1275 speaks of DescribeLoadBalancers: other services have another word for it.
def test_other_services_say_it_otherwise(both):
    iam, said = both.client("iam"), set()
    # Two hundred changes at once, and five more a second; a slow machine makes few in a second.
    for _ in range(600 if both.profile == "strict" else 220):
        try:
            iam.delete_user(UserName="nobody")
        except ClientError as error:
            said.add(error.response["Error"]["Code"])
        if "Throttling" in said:
            break
    assert said == {"lenient": {"NoSuchEntity"}, "strict": {"NoSuchEntity", "Throttling"}}[both.profile]


# API_DescribeSecurityGroups: more is there while there is a token.
def test_a_list_comes_in_pages(both, own):
    wanted = {own.new_group(str(i)) for i in range(7)} | {own.group}
    here = [{"Name": "vpc-id", "Values": [own.vpc]}, {"Name": "group-name", "Values": [f"{own.name}*"]}]
    first = own.ec2.describe_security_groups(Filters=here)
    assert (len(first["SecurityGroups"]) < len(wanted)) == ("NextToken" in first) == (both.profile == "strict")
    pages = own.ec2.get_paginator("describe_security_groups").paginate(Filters=here, PaginationConfig={"PageSize": 5})
    found = []
    for number, page in enumerate(pages):
        found += [group["GroupId"] for group in page["SecurityGroups"]]
        # What is made or removed meanwhile moves no page.
        if number == 0 and both.profile == "strict":
            own.ec2.delete_security_group(GroupId=found[0])
            own.new_group("late")
    assert set(found) == wanted and len(found) == len(wanted)
    assert own.ec2.describe_security_groups(GroupIds=sorted(found[1:]))["SecurityGroups"]


# API_ListRoles: "IAM might return fewer than the MaxItems number of results, even when there are more results available".
def test_other_services_lists_come_in_pages(both, name):
    iam, s3 = both.client("iam"), both.client("s3")
    for i in range(7):
        iam.create_user(UserName=f"{name}-{i}", Path=f"/{name}/", Tags=tags(Name=name))
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for i in range(7):
        s3.put_object(Bucket=name, Key=str(i), Body=b"")
    users, objects = iam.list_users(PathPrefix=f"/{name}/"), s3.list_objects_v2(Bucket=name)
    assert users["IsTruncated"] == objects["IsTruncated"] == (both.profile == "strict")
    assert objects["MaxKeys"] == 1000
    assert sum(len(page["Users"]) for page in iam.get_paginator("list_users").paginate(PathPrefix=f"/{name}/")) == 7
    assert sum(len(page["Contents"]) for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name)) == 7
