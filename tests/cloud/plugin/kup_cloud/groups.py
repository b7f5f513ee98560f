"""Auto Scaling groups that spread over their subnets, follow their template, and keep the policy that mixes types."""

import copy
import functools
import math
from collections import Counter

from localstack.utils.patch import patch
from moto.autoscaling.exceptions import AutoscalingClientError
from moto.autoscaling.models import ASG_NAME_TAG, AutoScalingBackend, FakeAutoScalingGroup, InstanceState


@functools.cache
def mend():
    FakeAutoScalingGroup.set_desired_capacity = set_desired_capacity
    InstanceState.launch_template = property(template_of_instance)

    @patch(FakeAutoScalingGroup.replace_autoscaling_group_instances)
    def launch(original, self, count_needed, propagated_tags):
        if self.ec2_launch_template and self.vpc_zone_identifier:
            launch_spread(self, count_needed, propagated_tags)
        else:
            original(self, count_needed, propagated_tags)

    @patch(FakeAutoScalingGroup.update)
    def update(original, self, *args, **changes):
        # What isn't named isn't changed: moto would forget the policy.
        if not changes.get("mixed_instances_policy") and not changes.get("launch_template") and not changes.get("launch_config_name"):
            changes["mixed_instances_policy"] = policy = copy.deepcopy(self.mixed_instances_policy)
            # Kept with both, and taken with one.
            if policy:
                policy["LaunchTemplate"]["LaunchTemplateSpecification"].pop("LaunchTemplateName", None)
        answer = original(self, *args, **changes)
        leave(self)
        return answer

    @patch(AutoScalingBackend.create_auto_scaling_group)
    def create(original, self, name, **given):
        if name in self.autoscaling_groups:
            raise AutoscalingClientError("AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name already exists")
        return original(self, name=name, **given)


def spot_count(group) -> int:
    """How many of the wanted instances are to be spot instances."""
    policy = (group.mixed_instances_policy or {}).get("InstancesDistribution", {})
    base = int(policy.get("OnDemandBaseCapacity", 0))
    percent = int(policy.get("OnDemandPercentageAboveBaseCapacity", 100))
    above = max(0, group.desired_capacity - base)
    return above - math.ceil(above * percent / 100)


def launch_spread(group, count, tags):
    subnets = group.vpc_zone_identifier.split(",")
    overrides = (group.mixed_instances_policy or {}).get("LaunchTemplate", {}).get("Overrides") or [{}]
    type = overrides[0].get("InstanceType")
    for _ in range(count):
        here = Counter(state.instance.subnet_id for state in group.instance_states)
        spot = sum(state.instance.lifecycle == "spot" for state in group.instance_states)
        # The balance of spot and on-demand is kept as instances are lost and added.
        more = {"instance_market_options": "spot"} if spot < spot_count(group) else {}
        reservation = group.autoscaling_backend.ec2_backend.run_instances(
            None,
            1,
            None,
            [],
            instance_type=type,
            is_instance_type_default=type is None,
            region_name=group.region,
            subnet_id=min(subnets, key=lambda subnet: here[subnet]),
            launch_template={"LaunchTemplateId": group.ec2_launch_template.id, "Version": group.launch_template_version},
            tags={"instance": {ASG_NAME_TAG: group.name} | tags},
            # As what was not said, which leaves it to the template and the subnet.
            associate_public_ip=None,
            **more,
        )
        for instance in reservation.instances:
            instance.autoscaling_group = group
            group.instance_states.append(InstanceState(instance, protected_from_scale_in=group.new_instances_protected_from_scale_in))


def set_desired_capacity(self, new_capacity):
    self.desired_capacity = self.min_size if new_capacity is None else new_capacity
    missing = (self.desired_capacity or 0) - len(self.active_instances())
    if missing > 0:
        self.replace_autoscaling_group_instances(missing, self.get_propagated_tags())
    elif missing < 0:
        retire(self, -missing)
    if self.name in self.autoscaling_backend.autoscaling_groups:
        self.autoscaling_backend.update_attached_elbs(self.name)
        self.autoscaling_backend.update_attached_target_groups(self.name)


def retire(group, count):
    """Takes from the fullest subnet, the oldest first, and none that is protected."""
    chosen = []
    for _ in range(count):
        left = [state for state in group.instance_states if state not in chosen]
        here = Counter(state.instance.subnet_id for state in left)
        candidates = [state for state in left if not state.protected_from_scale_in]
        if not candidates:
            break
        chosen.append(max(candidates, key=lambda state: here[state.instance.subnet_id]))
    # Out of the group first: an instance that ends in it would be replaced.
    group.instance_states = [state for state in group.instance_states if state not in chosen]
    if chosen:
        group.autoscaling_backend.ec2_backend.terminate_instances([state.instance.id for state in chosen])


def leave(group):
    """Instances in a subnet that is no longer the group's end, and others come in those that are."""
    if not group.vpc_zone_identifier:
        return
    subnets = group.vpc_zone_identifier.split(",")
    outside = [state for state in group.instance_states if state.instance.subnet_id not in subnets]
    if outside:
        group.instance_states = [state for state in group.instance_states if state not in outside]
        group.autoscaling_backend.ec2_backend.terminate_instances([state.instance.id for state in outside])
        group.set_desired_capacity(group.desired_capacity)


def template_of_instance(self):
    """The version that an instance was launched with, where moto always names the default of today."""
    group = self.auto_scaling_group
    if group is None or group.ec2_launch_template is None:
        return None
    version = self.instance.get_tags()
    version = next((t["value"] for t in version if t["key"] == "aws:ec2launchtemplate:version"), None)
    return {
        "LaunchTemplateId": group.ec2_launch_template.id,
        "LaunchTemplateName": group.ec2_launch_template.name,
        "Version": version or str(group.ec2_launch_template.default_version_number),
    }
