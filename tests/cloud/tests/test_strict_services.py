"""IAM, S3, Auto Scaling and load balancers as AWS is; for each rule what LocalStack does and what AWS does."""

import json

import pytest
from conftest import eventually

POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})


# API_DeleteUser: "you must delete the items attached to the user manually, or the deletion fails".
def test_a_user_with_something(both, name):
    iam = both.client("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    with both.refuses(strict="DeleteConflict"):
        iam.delete_user(UserName=name)
    if both.profile == "lenient":
        return
    iam.delete_access_key(UserName=name, AccessKeyId=key)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=POLICY)
    with both.refuses(strict="DeleteConflict"):
        iam.delete_user(UserName=name)
    iam.delete_user_policy(UserName=name, PolicyName="p")
    iam.delete_user(UserName=name)


# docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html.
def test_two_keys_a_user(both, name):
    iam = both.client("iam")
    iam.create_user(UserName=name)
    with both.refuses(lenient="LimitExceeded", strict="LimitExceeded"):
        for _ in range(3):
            iam.create_access_key(UserName=name)


# API_DeleteRole: "Before attempting to delete a role, remove the following attached items".
def test_a_role_with_something(both, name):
    iam = both.client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=POLICY)
    # moto knows these.
    for refused in [lambda: iam.delete_role(RoleName=name), lambda: iam.delete_instance_profile(InstanceProfileName=name)]:
        with both.refuses(lenient="DeleteConflict", strict="DeleteConflict"):
            refused()
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    # A second time: moto breaks.
    with both.refuses(lenient="InternalError", strict="NoSuchEntity"):
        iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    iam.delete_instance_profile(InstanceProfileName=name)
    with both.refuses(lenient="DeleteConflict", strict="DeleteConflict"):
        iam.delete_role(RoleName=name)
    iam.delete_role_policy(RoleName=name, PolicyName="p")
    iam.delete_role(RoleName=name)


# API_DeletePolicy: "you must first detach the policy ... and delete all its versions".
def test_a_policy_with_something(both, name):
    iam = both.client("iam")
    arn = iam.create_policy(PolicyName=name, PolicyDocument=POLICY)["Policy"]["Arn"]
    iam.create_user(UserName=name)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    with both.refuses(strict="DeleteConflict"):
        iam.delete_policy(PolicyArn=arn)
    if both.profile == "lenient":
        return
    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=POLICY, SetAsDefault=True)
    with both.refuses(strict="DeleteConflict"):
        iam.delete_policy(PolicyArn=arn)
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy(PolicyArn=arn)


def statement(**of):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"} | of]})


# docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_policies.html.
@pytest.mark.parametrize("document", ["{", '{"Version":"2012-10-17"}', statement(Effect="Perhaps")])
def test_a_policy_that_is_none(both, name, document):
    iam = both.client("iam")
    with both.refuses(lenient="MalformedPolicyDocument", strict="MalformedPolicyDocument"):
        iam.create_policy(PolicyName=name, PolicyDocument=document)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    with both.refuses(lenient="MalformedPolicyDocument", strict="MalformedPolicyDocument"):
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)


def test_who_is_said_where_it_belongs(both, name):
    iam = both.client("iam")
    with both.refuses(strict="MalformedPolicyDocument"):
        iam.create_policy(PolicyName=name, PolicyDocument=statement(Principal="*"))
    with both.refuses(strict="MalformedPolicyDocument"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=POLICY)


# docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: 6,144 characters, white space aside.
def test_a_policy_that_is_too_long(both, name):
    iam = both.client("iam")
    iam.create_policy(PolicyName=name, PolicyDocument=statement(Resource=["arn:aws:s3:::" + "b" * 50] * 80) + " " * 2000)
    with both.refuses(strict="LimitExceeded"):
        iam.create_policy(PolicyName=f"{name}-long", PolicyDocument=statement(Resource=["arn:aws:s3:::" + "b" * 50] * 100))


# --- S3 -------------------------------------------------------------------------------------------------------------------------


# API_DeleteBucket: "All objects (including all object versions and delete markers) in the bucket must be deleted".
def test_a_bucket_with_versions(both, name):
    s3 = both.client("s3")
    where = {"LocationConstraint": "us-west-2"}
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=name, Key="k", Body=b"1")["VersionId"]
    marker = s3.delete_object(Bucket=name, Key="k")["VersionId"]
    for one in (version, marker):
        with both.refuses(lenient="BucketNotEmpty", strict="BucketNotEmpty"):
            s3.delete_bucket(Bucket=name)
        s3.delete_object(Bucket=name, Key="k", VersionId=one)
    s3.delete_bucket(Bucket=name)
    # aws/aws-cli#2593: its name is not free yet.
    with both.refuses(strict="OperationAborted"):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    eventually(lambda: free(s3, name, where))
    with both.refuses(lenient="BucketAlreadyOwnedByYou", strict="BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)


def free(s3, name, where):
    try:
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    except s3.exceptions.BucketAlreadyOwnedByYou:
        return True
    except s3.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "OperationAborted"
        return False
    return True


# --- Auto Scaling ---------------------------------------------------------------------------------------------------------------


class Group:
    def __init__(self, both, own, debian):
        self.scaling, self.name = both.client("autoscaling"), own.name
        data = {"ImageId": debian, "InstanceType": "t3.small", "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": [own.group]}]}
        self.template = own.ec2.create_launch_template(LaunchTemplateName=own.name, LaunchTemplateData=data)["LaunchTemplate"]["LaunchTemplateId"]
        self.own = own

    def make(self, size=2):
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=self.name, MinSize=0, MaxSize=5, DesiredCapacity=size, VPCZoneIdentifier=self.own.subnets[0], LaunchTemplate={"LaunchTemplateId": self.template}
        )

    def seen(self):
        return next(iter(self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]), None)

    def states(self):
        return [instance["LifecycleState"] for instance in self.seen()["Instances"]]


@pytest.fixture
def group(both, own, debian):
    group = Group(both, own, debian)
    yield group
    if group.seen():
        group.scaling.delete_auto_scaling_group(AutoScalingGroupName=group.name, ForceDelete=True)
    eventually(lambda: group.seen() is None, pause=0.2)


# hashicorp/terraform#1105, kubernetes/test-infra#33190; ansible/ansible#8503 for what is refused without force.
def test_a_group_takes_its_time_and_keeps_its_name(both, group):
    group.make()
    assert (group.states() == []) == (both.profile == "strict")
    eventually(lambda: group.states() == ["InService"] * 2)
    with both.refuses(strict="ResourceInUse"):
        group.scaling.delete_auto_scaling_group(AutoScalingGroupName=group.name)
    if both.profile == "lenient":
        return
    group.scaling.delete_auto_scaling_group(AutoScalingGroupName=group.name, ForceDelete=True)
    assert group.seen()["Status"] == "Delete in progress"
    with both.refuses(strict="AlreadyExists"):
        group.make()
    # kubernetes/kops#1001.
    with both.refuses(strict="ValidationError"):
        group.scaling.update_auto_scaling_group(AutoScalingGroupName=group.name, MinSize=1)
    eventually(lambda: group.seen() is None, pause=0.1)
    group.make(0)


# docs.aws.amazon.com/AWSEC2/latest/UserGuide/delete-launch-template.html: a template in use goes, and the group can't launch with it.
def test_a_template_that_a_group_uses(both, group):
    group.make(0)
    group.own.ec2.delete_launch_template(LaunchTemplateId=group.template)
    with both.refuses(lenient="InvalidLaunchTemplateId.NotFound", strict="ValidationError"):
        group.scaling.update_auto_scaling_group(AutoScalingGroupName=group.name, LaunchTemplate={"LaunchTemplateId": group.template}, MinSize=0)


# hashicorp/terraform-provider-aws#4769.
def test_a_template_with_an_unknown_profile(both, group):
    data = {"IamInstanceProfile": {"Name": "nobody"}}
    group.own.ec2.create_launch_template_version(LaunchTemplateId=group.template, SourceVersion="1", LaunchTemplateData=data)
    group.own.ec2.modify_launch_template(LaunchTemplateId=group.template, DefaultVersion="2")
    with both.refuses(strict="ValidationError"):
        group.make(0)


# API_DeleteLaunchConfiguration: it "must not be attached to an Auto Scaling group".
def test_a_configuration_that_a_group_uses(both, own, debian):
    scaling = both.client("autoscaling")
    scaling.create_launch_configuration(LaunchConfigurationName=own.name, ImageId=debian, InstanceType="t3.small")
    scaling.create_auto_scaling_group(AutoScalingGroupName=own.name, MinSize=0, MaxSize=1, VPCZoneIdentifier=own.subnets[0], LaunchConfigurationName=own.name)
    with both.refuses(strict="ResourceInUse"):
        scaling.delete_launch_configuration(LaunchConfigurationName=own.name)
    scaling.delete_auto_scaling_group(AutoScalingGroupName=own.name, ForceDelete=True)


# --- load balancers -------------------------------------------------------------------------------------------------------------


# kubernetes/kubernetes#44695 for how long it takes; kubernetes-sigs/cluster-api-provider-aws#1846 for what its interfaces hold.
def test_a_balancer_takes_its_time_and_holds_its_subnet(both, own):
    elb = both.client("elbv2")
    made = elb.create_load_balancer(Name=own.name, Type="network", Scheme="internal", Subnets=own.subnets, SecurityGroups=[own.group])["LoadBalancers"][0]
    arn = made["LoadBalancerArn"]

    def state():
        return elb.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["State"]["Code"]

    assert state() == {"lenient": "active", "strict": "provisioning"}[both.profile]
    eventually(lambda: state() == "active")
    group = elb.create_target_group(Name=own.name, Protocol="TCP", Port=6443, VpcId=own.vpc)["TargetGroups"][0]["TargetGroupArn"]
    listener = elb.create_listener(LoadBalancerArn=arn, Protocol="TCP", Port=6443, DefaultActions=[{"Type": "forward", "TargetGroupArn": group}])["Listeners"][0]
    # API_DeleteTargetGroup; moto knows it.
    with both.refuses(lenient="ResourceInUse", strict="ResourceInUse"):
        elb.delete_target_group(TargetGroupArn=group)
    elb.delete_listener(ListenerArn=listener["ListenerArn"])
    elb.delete_target_group(TargetGroupArn=group)
    elb.delete_load_balancer(LoadBalancerArn=arn)
    # Its interfaces go later, and hold what they use until then.
    if both.profile == "strict":
        for refused in [lambda: own.ec2.delete_subnet(SubnetId=own.subnets[0]), lambda: own.ec2.delete_security_group(GroupId=own.group)]:
            with both.refuses(strict="DependencyViolation"):
                refused()
        (nic, *_) = own.ec2.describe_network_interfaces(Filters=[{"Name": "subnet-id", "Values": own.subnets[:1]}])["NetworkInterfaces"]
        with both.refuses(strict="InvalidParameterValue"):
            own.ec2.delete_network_interface(NetworkInterfaceId=nic["NetworkInterfaceId"])
    eventually(lambda: own.ec2.describe_network_interfaces(Filters=[{"Name": "subnet-id", "Values": own.subnets}])["NetworkInterfaces"] == [])


# API_CreateLoadBalancer: "If you attempt to create multiple load balancers with the same settings, each call succeeds."
def test_the_same_balancer_twice(both, own):
    elb = both.client("elbv2")
    same = {"Name": own.name, "Type": "network", "Scheme": "internal", "Subnets": own.subnets}
    arn = elb.create_load_balancer(**same)["LoadBalancers"][0]["LoadBalancerArn"]
    again = elb.create_load_balancer(**same)["LoadBalancers"][0]["LoadBalancerArn"]
    assert (again == arn) == (both.profile == "strict")
    with both.refuses(strict="DuplicateLoadBalancerName"):
        elb.create_load_balancer(**same | {"Subnets": own.subnets[:1]})
    for made in elb.describe_load_balancers()["LoadBalancers"]:
        elb.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


# docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_RequestServiceQuotaIncrease.html; there may be as many gateways as VPCs, by
# general/latest/gr/vpc-service.html.
def test_a_raised_quota_is_what_there_may_be(both):
    region = "eu-central-1"
    ec2, quotas = both.client("ec2", region), both.client("service-quotas", region)
    before = len(ec2.describe_vpcs()["Vpcs"])
    made = [ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"] for _ in range(5 - before)]
    with both.refuses(strict="VpcLimitExceeded"):
        made.append(ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
    quotas.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-F678F1CE", DesiredValue=6)
    if both.profile == "strict":
        with both.refuses(strict="ResourceAlreadyExistsException"):
            quotas.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-F678F1CE", DesiredValue=7)
    eventually(lambda: quotas.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["Value"] == 6)
    made.append(ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
    with both.refuses(strict="VpcLimitExceeded"):
        made.append(ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
    there = len(ec2.describe_internet_gateways()["InternetGateways"])
    gateways = [ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"] for _ in range(6 - there)]
    with both.refuses(strict="InternetGatewayLimitExceeded"):
        gateways.append(ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"])
    for id in gateways:
        ec2.delete_internet_gateway(InternetGatewayId=id)
    for id in made:
        ec2.delete_vpc(VpcId=id)
