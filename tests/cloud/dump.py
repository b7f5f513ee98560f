"""Prints every resource of an emulated AWS as JSON, sorted, so that two dumps are equal exactly when nothing has changed.

usage: dump.py ENDPOINT REGION...

It lists all, with calls of its own: what kup believes it made or removed plays no part. Left out are instances that have ended, which
AWS too shows for a while, and what AWS itself offers (its images, public parameters and managed policies).
"""

import concurrent.futures
import json
import sys

import boto3
import botocore.config
from botocore.exceptions import ClientError

# Every listing of EC2: call, key of its answer, arguments.
EC2 = [
    ("describe_addresses", "Addresses", {}),
    ("describe_customer_gateways", "CustomerGateways", {}),
    ("describe_dhcp_options", "DhcpOptions", {}),
    ("describe_egress_only_internet_gateways", "EgressOnlyInternetGateways", {}),
    ("describe_fleets", "Fleets", {}),
    ("describe_flow_logs", "FlowLogs", {}),
    ("describe_iam_instance_profile_associations", "IamInstanceProfileAssociations", {}),
    ("describe_images", "Images", {"Owners": ["self"]}),
    ("describe_instances", "Reservations", {"Filters": [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped", "shutting-down"]}]}),
    ("describe_internet_gateways", "InternetGateways", {}),
    ("describe_key_pairs", "KeyPairs", {}),
    ("describe_launch_templates", "LaunchTemplates", {}),
    ("describe_managed_prefix_lists", "PrefixLists", {}),
    ("describe_nat_gateways", "NatGateways", {}),
    ("describe_network_acls", "NetworkAcls", {}),
    ("describe_network_interfaces", "NetworkInterfaces", {}),
    ("describe_route_tables", "RouteTables", {}),
    ("describe_security_group_rules", "SecurityGroupRules", {}),
    ("describe_security_groups", "SecurityGroups", {}),
    ("describe_spot_instance_requests", "SpotInstanceRequests", {}),
    ("describe_subnets", "Subnets", {}),
    ("describe_transit_gateways", "TransitGateways", {}),
    ("describe_volumes", "Volumes", {}),
    ("describe_vpc_endpoints", "VpcEndpoints", {}),
    ("describe_vpc_peering_connections", "VpcPeeringConnections", {}),
    ("describe_vpcs", "Vpcs", {}),
]

AUTOSCALING = [
    ("describe_auto_scaling_groups", "AutoScalingGroups"),
    ("describe_launch_configurations", "LaunchConfigurations"),
    ("describe_policies", "ScalingPolicies"),
    ("describe_scheduled_actions", "ScheduledUpdateGroupActions"),
    ("describe_tags", "Tags"),
]

# What a bucket may have, and the error that says that it hasn't.
BUCKET = [
    ("get_bucket_encryption", "ServerSideEncryptionConfiguration"),
    ("get_bucket_lifecycle_configuration", "Rules"),
    ("get_bucket_ownership_controls", "OwnershipControls"),
    ("get_bucket_policy", "Policy"),
    ("get_bucket_tagging", "TagSet"),
    ("get_bucket_versioning", "Status"),
    ("get_public_access_block", "PublicAccessBlockConfiguration"),
]
ABSENT = {
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
    "OwnershipControlsNotFoundError",
    "ServerSideEncryptionConfigurationNotFoundError",
}


def listed(client, call, key, **arguments):
    if client.can_paginate(call):
        return [item for page in client.get_paginator(call).paginate(**arguments) for item in page.get(key) or []]
    return getattr(client, call)(**arguments).get(key) or []


def ec2(client, account):
    found = {key: listed(client, call, key, **arguments) for call, key, arguments in EC2}
    # Both emulators take "self" for anybody, and come with a thousand that belong to their images.
    found["Snapshots"] = listed(client, "describe_snapshots", "Snapshots", Filters=[{"Name": "owner-id", "Values": [account]}])
    found["Instances"] = [instance for reservation in found.pop("Reservations") for instance in reservation["Instances"]]
    for instance in found["Instances"]:
        data = client.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
        instance["UserData"] = (data.get("UserData") or {}).get("Value")
    for vpc in found["Vpcs"]:
        for attribute in ["enableDnsSupport", "enableDnsHostnames"]:
            answer = client.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=attribute)
            vpc[attribute] = answer[attribute[0].upper() + attribute[1:]]["Value"]
    for template in found["LaunchTemplates"]:
        template["Versions"] = listed(client, "describe_launch_template_versions", "LaunchTemplateVersions", LaunchTemplateId=template["LaunchTemplateId"])
    # One that was deleted is no resource; moto shows it for ever.
    found["VpcEndpoints"] = [endpoint for endpoint in found["VpcEndpoints"] if endpoint["State"].lower() != "deleted"]
    found["NatGateways"] = [gateway for gateway in found["NatGateways"] if gateway["State"] != "deleted"]
    # A network's default list goes with it; both emulators forget to remove it.
    networks = {vpc["VpcId"] for vpc in found["Vpcs"]}
    found["NetworkAcls"] = [acl for acl in found["NetworkAcls"] if acl["VpcId"] in networks]
    # moto keeps the interfaces that it made with an instance when that has ended, where AWS removes them.
    alive = {instance["InstanceId"] for instance in found["Instances"]}
    found["NetworkInterfaces"] = [
        nic
        for nic in found["NetworkInterfaces"]
        if nic.get("Attachment", {}).get("InstanceId", None) in alive | {None} or nic.get("Description") != "Primary network interface"
    ]
    # It counts interfaces, also those above; the others are listed by themselves.
    for subnet in found["Subnets"]:
        del subnet["AvailableIpAddressCount"]
    found["PrefixLists"] = [prefixes for prefixes in found["PrefixLists"] if prefixes["OwnerId"] != "AWS"]
    return found


def autoscaling(client):
    found = {key: listed(client, call, key) for call, key in AUTOSCALING}
    found["LifecycleHooks"] = [
        hook
        for group in found["AutoScalingGroups"]
        for hook in client.describe_lifecycle_hooks(AutoScalingGroupName=group["AutoScalingGroupName"])["LifecycleHooks"]
    ]
    return found


def elbv2(client):
    found = {
        "LoadBalancers": listed(client, "describe_load_balancers", "LoadBalancers"),
        "TargetGroups": listed(client, "describe_target_groups", "TargetGroups"),
        "Listeners": [],
    }
    for balancer in found["LoadBalancers"]:
        arn = balancer["LoadBalancerArn"]
        balancer["Attributes"] = client.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
        found["Listeners"] += listed(client, "describe_listeners", "Listeners", LoadBalancerArn=arn)
    for group in found["TargetGroups"]:
        arn = group["TargetGroupArn"]
        group["Attributes"] = client.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        group["Health"] = client.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    for resource in found["LoadBalancers"] + found["TargetGroups"] + found["Listeners"]:
        arn = resource.get("ListenerArn") or resource.get("TargetGroupArn") or resource.get("LoadBalancerArn")
        resource["Tags"] = client.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"]
    return found


def ssm(client):
    found = [p for p in listed(client, "describe_parameters", "Parameters") if not p["Name"].startswith("/aws/")]
    for parameter in found:
        parameter["Value"] = client.get_parameter(Name=parameter["Name"])["Parameter"]["Value"]
        parameter["Tags"] = client.list_tags_for_resource(ResourceType="Parameter", ResourceId=parameter["Name"])["TagList"]
    return {"Parameters": found}


def iam(client):
    found = {
        "Users": listed(client, "list_users", "Users"),
        "Groups": listed(client, "list_groups", "Groups"),
        "Roles": listed(client, "list_roles", "Roles"),
        "Policies": listed(client, "list_policies", "Policies", Scope="Local"),
        "InstanceProfiles": listed(client, "list_instance_profiles", "InstanceProfiles"),
        "OpenIDConnectProviders": listed(client, "list_open_id_connect_providers", "OpenIDConnectProviderList"),
    }
    for kind in ["user", "group", "role"]:
        word = kind.capitalize()
        for one in found[word + "s"]:
            who = {word + "Name": one[word + "Name"]}
            one["AttachedPolicies"] = listed(client, f"list_attached_{kind}_policies", "AttachedPolicies", **who)
            one["InlinePolicies"] = {
                name: getattr(client, f"get_{kind}_policy")(PolicyName=name, **who)["PolicyDocument"]
                for name in listed(client, f"list_{kind}_policies", "PolicyNames", **who)
            }
    for user in found["Users"]:
        who = {"UserName": user["UserName"]}
        user["AccessKeys"] = listed(client, "list_access_keys", "AccessKeyMetadata", **who)
        user["Groups"] = listed(client, "list_groups_for_user", "Groups", **who)
        user["Tags"] = listed(client, "list_user_tags", "Tags", **who)
    for role in found["Roles"]:
        # When it was last used changes without anybody changing it.
        role.pop("RoleLastUsed", None)
        role["Tags"] = listed(client, "list_role_tags", "Tags", RoleName=role["RoleName"])
    for policy in found["Policies"]:
        arn = policy["Arn"]
        policy["Tags"] = listed(client, "list_policy_tags", "Tags", PolicyArn=arn)
        policy["Versions"] = [
            client.get_policy_version(PolicyArn=arn, VersionId=version["VersionId"])["PolicyVersion"]
            for version in listed(client, "list_policy_versions", "Versions", PolicyArn=arn)
        ]
    for profile in found["InstanceProfiles"]:
        profile["Tags"] = client.get_instance_profile(InstanceProfileName=profile["InstanceProfileName"])["InstanceProfile"].get("Tags", [])
        profile["Roles"] = [role["Arn"] for role in profile["Roles"]]
    return found


def s3(client):
    found = listed(client, "list_buckets", "Buckets")
    for bucket in found:
        name = {"Bucket": bucket["Name"]}
        for call, key in BUCKET:
            try:
                bucket[key] = getattr(client, call)(**name).get(key)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ABSENT:
                    raise
        bucket["Versions"] = listed(client, "list_object_versions", "Versions", **name)
        bucket["DeleteMarkers"] = listed(client, "list_object_versions", "DeleteMarkers", **name)
        bucket["Uploads"] = listed(client, "list_multipart_uploads", "Uploads", **name)
    return {"Buckets": found}


REGIONAL = {"autoscaling": autoscaling, "elbv2": elbv2, "ssm": ssm}
GLOBAL = {"iam": iam, "s3": s3}


def ordered(value):
    """Lists in an order that doesn't depend on who was asked: none of AWS's listings promises one."""
    if isinstance(value, dict):
        return {key: ordered(v) for key, v in value.items()}
    if isinstance(value, list):
        return sorted((ordered(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True, default=str))
    return value


def main():
    endpoint, *regions = sys.argv[1:]

    # One session reads each service's description once; it must not be used by several threads, the clients may.
    session = boto3.session.Session()
    config = botocore.config.Config(s3={"addressing_style": "path"}, read_timeout=120)

    def client(service, region):
        return session.client(service, region_name=region, endpoint_url=endpoint, config=config)

    jobs = {(region, service): (function, client(service, region)) for region in regions for service, function in REGIONAL.items()}
    account = client("sts", regions[0]).get_caller_identity()["Account"]
    jobs |= {(region, "ec2"): (ec2, client("ec2", region), account) for region in regions}
    jobs |= {("global", service): (function, client(service, regions[0])) for service, function in GLOBAL.items()}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = {key: pool.submit(*job) for key, job in jobs.items()}
        result = {}
        for (region, service), job in running.items():
            try:
                result.setdefault(region, {})[service] = ordered(job.result())
            except Exception as error:
                sys.exit(f"error: could not list {service} in {region}: {error}")
    json.dump(result, sys.stdout, indent=1, sort_keys=True, default=str)
    print()


main()
