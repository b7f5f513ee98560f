//! What machines may do: a role with one inline policy.

use serde_json::Value;

use super::AwsResource;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::iam;
use crate::aws::once::taken;
use crate::aws::permissions::{Need, Scope, Whose, implied, need};
use crate::error::Result;
use crate::graph::{Change, Cx, Found, Resource};

/// The masters' role.
pub const MASTER: &str = "master";
/// The minions' role.
pub const MINION: &str = "minion";

/// The name of the inline policy.
const POLICY: &str = "kup";

/// A role that EC2 gives to machines.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name among roles, and its template's: [`MASTER`] or [`MINION`].
    pub name: String,
}

impl Role {
    /// The masters'.
    pub fn master() -> Role {
        Role { name: MASTER.into() }
    }

    /// The minions'.
    pub fn minion() -> Role {
        Role { name: MINION.into() }
    }
}

/// A role as it was found.
#[derive(Debug, Clone)]
pub struct RoleFound {
    name: String,
    /// What IAM calls it.
    pub role: String,
    /// Its ARN.
    pub arn: String,
    /// Who may take it on.
    pub trust: Value,
    /// What it may do, if that was said.
    pub policy: Option<Value>,
}

impl Found for RoleFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// What IAM calls it.
    fn id(&self) -> &str {
        &self.role
    }
}

impl AwsResource for Role {
    const NEEDS: &'static [Need] = &[
        need("iam:ListRoles", Scope::Any),
        need("iam:GetRolePolicy", Scope::IamPath),
        need("iam:GetRole", Scope::IamPath),
        need("iam:CreateRole", Scope::IamPath),
        implied("iam:TagRole", "iam:CreateRole", Scope::IamPath),
        need("iam:PutRolePolicy", Scope::IamPath),
        need("iam:UpdateAssumeRolePolicy", Scope::IamPath),
        need("iam:DeleteRolePolicy", Scope::IamPath),
        need("iam:DeleteRole", Scope::IamPath),
        // What somebody else gave it is in the way of its removal.
        need("iam:ListRolePolicies", Scope::IamPath),
        need("iam:ListAttachedRolePolicies", Scope::IamPath),
        need("iam:DetachRolePolicy", Scope::IamPath),
        need("iam:ListInstanceProfilesForRole", Scope::IamPath),
        need("iam:RemoveRoleFromInstanceProfile", Scope::IamPath),
    ];
}

impl Resource for Role {
    type Cloud = Aws;
    type Found = RoleFound;
    const KIND: &'static str = "role";

    fn name(&self) -> &str {
        &self.name
    }

    fn detail(&self) -> String {
        format!("what {}s may do", self.name)
    }

    fn diff(&self, found: &RoleFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let (trust, policy) = match self.wanted(cx.cloud) {
            Ok(wanted) => wanted,
            Err(e) => return vec![Change::refuse("policy", "", e)],
        };
        let mut changes = Vec::new();
        if found.trust != trust {
            changes.push(Change::in_place("trust", iam::digest(&found.trust), iam::digest(&trust)));
        }
        if found.policy.as_ref() != Some(&policy) {
            let from = found.policy.as_ref().map_or_else(|| "none".to_owned(), iam::digest);
            changes.push(Change::in_place("policy", from, iam::digest(&policy)));
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<RoleFound> {
        let (aws, role) = (cx.cloud, cx.cloud.unique(&self.name, iam::NAME));
        let (trust, _) = self.wanted(aws)?;
        let what = format!("the role {role} could not be made");
        let made = aws
            .iam
            .create_role()
            .role_name(&role)
            .path(aws.iam_path())
            .assume_role_policy_document(trust.to_string())
            .description(format!("What {}s of the Kubernetes cluster {} may do; made by kup", self.name, aws.cluster))
            .set_tags(Some(iam::tags(aws, &self.name, Some(&self.name))))
            .send()
            .await
            .failure();
        let made = match made {
            Ok(made) => made.role,
            // By a call whose answer was lost, unless it is somebody else's.
            Err(failure) if failure.fault == Fault::Exists => {
                let look = || async {
                    let there = unless_gone(aws.iam.get_role().role_name(&role).send().await.failure())?;
                    Ok(there.and_then(|there| there.role))
                };
                match taken(look).await.map_err(|failure: Failure| failure.error(&what))? {
                    None => return Err(failure.error(what)),
                    Some(there) if there.path != aws.iam_path() => {
                        return Err(iam::foreign("role", &role, &there.path, &aws.iam_path()));
                    }
                    there => there,
                }
            }
            Err(failure) => return Err(failure.error(what)),
        };
        let arn = made.as_ref().map(|made| made.arn.clone()).unwrap_or_default();
        let trusted = made.and_then(|made| made.assume_role_policy_document).map_or(trust, |trust| iam::decoded(&trust));
        let found = RoleFound { name: self.name.clone(), role, arn, trust: trusted, policy: None };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &RoleFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<RoleFound> {
        let (iam, role) = (&cx.cloud.iam, &found.role);
        let (trust, policy) = self.wanted(cx.cloud)?;
        if found.trust != trust {
            let send = || async {
                let call = iam.update_assume_role_policy().role_name(role).policy_document(trust.to_string());
                call.send().await.failure().map_err(iam::soon)
            };
            cx.cloud.until_unblocked(&format!("who takes on the role {role} could not be said"), send).await?;
        }
        if found.policy.as_ref() != Some(&policy) {
            let send = || async {
                let call = iam.put_role_policy().role_name(role).policy_name(POLICY).policy_document(policy.to_string());
                call.send().await.failure().map_err(iam::soon)
            };
            cx.cloud.until_unblocked(&format!("the policy of the role {role} could not be put"), send).await?;
        }
        Ok(RoleFound { trust, policy: Some(policy), ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<RoleFound>> {
        let pages = aws.iam.list_roles().path_prefix(aws.iam_path()).into_paginator().items().send();
        let roles: Vec<_> = pages.try_collect().await.explain("roles could not be listed")?;
        let each = roles.into_iter().map(|role| async move {
            let read = aws.iam.get_role_policy().role_name(&role.role_name).policy_name(POLICY).send().await.failure();
            let what = || format!("the policy of the role {} could not be read", role.role_name);
            let policy = unless_gone(read).map_err(|failure| failure.error(what()))?;
            Ok(RoleFound {
                name: iam::name_of(aws, &[MASTER, MINION], &role.role_name),
                trust: iam::decoded(role.assume_role_policy_document.as_deref().unwrap_or_default()),
                policy: policy.map(|policy| iam::decoded(&policy.policy_document)),
                arn: role.arn,
                role: role.role_name,
            })
        });
        futures::future::try_join_all(each).await
    }

    async fn delete(aws: &Aws, found: &RoleFound) -> Result<()> {
        let role = &found.role;
        aws.until_unblocked(&format!("the role {role} could not be removed"), || async {
            unless_gone(aws.iam.delete_role_policy().role_name(role).policy_name(POLICY).send().await.failure())?;
            match unless_gone(aws.iam.delete_role().role_name(role).send().await.failure()) {
                Err(failure) if failure.fault == Fault::Blocked => {
                    clear(aws, role).await?;
                    Err(failure)
                }
                other => other.map(|_| ()),
            }
        })
        .await
    }
}

impl Role {
    /// Who may take it on, and what it may do.
    fn wanted(&self, aws: &Aws) -> Result<(Value, Value)> {
        let whose = Whose::of(aws);
        Ok((iam::policy("trust", &whose)?, iam::policy(&self.name, &whose)?))
    }
}

/// Takes away from a role what was given to it by others than kup: it can't be removed before.
async fn clear(aws: &Aws, role: &str) -> std::result::Result<(), Failure> {
    let iam = &aws.iam;
    let (inline, attached, profiles): (Vec<_>, Vec<_>, Vec<_>) = tokio::try_join!(
        async { iam.list_role_policies().role_name(role).into_paginator().items().send().try_collect().await.failure() },
        async { iam.list_attached_role_policies().role_name(role).into_paginator().items().send().try_collect().await.failure() },
        async {
            iam.list_instance_profiles_for_role().role_name(role).into_paginator().items().send().try_collect().await.failure()
        },
    )?;
    for policy in inline {
        unless_gone(iam.delete_role_policy().role_name(role).policy_name(policy).send().await.failure())?;
    }
    for arn in attached.into_iter().filter_map(|policy| policy.policy_arn) {
        unless_gone(iam.detach_role_policy().role_name(role).policy_arn(arn).send().await.failure())?;
    }
    for profile in profiles {
        let call = iam.remove_role_from_instance_profile().role_name(role).instance_profile_name(profile.instance_profile_name);
        unless_gone(call.send().await.failure())?;
    }
    Ok(())
}
