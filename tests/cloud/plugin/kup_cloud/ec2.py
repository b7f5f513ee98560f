"""EC2: LocalStack's own provider, and what it and moto lack."""

import functools

from localstack.aws.api import CommonServiceException, RequestContext, handler
from localstack.services.ec2.models import get_ec2_backend
from localstack.services.ec2.provider import Ec2Provider
from localstack.services.moto import call_moto
from localstack.utils.patch import patch
from moto.core.responses import ActionResult
from moto.ec2.models.elastic_block_store import EBSBackend
from moto.ec2.models.launch_templates import LaunchTemplateBackend, LaunchTemplateVersion
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.security_groups import SecurityGroups
from moto.ec2.utils import parse_user_data

from kup_cloud import instances


class Provider(Ec2Provider):
    service = "ec2"

    def on_after_init(self):
        super().on_after_init()
        instances.mend()
        mend()

    @handler("DescribeAvailabilityZones", expand=False)
    def describe_availability_zones(self, context: RequestContext, request, **_):
        answer = super().describe_availability_zones(context, request)
        wanted, found = request.get("ZoneNames") or [], [zone["ZoneName"] for zone in answer["AvailabilityZones"]]
        if unknown := [name for name in wanted if name not in found]:
            raise CommonServiceException("InvalidParameterValue", f"Invalid availability zone: [{', '.join(unknown)}]", sender_fault=True)
        for zone in answer["AvailabilityZones"]:
            zone |= {"OptInStatus": "opt-in-not-required", "GroupName": f"{context.region}-zg-1", "NetworkBorderGroup": context.region}
        return answer

    @handler("CreateDhcpOptions", expand=False)
    def create_dhcp_options(self, context: RequestContext, request, **_):
        answer = call_moto(context)
        tags = [tag for spec in request.get("TagSpecifications") or [] for tag in spec["Tags"]]
        if tags:
            options = answer["DhcpOptions"]
            get_ec2_backend(context.account_id, context.region).create_tags([options["DhcpOptionsId"]], {t["Key"]: t["Value"] for t in tags})
            options["Tags"] = tags
        return answer

    @handler("DescribeVolumes", expand=False)
    def describe_volumes(self, context: RequestContext, request, **_):
        answer = call_moto(context)
        backend = get_ec2_backend(context.account_id, context.region)
        for volume in answer["Volumes"]:
            for attachment in volume.get("Attachments") or []:
                disk = backend.get_instance(attachment["InstanceId"]).block_device_mapping.get(attachment["Device"])
                attachment["DeleteOnTermination"] = bool(disk and disk.delete_on_termination)
        return answer


@functools.cache
def mend():
    SecurityGroupRule.description = property(description_of_rule)
    SecurityGroupRule.__eq__ = lambda self, other: meaning_of_rule(self) == meaning_of_rule(other)

    @patch(VPCBackend.describe_vpc_endpoints)
    def describe_vpc_endpoints(original, self, *args, **more):
        return [endpoint for endpoint in original(self, *args, **more) if endpoint.state != "deleted"]

    @patch(VPCBackend.delete_vpc)
    def delete_vpc(original, self, vpc_id):
        vpc = self.vpcs.get(vpc_id)
        options = vpc and vpc.dhcp_options
        deleted = original(self, vpc_id)
        # moto removes the options with it.
        if options:
            options.vpc = None
            self.dhcp_options_sets[options.id] = options
        return deleted

    @patch(EBSBackend.detach_volume)
    def detach_volume(original, self, volume_id, instance_id, device_path):
        # Who has it need not be said.
        attachment = self.get_volume(volume_id).attachment
        return original(self, volume_id, instance_id or (attachment and attachment.instance.id), device_path)

    @patch(LaunchTemplateVersion.__init__)
    def version(original, self, template, number, data, description):
        # moto does this for a template's first version only, and fails to launch from the others.
        if isinstance(data.get("UserData"), str):
            data["UserData"] = parse_user_data(data["UserData"])
        original(self, template, number, data, description)

    @patch(SecurityGroups.authorize_security_group_ingress)
    def ingress(_original, self):
        return authorize(self, self.ec2_backend.authorize_security_group_ingress, self.ec2_backend.revoke_security_group_ingress)

    @patch(SecurityGroups.authorize_security_group_egress)
    def egress(_original, self):
        return authorize(self, self.ec2_backend.authorize_security_group_egress, self.ec2_backend.revoke_security_group_egress)

    @patch(LaunchTemplateBackend.create_launch_template)
    def create_launch_template(original, self, name, description, template_data, tag_spec):
        # The template's own tags are no part of what it launches.
        specifications = [s for s in template_data.pop("TagSpecifications", []) if s["ResourceType"] != "launch-template"]
        if specifications:
            template_data["TagSpecifications"] = specifications
        return original(self, name, description, template_data, tag_spec)


def authorize(response, add, remove):
    """All rules or none, and all of them in the answer: moto answers with the last, and leaves those before one that it refuses."""
    response.error_on_dryrun()
    rules = []
    try:
        for given in response._process_rules_from_querystring():
            made, group = add(**given)
            rules += made
    except Exception:
        for rule in rules:
            group.ingress_rules[:] = [r for r in group.ingress_rules if r.id != rule.id]
            group.egress_rules[:] = [r for r in group.egress_rules if r.id != rule.id]
        raise
    return ActionResult({"Return": True, "SecurityGroupRules": rules})


def description_of_rule(rule):
    """moto keeps all descriptions, and shows those of address ranges."""
    return rule.ip_range.get("Description") or rule.source_group.get("Description")


def meaning_of_rule(rule):
    """What makes a rule another one; a description doesn't."""
    group = rule.source_group.get("GroupId") or rule.source_group.get("GroupName")
    return rule.ip_protocol, rule.from_port, rule.to_port, rule.ip_range.get("CidrIp"), rule.ip_range.get("CidrIpv6"), group, rule.prefix_list_id
