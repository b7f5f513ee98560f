"""The other services that kup uses."""

import json

import pytest
from botocore.exceptions import ClientError
from conftest import eventually, tagged, tags


def test_identity(aws):
    identity = aws.client("sts").get_caller_identity()
    assert identity["Account"] == "123456789012" and ":123456789012:" in identity["Arn"] and identity["UserId"]


# --- load balancers -------------------------------------------------------------------------------------------------------------


@pytest.mark.lacks(moto="calls a network load balancer an app/ in its ARN")
def test_a_network_load_balancer(aws, network, name):
    elb = aws.client("elbv2")
    balancer = elb.create_load_balancer(
        Name=name, Type="network", Scheme="internet-facing", Subnets=network.subnets, SecurityGroups=[network.group], Tags=tags(Name=name)
    )["LoadBalancers"][0]
    arn = balancer["LoadBalancerArn"]
    assert f":loadbalancer/net/{name}/" in arn
    assert balancer["Type"] == "network" and balancer["SecurityGroups"] == [network.group] and balancer["DNSName"].startswith(f"{name}-") and balancer["DNSName"].endswith(".elb.us-west-2.amazonaws.com")
    assert [z["SubnetId"] for z in balancer["AvailabilityZones"]] == network.subnets
    target = elb.create_target_group(
        Name=name, Protocol="TCP", Port=6443, VpcId=network.vpc, TargetType="instance", HealthCheckProtocol="HTTPS", HealthCheckPath="/readyz", HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=3, Tags=tags(Name=name)
    )["TargetGroups"][0]
    assert target["HealthCheckProtocol"] == "HTTPS" and target["HealthCheckPath"] == "/readyz" and target["HealthCheckIntervalSeconds"] == 5
    elb.modify_target_group_attributes(TargetGroupArn=target["TargetGroupArn"], Attributes=[{"Key": "preserve_client_ip.enabled", "Value": "false"}])
    attributes = elb.describe_target_group_attributes(TargetGroupArn=target["TargetGroupArn"])["Attributes"]
    assert {"Key": "preserve_client_ip.enabled", "Value": "false"} in attributes
    elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[{"Key": "load_balancing.cross_zone.enabled", "Value": "true"}])
    listener = elb.create_listener(
        LoadBalancerArn=arn, Protocol="TCP", Port=6443, DefaultActions=[{"Type": "forward", "TargetGroupArn": target["TargetGroupArn"]}], Tags=tags(Name=name)
    )["Listeners"][0]
    assert listener["Protocol"] == "TCP" and listener["Port"] == 6443 and f":listener/net/{name}/" in listener["ListenerArn"]

    ec2 = aws.client("ec2")
    instance = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=network.subnets[0])["Instances"][0]["InstanceId"]
    elb.register_targets(TargetGroupArn=target["TargetGroupArn"], Targets=[{"Id": instance}])
    (health,) = elb.describe_target_health(TargetGroupArn=target["TargetGroupArn"])["TargetHealthDescriptions"]
    assert health["Target"] == {"Id": instance, "Port": 6443} and health["TargetHealth"]["State"] in ("initial", "healthy")

    described = elb.describe_tags(ResourceArns=[arn, target["TargetGroupArn"], listener["ListenerArn"]])["TagDescriptions"]
    assert [tagged(d) for d in described] == [{"Name": name}] * 3
    assert [b["LoadBalancerArn"] for b in elb.describe_load_balancers(Names=[name])["LoadBalancers"]] == [arn]
    assert [t["LoadBalancerArns"] for t in elb.describe_target_groups(Names=[name])["TargetGroups"]] == [[arn]]
    assert [x["ListenerArn"] for x in elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]] == [listener["ListenerArn"]]

    with pytest.raises(ClientError, match="ResourceInUse"):
        elb.delete_target_group(TargetGroupArn=target["TargetGroupArn"])
    elb.delete_listener(ListenerArn=listener["ListenerArn"])
    elb.delete_load_balancer(LoadBalancerArn=arn)
    elb.delete_target_group(TargetGroupArn=target["TargetGroupArn"])
    with pytest.raises(ClientError, match="LoadBalancerNotFound"):
        elb.describe_load_balancers(Names=[name])
    with pytest.raises(ClientError, match="TargetGroupNotFound"):
        elb.describe_target_groups(Names=[name])


# --- quotas ---------------------------------------------------------------------------------------------------------------------

# What applies to this account, and what a new one has.
QUOTAS = {
    ("ec2", "L-1216C47A"): (64.0, 5.0),
    ("ec2", "L-34B43A08"): (64.0, 5.0),
    ("vpc", "L-F678F1CE"): (5.0, 5.0),
    ("ec2", "L-0263D0A3"): (5.0, 5.0),
}


@pytest.mark.lacks(moto="knows none of EC2's quotas")
def test_quotas(aws):
    client = aws.client("service-quotas")
    for (service, code), values in QUOTAS.items():
        calls = client.get_service_quota, client.get_aws_default_service_quota
        for call, value in zip(calls, values, strict=True):
            quota = call(ServiceCode=service, QuotaCode=code)["Quota"]
            assert quota["Value"] == value and quota["QuotaCode"] == code and quota["ServiceCode"] == service and quota["QuotaName"]
    for service in ["ec2", "vpc"]:
        for which, call in enumerate([client.list_service_quotas, client.list_aws_default_service_quotas]):
            listed = {q["QuotaCode"]: q["Value"] for q in call(ServiceCode=service)["Quotas"]}
            assert {c: v[which] for (s, c), v in QUOTAS.items() if s == service}.items() <= listed.items()
    with pytest.raises(client.exceptions.NoSuchResourceException):
        client.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")
    with pytest.raises(client.exceptions.NoSuchResourceException):
        client.list_service_quotas(ServiceCode="nothing")


@pytest.mark.lacks(moto="knows none of EC2's quotas")
def test_quotas_come_in_pages(aws):
    client = aws.client("service-quotas")
    pages = list(client.get_paginator("list_service_quotas").paginate(ServiceCode="ec2", PaginationConfig={"PageSize": 1}))
    assert len(pages) > 1 and all(len(p["Quotas"]) == 1 for p in pages)


@pytest.mark.lacks(moto="knows none of EC2's quotas")
def test_a_quota_is_raised(aws):
    # A region of its own: what is raised stays so.
    client, elsewhere = aws.client("service-quotas", "eu-west-1"), aws.client("service-quotas")
    asked = client.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-F678F1CE", DesiredValue=12)["RequestedQuota"]
    assert asked["Status"] == "PENDING" and asked["DesiredValue"] == 12
    eventually(lambda: client.get_requested_service_quota_change(RequestId=asked["Id"])["RequestedQuota"]["Status"] == "APPROVED")
    # Gateways are as many as VPCs.
    for code in ["L-F678F1CE", "L-A4707A72"]:
        assert client.get_service_quota(ServiceCode="vpc", QuotaCode=code)["Quota"]["Value"] == 12
        assert client.get_aws_default_service_quota(ServiceCode="vpc", QuotaCode=code)["Quota"]["Value"] == 5
        assert elsewhere.get_service_quota(ServiceCode="vpc", QuotaCode=code)["Quota"]["Value"] == 5
    with pytest.raises(client.exceptions.IllegalArgumentException):
        client.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-F678F1CE", DesiredValue=12)


# --- IAM ------------------------------------------------------------------------------------------------------------------------


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | more


def deny(action, resource="*"):
    return {"Effect": "Deny", "Action": action, "Resource": resource}


PATH = "/kup/us-west-2/test/"


@pytest.fixture
def user(aws, name):
    return aws.client("iam").create_user(UserName=name, Path=PATH, Tags=tags(Name=name))["User"]


def test_users_policies_and_keys(aws, user, name):
    iam = aws.client("iam")
    assert user["Path"] == PATH and tagged(iam.get_user(UserName=name)["User"]) == {"Name": name}
    document = policy(allow("ec2:Describe*"))
    arn = iam.create_policy(PolicyName=name, Path=PATH, PolicyDocument=document, Tags=tags(Name=name))["Policy"]["Arn"]
    assert arn == f"arn:aws:iam::123456789012:policy{PATH}{name}"
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    assert iam.list_attached_user_policies(UserName=name)["AttachedPolicies"] == [{"PolicyName": name, "PolicyArn": arn}]
    second = iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy(allow("s3:*")), SetAsDefault=True)["PolicyVersion"]["VersionId"]
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == second == "v2"
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] == json.loads(document)
    assert tagged(iam.get_policy(PolicyArn=arn)["Policy"]) == {"Name": name}
    key = iam.create_access_key(UserName=name)["AccessKey"]
    assert key["SecretAccessKey"] and [k["AccessKeyId"] for k in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]] == [key["AccessKeyId"]]
    with pytest.raises(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=name)

    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy(PolicyArn=arn)
    iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=name)
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_user(UserName=name)


def test_roles_and_profiles(aws, profile, name):
    iam = aws.client("iam")
    role = iam.get_role(RoleName=name)["Role"]
    assert role["Path"] == PATH and role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert name in [r["RoleName"] for r in iam.list_roles(PathPrefix=PATH)["Roles"]]
    iam.tag_role(RoleName=name, Tags=tags(Name=name))
    assert tagged(iam.get_role(RoleName=name)["Role"]) == {"Name": name}
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=policy(allow("s3:GetObject")))
    assert iam.get_role_policy(RoleName=name, PolicyName="inline")["PolicyDocument"]["Statement"] == [allow("s3:GetObject")]
    found = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    assert found["Arn"] == profile and [r["RoleName"] for r in found["Roles"]] == [name]
    assert name in [p["InstanceProfileName"] for p in iam.list_instance_profiles(PathPrefix=PATH)["InstanceProfiles"]]
    with pytest.raises(ClientError, match="LimitExceeded"):
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    with pytest.raises(iam.exceptions.DeleteConflictException):
        iam.delete_role(RoleName=name)
    iam.delete_role_policy(RoleName=name, PolicyName="inline")
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    iam.delete_instance_profile(InstanceProfileName=name)
    iam.delete_role(RoleName=name)
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName=name)


def simulated(iam, arn, actions, resources=None, **more):
    request = {"PolicySourceArn": arn, "ActionNames": actions} | ({"ResourceArns": resources} if resources else {}) | more
    found = [r for p in iam.get_paginator("simulate_principal_policy").paginate(**request) for r in p["EvaluationResults"]]
    return {(r["EvalActionName"], r["EvalResourceName"]): r["EvalDecision"] for r in found}


@pytest.mark.lacks(moto="has no SimulatePrincipalPolicy")
def test_permissions_are_simulated(aws, user, name):
    iam = aws.client("iam")
    iam.put_user_policy(
        UserName=name, PolicyName="p", PolicyDocument=policy(allow(["ec2:Describe*", "ec2:RunInstances"]), deny("ec2:DescribeVpcs"), allow("s3:*", "arn:aws:s3:::kup-*"))
    )
    assert simulated(iam, user["Arn"], ["ec2:DescribeSubnets", "ec2:runinstances", "ec2:DescribeVpcs", "ec2:DeleteVpc"]) == {
        ("ec2:DescribeSubnets", "*"): "allowed",
        ("ec2:runinstances", "*"): "allowed",
        ("ec2:DescribeVpcs", "*"): "explicitDeny",
        ("ec2:DeleteVpc", "*"): "implicitDeny",
    }
    assert simulated(iam, user["Arn"], ["s3:CreateBucket"], ["arn:aws:s3:::kup-a", "arn:aws:s3:::other"]) == {
        ("s3:CreateBucket", "arn:aws:s3:::kup-a"): "allowed",
        ("s3:CreateBucket", "arn:aws:s3:::other"): "implicitDeny",
    }


@pytest.mark.lacks(moto="has no SimulatePrincipalPolicy")
def test_permissions_with_conditions_are_simulated(aws, user, name):
    iam = aws.client("iam")
    iam.put_user_policy(
        UserName=name,
        PolicyName="p",
        PolicyDocument=policy(allow("iam:PassRole", "arn:aws:iam::123456789012:role/kup/*", Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}})),
    )
    role = "arn:aws:iam::123456789012:role/kup/us-west-2/x"
    context = [{"ContextKeyName": "iam:PassedToService", "ContextKeyValues": ["ec2.amazonaws.com"], "ContextKeyType": "string"}]
    assert simulated(iam, user["Arn"], ["iam:PassRole"], [role], ContextEntries=context) == {("iam:PassRole", role): "allowed"}
    assert simulated(iam, user["Arn"], ["iam:PassRole"], [role]) == {("iam:PassRole", role): "implicitDeny"}


@pytest.mark.lacks(moto="has no SimulatePrincipalPolicy")
def test_permissions_of_roles_groups_and_nobody_are_simulated(aws, user, profile, name):
    iam = aws.client("iam")
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(allow("s3:GetObject")))
    role = iam.get_role(RoleName=name)["Role"]["Arn"]
    assert simulated(iam, role, ["s3:GetObject", "s3:PutObject"]) == {("s3:GetObject", "*"): "allowed", ("s3:PutObject", "*"): "implicitDeny"}
    # Whoever may assume a role is not part of what it may do.
    assert simulated(iam, role, ["sts:AssumeRole"]) == {("sts:AssumeRole", "*"): "implicitDeny"}
    iam.create_group(GroupName=name)
    iam.add_user_to_group(GroupName=name, UserName=name)
    iam.attach_group_policy(GroupName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonEC2FullAccess")
    assert simulated(iam, user["Arn"], ["ec2:CreateVpc"]) == {("ec2:CreateVpc", "*"): "allowed"}
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        simulated(iam, user["Arn"] + "-nobody", ["ec2:CreateVpc"])
    # AWS refuses to simulate the account's root, which is who calls when no user does.
    with pytest.raises(ClientError, match="InvalidInput"):
        simulated(iam, "arn:aws:iam::123456789012:root", ["ec2:CreateVpc"])


# --- S3 -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(aws, name):
    aws.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    return name


def status(error):
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_conditional_writes(aws, bucket):
    s3 = aws.client("s3")
    first = s3.put_object(Bucket=bucket, Key="lock", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError, match="PreconditionFailed") as refused:
        s3.put_object(Bucket=bucket, Key="lock", Body=b"2", IfNoneMatch="*")
    assert status(refused) == 412
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"1"
    second = s3.put_object(Bucket=bucket, Key="lock", Body=b"2", IfMatch=first)["ETag"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="lock", Body=b"3", IfMatch=first)
    assert s3.head_object(Bucket=bucket, Key="lock")["ETag"] == second
    s3.delete_object(Bucket=bucket, Key="lock")
    s3.put_object(Bucket=bucket, Key="lock", Body=b"4", IfNoneMatch="*")


def test_conditional_deletes(aws, bucket):
    s3 = aws.client("s3")
    tag = s3.put_object(Bucket=bucket, Key="lock", Body=b"1")["ETag"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.delete_object(Bucket=bucket, Key="lock", IfMatch='"0123456789abcdef0123456789abcdef"')
    s3.delete_object(Bucket=bucket, Key="lock", IfMatch=tag)


def test_versions(aws, bucket):
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    versions = [s3.put_object(Bucket=bucket, Key="k", Body=str(i).encode())["VersionId"] for i in range(3)]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    listed = s3.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in listed["Versions"]] == versions[::-1]
    assert [m["VersionId"] for m in listed["DeleteMarkers"]] == [marker["VersionId"]]
    pages = list(s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}))
    assert [len(p.get("Versions", [])) + len(p.get("DeleteMarkers", [])) for p in pages] == [2, 2]
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": v} for v in [*versions, marker["VersionId"]]]})
    assert len(gone["Deleted"]) == 4
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as missing:
        s3.head_bucket(Bucket=bucket)
    assert status(missing) == 404


def test_a_bucket_keeps_what_it_was_given(aws, bucket):
    s3 = aws.client("s3")
    document = policy({"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}})
    with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=document)
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(document)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags(Name=bucket)})
    assert tagged(s3.get_bucket_tagging(Bucket=bucket)) == {"Name": bucket}
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == block
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"] == rule["ApplyServerSideEncryptionByDefault"]
    rules = [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 30}}]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "us-west-2"


def test_a_bucket_that_is_there(aws, bucket):
    s3 = aws.client("s3")
    with pytest.raises(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})


@pytest.mark.lacks(moto="pays no heed to the expected owner of a bucket")
def test_the_expected_owner(aws, bucket):
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"", ExpectedBucketOwner="123456789012")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", ExpectedBucketOwner="999999999999")


# --- SSM ------------------------------------------------------------------------------------------------------------------------


def test_own_parameters(aws, name):
    ssm = aws.client("ssm")
    ssm.put_parameter(Name=f"/{name}/a", Value="1", Type="String", Tags=tags(Name=name))
    assert ssm.get_parameter(Name=f"/{name}/a")["Parameter"]["Value"] == "1"
    assert [p["Name"] for p in ssm.get_parameters_by_path(Path=f"/{name}")["Parameters"]] == [f"/{name}/a"]
    ssm.delete_parameter(Name=f"/{name}/a")
    assert ssm.get_parameters_by_path(Path=f"/{name}")["Parameters"] == []
