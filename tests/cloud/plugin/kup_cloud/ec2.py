"""EC2: LocalStack's own provider, and what it and moto lack."""

import functools

from localstack.aws.api import RequestContext, handler
from localstack.services.ec2.models import get_ec2_backend
from localstack.services.ec2.provider import Ec2Provider
from localstack.services.moto import call_moto
from localstack.utils.patch import patch
from moto.core.responses import ActionResult
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.responses.security_groups import SecurityGroups

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


@functools.cache
def mend():
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
