"""What RunInstances, launch templates and volumes are refused for."""

import base64
import re

from kup_cloud.calls import refuse
from kup_cloud.strict import limits, rule

# As much user-data as there may be, before it is encoded.
USER_DATA = 16384


def of_template(ec2, given) -> dict:
    """What a launch template says, as RunInstances takes it."""
    if not given:
        return {}
    by_id, by_name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    templates = list(ec2.launch_templates.values())
    template = next((t for t in templates if t.id == by_id or (by_name and t.name == by_name)), None)
    if template is None:
        if by_id:
            refuse("InvalidLaunchTemplateId.NotFound", f"The specified launch template, with template ID {by_id}, does not exist.")
        refuse("InvalidLaunchTemplateName.NotFoundException", f"The specified launch template, with template name {by_name}, does not exist.")
    return template.get_version(given.get("Version") or "$Default").data


def check_user_data(text, code: str):
    if not text:
        return
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        refuse(code, "Invalid BASE64 encoding of user data.")
    if len(raw) > USER_DATA:
        refuse(code, f"User data is limited to {USER_DATA} bytes")


def check_image(ec2, id: str):
    if not re.fullmatch(r"ami-([0-9a-f]{8}|[0-9a-f]{17})", id):
        refuse("InvalidAMIID.Malformed", f'Invalid id: "{id}" (expecting "ami-...")')
    if id not in ec2.amis:
        refuse("InvalidAMIID.NotFound", f"The image id '[{id}]' does not exist")


def check_type(ec2, type: str, image: str):
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    known = INSTANCE_TYPES.get(type)
    if known is None:
        refuse("InvalidParameterValue", f"Invalid value '{type}' for InstanceType.")
    kinds = known["ProcessorInfo"]["SupportedArchitectures"]
    own = ec2.amis[image].architecture if image in ec2.amis else kinds[0]
    if own not in kinds:
        refuse(
            "InvalidParameterValue",
            f"The architecture '{','.join(kinds)}' of the specified instance type does not match the architecture '{own}' of the specified AMI. "
            "Specify an instance type and an AMI that have matching architectures, and try again.",
        )


def profile_of(iam, given):
    """An instance profile, by what a launch says of it."""
    name, arn = (given or {}).get("Name"), (given or {}).get("Arn")
    return next((p for p in iam.instance_profiles.values() if p.name == name or p.arn == arn), None)


def invalid_profile(given) -> str:
    by = "name" if given.get("Name") else "arn"
    return f"Value ({given.get('Name') or given.get('Arn')}) for parameter iamInstanceProfile.{by} is invalid. Invalid IAM Instance Profile {by if by == 'name' else 'ARN'}"


def check_profile(iam, given):
    if given and profile_of(iam, given) is None:
        refuse("InvalidParameterValue", invalid_profile(given))


@rule("ec2:RunInstances")
def launch(call, asked):
    ec2, template = call.ec2, of_template(call.ec2, asked.get("LaunchTemplate"))

    def said(name):
        return asked.get(name) or template.get(name)

    check_user_data(asked.get("UserData"), "InvalidParameterValue")
    if said("ImageId"):
        check_image(ec2, said("ImageId"))
    type = said("InstanceType") or "m1.small"
    check_type(ec2, type, said("ImageId"))
    key = said("KeyName")
    if key and key not in ec2.key_pairs:
        refuse("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    check_profile(call.iam, said("IamInstanceProfile"))
    interfaces = said("NetworkInterfaces") or []
    if interfaces and (asked.get("SecurityGroupIds") or asked.get("SubnetId")):
        refuse("InvalidParameterCombination", "Network interfaces and an instance-level security groups may not be specified on the same request")
    for given in interfaces:
        nic = ec2.enis.get(given.get("NetworkInterfaceId"))
        if nic is not None and (nic.instance or nic.status == "in-use"):
            refuse("InvalidNetworkInterface.InUse", f"Interface: [{nic.id}] in use.")
        if given.get("NetworkInterfaceId") and nic is None:
            refuse("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{given['NetworkInterfaceId']}' does not exist")
    for groups in [asked.get("SecurityGroupIds") or [], *(given.get("Groups") or [] for given in interfaces)]:
        limits.check_groups(ec2, groups)
        for id in groups:
            if limits.group_of(ec2, id) is None:
                refuse("InvalidGroup.NotFound", f"The security group '{id}' does not exist")
    spot = bool((said("InstanceMarketOptions") or {}).get("MarketType"))
    limits.check_processors(ec2, type, int(asked.get("MaxCount") or 1), spot)


@rule("ec2:CreateLaunchTemplate", "ec2:CreateLaunchTemplateVersion")
def user_data_of_a_template(call, asked):
    check_user_data((asked.get("LaunchTemplateData") or {}).get("UserData"), "InvalidUserData.Malformed")


@rule("ec2:StartInstances")
def start(call, asked):
    for instance in call.ec2.all_instances():
        if instance.id in (asked.get("InstanceIds") or []) and instance.state not in ("stopped", "running", "pending"):
            refuse(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in a state from which it can be started.",
            )


@rule("ec2:CreateVolume")
def zone_of_a_volume(call, asked):
    zone = asked.get("AvailabilityZone")
    if zone not in [known.name for known in call.ec2.describe_availability_zones()]:
        refuse("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")


@rule("ec2:AttachVolume")
def attach(call, asked):
    volume = call.ec2.volumes.get(asked.get("VolumeId"))
    instance = next((i for i in call.ec2.all_instances() if i.id == asked.get("InstanceId")), None)
    if volume is None or instance is None:
        return
    if instance.state not in ("running", "stopped"):
        refuse("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.attachment:
        refuse("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.status != "available":
        refuse("IncorrectState", f"{volume.id} is not 'available'.")
    if volume.zone.name != instance._placement.zone:
        refuse("InvalidVolume.ZoneMismatch", f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'")


@rule("ec2:DeleteVolume")
def delete_volume(call, asked):
    volume = call.ec2.volumes.get(asked.get("VolumeId"))
    if volume is not None and volume.attachment:
        refuse("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.attachment.instance.id}")
