"""Auto Scaling groups that react in their own time, and are deleted in it."""

import functools

from localstack.utils.patch import patch

from kup_cloud import dwell
from kup_cloud.calls import refuse
from kup_cloud.strict import instances, note, rule

DELETING = "Delete in progress"


@functools.cache
def mend():
    from moto.autoscaling.models import AutoScalingBackend, FakeAutoScalingGroup

    FakeAutoScalingGroup.active_instances = lambda self: [s for s in self.instance_states if s.lifecycle_state in ("InService", "Pending")]

    @patch(FakeAutoScalingGroup.replace_autoscaling_group_instances)
    def launch(original, self, count, tags):
        """It counts again when it comes to it: meanwhile others may be wanted."""

        def now():
            there = self.autoscaling_backend.autoscaling_groups.get(self.name) is self
            missing = (self.desired_capacity or 0) - len(self.active_instances())
            if not there or getattr(self, "kup_deleting", False) or missing <= 0:
                return
            before = list(self.instance_states)
            original(self, missing, self.get_propagated_tags())
            for state in self.instance_states:
                if state not in before:
                    state.lifecycle_state = "Pending"
                    in_service(state)
            self.autoscaling_backend.update_attached_target_groups(self.name)

        dwell.later("group", now)

    @patch(AutoScalingBackend.delete_auto_scaling_group)
    def delete(original, self, group_name):
        group = self.autoscaling_groups.get(group_name)
        if group is None:
            return original(self, group_name)
        group.kup_deleting, group.desired_capacity = True, 0
        ending = [state.instance for state in group.instance_states]
        for state in group.instance_states:
            state.lifecycle_state = "Terminating"
        if ending:
            self.ec2_backend.terminate_instances([instance.id for instance in ending])

        def gone():
            if any(instance.state != "terminated" for instance in ending):
                dwell.later("group deleted", gone)
            elif self.autoscaling_groups.get(group_name) is group:
                del self.autoscaling_groups[group_name]

        dwell.later("group deleted", gone)

    @patch(AutoScalingBackend.notify_terminate_instances)
    def notify(original, self, instance_ids):
        """A group that is being deleted keeps its instances until they have ended."""
        deleting = {name: group for name, group in self.autoscaling_groups.items() if getattr(group, "kup_deleting", False)}
        for name in deleting:
            del self.autoscaling_groups[name]
        try:
            original(self, instance_ids)
        finally:
            self.autoscaling_groups.update(deleting)


def in_service(state):
    """Once its instance runs."""

    def now():
        if state.lifecycle_state != "Pending" or state.instance.state not in ("pending", "running"):
            return
        if state.instance.state == "running":
            state.lifecycle_state = "InService"
        else:
            in_service(state)

    dwell.later("running", now)


def group_of(call, name):
    return call.groups.autoscaling_groups.get(name)


@rule("autoscaling:CreateAutoScalingGroup")
def create(call, asked):
    name = asked.get("AutoScalingGroupName")
    group = group_of(call, name)
    if group is not None and getattr(group, "kup_deleting", False):
        refuse(
            "AlreadyExists",
            f"AutoScalingGroup by this name already exists - A group with the name {name} already exists and is pending delete.  "
            "Please wait until Autoscaling completes the deletion process before creating another group with the same name.",
        )
    valid_template(call, asked)


@rule("autoscaling:UpdateAutoScalingGroup")
def update(call, asked):
    valid_template(call, asked)


def valid_template(call, asked):
    """What it names must be there, its profile too; it is looked at now, not at the first launch."""
    policy = (asked.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    given = asked.get("LaunchTemplate") or policy.get("LaunchTemplateSpecification")
    if not given:
        return
    id, name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    if not any(t.id == id or (name and t.name == name) for t in call.ec2.launch_templates.values()):
        refuse("ValidationError", f"You must use a valid fully-formed launch template. The specified launch template, with template ID {id or name}, does not exist.")
    profile = instances.of_template(call.ec2, given).get("IamInstanceProfile")
    if profile and instances.profile_of(call.iam, profile) is None:
        refuse("ValidationError", f"You must use a valid fully-formed launch template. {instances.invalid_profile(profile)}")


@rule("autoscaling:UpdateAutoScalingGroup", "autoscaling:SetDesiredCapacity", "autoscaling:CreateOrUpdateTags", "autoscaling:AttachInstances")
def not_while_it_goes(call, asked):
    names = [asked.get("AutoScalingGroupName")] + [tag.get("ResourceId") for tag in asked.get("Tags") or []]
    for name in names:
        if getattr(group_of(call, name), "kup_deleting", False):
            refuse("ValidationError", "The AutoScaling group may not be modified while it is pending delete")


@rule("autoscaling:DeleteAutoScalingGroup")
def delete_group(call, asked):
    name = asked.get("AutoScalingGroupName")
    group = group_of(call, name)
    if group is None:
        refuse("ValidationError", "AutoScalingGroup name not found - null")
    if getattr(group, "kup_deleting", False):
        # A second deletion is none.
        call.answer = {}
    elif group.instance_states and not asked.get("ForceDelete"):
        refuse("ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.")


@rule("autoscaling:DeleteLaunchConfiguration")
def configuration_in_use(call, asked):
    name = asked.get("LaunchConfigurationName")
    if any(getattr(group, "launch_configuration_name", None) == name for group in call.groups.autoscaling_groups.values()):
        refuse("ResourceInUse", f"Cannot delete launch configuration {name} because it is attached to AutoScalingGroup")


@note("autoscaling:DescribeAutoScalingGroups")
def status(call, answer):
    for said in answer.get("AutoScalingGroups") or []:
        if getattr(group_of(call, said["AutoScalingGroupName"]), "kup_deleting", False):
            said["Status"] = DELETING
