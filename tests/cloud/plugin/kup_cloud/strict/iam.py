"""What IAM doesn't delete, and policies that it doesn't take."""

import json

from kup_cloud.calls import refuse
from kup_cloud.strict import rule


def conflict(message: str):
    refuse("DeleteConflict", message, 409)


def user_of(iam, name):
    return next((user for user in iam.users.values() if user.name == name), None)


def role_of(iam, name):
    return next((role for role in iam.roles.values() if role.name == name), None)


@rule("iam:DeleteUser")
def user(call, asked):
    found = user_of(call.iam, asked.get("UserName"))
    if found is None:
        return
    if found.access_keys:
        conflict("Cannot delete entity, must delete access keys first.")
    if found.managed_policies:
        conflict("Cannot delete entity, must detach all policies first.")
    if found.policies:
        conflict("Cannot delete entity, must delete policies first.")
    if any(found.name == member.name for group in call.iam.groups.values() for member in group.users):
        conflict("Cannot delete entity, must remove users from group first.")
    if getattr(found, "password", None):
        conflict("Cannot delete entity, must delete login profile first.")


@rule("iam:DeleteRole")
def role(call, asked):
    found = role_of(call.iam, asked.get("RoleName"))
    if found is None:
        return
    if any(held.name == found.name for profile in call.iam.instance_profiles.values() for held in profile.roles):
        conflict("Cannot delete entity, must remove roles from instance profile first.")
    if found.managed_policies:
        conflict("Cannot delete entity, must detach all policies first.")
    if found.policies:
        conflict("Cannot delete entity, must delete policies first.")


@rule("iam:DeleteInstanceProfile")
def profile(call, asked):
    for found in call.iam.instance_profiles.values():
        if found.name == asked.get("InstanceProfileName") and found.roles:
            conflict("Cannot delete entity, must remove roles from instance profile first.")


@rule("iam:RemoveRoleFromInstanceProfile")
def role_of_a_profile(call, asked):
    for found in call.iam.instance_profiles.values():
        if found.name == asked.get("InstanceProfileName") and asked.get("RoleName") not in [role.name for role in found.roles]:
            refuse("NoSuchEntity", f"The role with name {asked.get('RoleName')} cannot be found in the instance profile {found.name}.", 404)


@rule("iam:DeletePolicy")
def policy(call, asked):
    arn = asked.get("PolicyArn")
    holders = [*call.iam.users.values(), *call.iam.roles.values(), *call.iam.groups.values()]
    if any(arn in holder.managed_policies for holder in holders):
        conflict("Cannot delete a policy attached to entities.")
    found = call.iam.managed_policies.get(arn)
    if found is not None and len(found.versions) > 1:
        conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
            "The default version is deleted with the policy."
        )


@rule("iam:DeleteGroup")
def group(call, asked):
    for found in call.iam.groups.values():
        if found.name == asked.get("GroupName") and (found.users or found.policies or found.managed_policies):
            conflict("Cannot delete entity, must remove users from group first." if found.users else "Cannot delete entity, must detach all policies first.")


# What a document may be, without its white space: docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html.
SIZES = {"CreatePolicy": 6144, "CreatePolicyVersion": 6144, "PutUserPolicy": 2048, "PutRolePolicy": 10240, "CreateRole": 2048, "UpdateAssumeRolePolicy": 2048}


@rule(*(f"iam:{action}" for action in SIZES))
def document(call, asked):
    trust = call.action in ("CreateRole", "UpdateAssumeRolePolicy")
    text = asked.get("AssumeRolePolicyDocument" if call.action == "CreateRole" else "PolicyDocument") or ""
    try:
        said = json.loads(text)
        statements = said["Statement"] if isinstance(said["Statement"], list) else [said["Statement"]]
    except (ValueError, KeyError, TypeError):
        refuse("MalformedPolicyDocument", "Syntax errors in policy.")
    for statement in statements:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            refuse("MalformedPolicyDocument", "Syntax errors in policy.")
        if trust and not ("Principal" in statement or "NotPrincipal" in statement):
            refuse("MalformedPolicyDocument", "Missing required field Principal")
        if not trust and "Principal" in statement:
            refuse("MalformedPolicyDocument", "Policy document should not specify a principal.")
        if not ("Action" in statement or "NotAction" in statement):
            refuse("MalformedPolicyDocument", "Policy statement must contain actions.")
        if not trust and not ("Resource" in statement or "NotResource" in statement):
            refuse("MalformedPolicyDocument", "Policy statement must contain resources.")
    limit, kind = SIZES[call.action], "ACLSizePerRole" if trust else "PolicySize"
    if len("".join(text.split())) > limit:
        refuse("LimitExceeded", f"Cannot exceed quota for {kind}: {limit}", 409)


@rule("iam:CreateAccessKey")
def keys(call, asked):
    found = user_of(call.iam, asked.get("UserName"))
    if found is not None and len(found.access_keys) >= 2:
        refuse("LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2", 409)
