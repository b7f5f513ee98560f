"""Auto Scaling groups: they make instances in EC2, as their template says."""

from collections import Counter

import pytest
from conftest import tagged
from test_ec2 import made_from_template, template  # noqa: F401


def instances(ec2, group):
    found = ec2.describe_instances(
        Filters=[{"Name": "tag:aws:autoscaling:groupName", "Values": [group]}, {"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )
    return [i for r in found["Reservations"] for i in r["Instances"]]


@pytest.fixture
def group(aws, network, template, name):  # noqa: F811
    aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=6,
        DesiredCapacity=4,
        VPCZoneIdentifier=",".join(network.subnets),
        LaunchTemplate={"LaunchTemplateId": template, "Version": "$Default"},
        Tags=[{"Key": "Role", "Value": "minion", "PropagateAtLaunch": True}, {"Key": "Own", "Value": "yes", "PropagateAtLaunch": False}],
    )
    return name


@pytest.mark.lacks(moto="keeps interface groups, profile, key and metadata options from instances of a group")
def test_instances_are_what_the_template_says(aws, group, network, image, profile, name):
    ec2 = aws.client("ec2")
    made = instances(ec2, group)
    assert len(made) == 4
    for instance in made:
        made_from_template(ec2, instance, network, image, profile, name)
        assert tagged(instance) == {"Role": "minion", "Name": name}


@pytest.mark.lacks(moto="puts all of them into the first subnet")
def test_instances_are_spread_over_the_subnets(aws, group, network):
    assert sorted(i["SubnetId"] for i in instances(aws.client("ec2"), group)) == sorted(network.subnets * 2)
    (found,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    assert sorted(i["AvailabilityZone"] for i in found["Instances"]) == ["us-west-2a", "us-west-2a", "us-west-2b", "us-west-2b"]


# docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-benefits.html: it is rebalanced when a zone is taken from it.
@pytest.mark.lacks(moto="leaves them where they are")
def test_instances_leave_a_zone_with_their_group(aws, group, network):
    scaling, ec2 = aws.client("autoscaling"), aws.client("ec2")
    before = {i["InstanceId"]: i["SubnetId"] for i in instances(ec2, group)}
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, VPCZoneIdentifier=network.subnets[0])
    after = {i["InstanceId"]: i["SubnetId"] for i in instances(ec2, group)}
    assert sorted(after.values()) == [network.subnets[0]] * 4
    assert {id for id, subnet in before.items() if subnet == network.subnets[0]} < set(after)
    (found,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    assert {i["InstanceId"] for i in found["Instances"]} == set(after)


def test_a_group_keeps_what_it_was_given(aws, group, network, template):  # noqa: F811
    (found,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    assert (found["MinSize"], found["MaxSize"], found["DesiredCapacity"]) == (0, 6, 4)
    assert found["LaunchTemplate"]["LaunchTemplateId"] == template and found["LaunchTemplate"]["Version"] == "$Default"
    assert found["VPCZoneIdentifier"].split(",") == network.subnets
    assert {(t["Key"], t["Value"], t["PropagateAtLaunch"]) for t in found["Tags"]} == {("Role", "minion", True), ("Own", "yes", False)}
    assert [i["LifecycleState"] for i in found["Instances"]] == ["InService"] * 4
    assert all(i["LaunchTemplate"]["LaunchTemplateId"] == template for i in found["Instances"])


def test_groups_by_their_tags(aws, group):
    scaling = aws.client("autoscaling")
    for filters, there in [
        ([{"Name": "tag:Role", "Values": ["minion"]}], True),
        ([{"Name": "tag:Role", "Values": ["master"]}], False),
        ([{"Name": "tag-key", "Values": ["Own"]}], True),
    ]:
        found = scaling.describe_auto_scaling_groups(Filters=filters)["AutoScalingGroups"]
        assert (group in [g["AutoScalingGroupName"] for g in found]) == there, filters


def test_a_group_by_tags_of_groups(aws, group):
    found = aws.client("autoscaling").describe_tags(Filters=[{"Name": "key", "Values": ["Role"]}])["Tags"]
    assert group in [t["ResourceId"] for t in found]


def test_a_lost_instance_is_replaced(aws, group):
    ec2 = aws.client("ec2")
    lost = instances(ec2, group)[0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[lost])
    left = [i["InstanceId"] for i in instances(ec2, group)]
    assert len(left) == 4 and lost not in left


def test_the_size_is_changed(aws, group):
    ec2, scaling = aws.client("ec2"), aws.client("autoscaling")
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, DesiredCapacity=6)
    assert len(instances(ec2, group)) == 6
    chosen = instances(ec2, group)[3]["InstanceId"]
    scaling.terminate_instance_in_auto_scaling_group(InstanceId=chosen, ShouldDecrementDesiredCapacity=True)
    left = [i["InstanceId"] for i in instances(ec2, group)]
    assert len(left) == 5 and chosen not in left
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, MinSize=0, MaxSize=0, DesiredCapacity=0)
    assert instances(ec2, group) == []
    scaling.delete_auto_scaling_group(AutoScalingGroupName=group)
    assert scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"] == []


@pytest.mark.lacks(moto="can't launch from a second version that has user-data: 500")
def test_the_default_version_is_followed(aws, group, template):  # noqa: F811
    ec2, scaling = aws.client("ec2"), aws.client("autoscaling")
    data = ec2.describe_launch_template_versions(LaunchTemplateId=template)["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=data | {"InstanceType": "m5.large"})
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, DesiredCapacity=5)
    assert "m5.large" not in {i["InstanceType"] for i in instances(ec2, group)}
    ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    scaling.update_auto_scaling_group(AutoScalingGroupName=group, DesiredCapacity=6)
    assert sorted(i["InstanceType"] for i in instances(ec2, group)) == ["m5.large"] + ["t3.small"] * 5
    # Which instances are of an older version can be seen.
    (found,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    assert sorted((i["InstanceType"], i["LaunchTemplate"]["Version"]) for i in found["Instances"]) == [("m5.large", "2")] + [("t3.small", "1")] * 5


@pytest.mark.lacks(moto="rounds both shares of a mixed group down, and forgets its policy at any update")
def test_a_mixed_group(aws, network, template, name):  # noqa: F811
    scaling = aws.client("autoscaling")
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "$Default"},
            "Overrides": [{"InstanceType": "t3.small"}, {"InstanceType": "m5.large"}],
        },
        "InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": 50, "OnDemandBaseCapacity": 1, "SpotAllocationStrategy": "price-capacity-optimized"},
    }
    scaling.create_auto_scaling_group(AutoScalingGroupName=name, MinSize=0, MaxSize=2, DesiredCapacity=2, VPCZoneIdentifier=network.subnets[0], MixedInstancesPolicy=policy)
    (found,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    kept = found["MixedInstancesPolicy"]
    assert kept["LaunchTemplate"]["Overrides"] == policy["LaunchTemplate"]["Overrides"]
    for key, value in policy["InstancesDistribution"].items():
        assert kept["InstancesDistribution"][key] == value
    assert [i.get("InstanceLifecycle") for i in instances(aws.client("ec2"), name)] == [None, None]
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=5, DesiredCapacity=5)
    assert Counter(i.get("InstanceLifecycle") for i in instances(aws.client("ec2"), name)) == {None: 3, "spot": 2}
    (found,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    assert found["MixedInstancesPolicy"]["InstancesDistribution"]["OnDemandBaseCapacity"] == 1


@pytest.mark.lacks(moto="makes the group anew, and leaves the instances of the old one")
def test_a_name_that_is_taken(aws, group, network, template):  # noqa: F811
    scaling = aws.client("autoscaling")
    with pytest.raises(scaling.exceptions.AlreadyExistsFault):
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=group, MinSize=0, MaxSize=1, VPCZoneIdentifier=network.subnets[0], LaunchTemplate={"LaunchTemplateId": template}
        )
