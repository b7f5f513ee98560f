"""Instances as their launch template, their interface and their image say.

moto takes a part of a template only, and what it takes differs between RunInstances and Auto Scaling groups.
"""

import copy
import functools

from localstack.utils.patch import patch
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.utils import convert_tag_spec

from kup_cloud import images

# What a template and RunInstances call it, and what moto does.
ARGUMENTS = {
    "KeyName": "key_name",
    "EbsOptimized": "ebs_optimized",
    "DisableApiStop": "disable_api_stop",
    "DisableApiTermination": "disable_api_termination",
    "InstanceInitiatedShutdownBehavior": "instance_initiated_shutdown_behavior",
    "MetadataOptions": "metadata_options",
    "SecurityGroupIds": "security_group_ids",
    "NetworkInterfaces": "nics",
    "BlockDeviceMappings": "block_device_mappings",
}


@functools.cache
def mend():
    images.mend()
    Instance.security_groups = property(groups_of, set_groups_of)
    NetworkInterface.group_set = property(lambda nic: list(nic._group_set))

    @patch(Instance.setup_defaults)
    def setup_defaults(_original, self):
        """The disk that the image has, where moto always has /dev/sda1."""
        image = self.ec2_backend.amis.get(self.image_id)
        size = getattr(image, "disk", 8)
        volume = self.ec2_backend.create_volume(size=size, zone_name=self._placement.zone, volume_type="gp3")
        self.ec2_backend.attach_volume(volume.id, self.id, self.root_device_name, True)

    @patch(Instance.terminate)
    def terminate(original, self):
        """Interfaces that are to stay are free again."""
        before = original(self)
        for nic in self.nics.values():
            if nic.instance is self:
                nic.instance = nic.attachment_id = nic.attach_time = None
                nic.status = "available"
        return before

    # moto reads an instance's addresses from its interfaces, so they stay there, unseen.
    Instance.network_interfaces = property(lambda self: [] if self.state == "terminated" else list(self.nics.values()))

    @patch(InstanceBackend.run_instances)
    def run_instances(original, self, image_id, count, user_data, security_group_names, **given):
        template = given.get("launch_template")
        profile = None
        if template:
            # Without a version, EC2 takes the default one, and moto the latest.
            version = self._get_template_from_args({"Version": "$Default"} | template)
            image_id, user_data, security_group_names, profile = from_template(version, image_id, user_data, security_group_names, given)
        if not given.get("placement") and not given.get("subnet_id"):
            given["placement"] = zone_of(self, given.get("nics") or [])
        root_disk(self, image_id, given)
        interface_tags = given.get("tags", {}).get("network-interface", {})
        reservation = original(self, image_id, count, user_data, security_group_names, **given)
        for instance in reservation.instances:
            if profile:
                self.associate_iam_instance_profile(
                    instance_id=instance.id, iam_instance_profile_name=profile.get("Name"), iam_instance_profile_arn=profile.get("Arn")
                )
            made_before = {nic.get("NetworkInterfaceId") for nic in given.get("nics") or []}
            kept = {int(nic["DeviceIndex"]) for nic in given.get("nics") or [] if nic.get("DeleteOnTermination") is False}
            for index, nic in instance.nics.items():
                if nic.id not in made_before:
                    nic.add_tags(interface_tags)
                    # What is made with an instance goes with it, unless it is said otherwise.
                    nic.delete_on_termination = index not in kept
        return reservation


def zone_of(backend, nics):
    """Where the first interface is, an instance is too: moto puts it into the first zone."""
    first = next((nic for nic in nics if int(nic.get("DeviceIndex") or 0) == 0), {})
    interface = backend.enis.get(first.get("NetworkInterfaceId"))
    if interface:
        return interface.subnet.availability_zone
    return backend.get_subnet(first["SubnetId"]).availability_zone if first.get("SubnetId") else None


def from_template(version, image_id, user_data, security_group_names, given):
    """Fills in what was not given otherwise; the template itself is taken out, so that moto doesn't do a part of it again."""
    data = version.data
    for name, argument in ARGUMENTS.items():
        if data.get(name) and not given.get(argument):
            given[argument] = copy.deepcopy(data[name])
    if given.get("is_instance_type_default", True) and data.get("InstanceType"):
        given |= {"instance_type": data["InstanceType"], "is_instance_type_default": False}
    if data.get("Monitoring", {}).get("Enabled"):
        given["monitoring_state"] = "enabled"
    if data.get("InstanceMarketOptions", {}).get("MarketType") and not given.get("instance_market_options"):
        given["instance_market_options"] = data["InstanceMarketOptions"]["MarketType"]
    if not given.get("placement") and not given.get("subnet_id"):
        given["placement"] = data.get("Placement", {}).get("AvailabilityZone")
    tags = convert_tag_spec(data.get("TagSpecifications", []))
    for kind, more in (given.get("tags") or {}).items():
        tags[kind] = tags.get(kind, {}) | more
    tags["instance"] = tags.get("instance", {}) | {"aws:ec2launchtemplate:id": version.template.id, "aws:ec2launchtemplate:version": str(version.number)}
    given["tags"] = tags
    given["launch_template"] = {}
    profile = None
    if not given.get("iam_instance_profile_name") and not given.get("iam_instance_profile_arn"):
        profile = data.get("IamInstanceProfile")
    return image_id or version.image_id, user_data or version.user_data, security_group_names or version.security_groups, profile


def root_disk(backend, image_id, given):
    """What is said of disks changes those of the image, and does not replace them."""
    disks = given.get("block_device_mappings")
    if not disks:
        given.pop("block_device_mappings", None)
        return
    image = backend.amis.get(image_id)
    root = image.root_device_name if image else "/dev/sda1"
    size = getattr(image, "disk", 8)
    disks = copy.deepcopy(disks)
    if not any(disk["DeviceName"] == root for disk in disks):
        disks.insert(0, {"DeviceName": root, "Ebs": {"VolumeType": "gp3"}})
    for disk in disks:
        if disk["DeviceName"] == root and "Ebs" in disk:
            disk["Ebs"] = {"VolumeSize": size, "DeleteOnTermination": True} | {k: v for k, v in disk["Ebs"].items() if v is not None}
    given["block_device_mappings"] = disks


def groups_of(self):
    """An instance's groups are those of its first interface, whoever made that."""
    nic = getattr(self, "nics", {}).get(0)
    own = self.__dict__.get("security_groups", [])
    return list(nic._group_set) or own if nic else own


def set_groups_of(self, groups):
    self.__dict__["security_groups"] = groups
    nic = getattr(self, "nics", {}).get(0)
    if nic:
        nic._group_set = list(groups)
