//! How a machine comes by its role: EC2 takes the profile, and the profile holds the role.

use super::AwsResource;
use super::role::{MASTER, MINION, Role};
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::iam;
use crate::aws::once::taken;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// An instance profile with one role.
///
/// EC2 and Auto Scaling know a new one only after some seconds: who uses it tries again on [`Fault::NotYet`].
#[derive(Debug, Clone)]
pub struct InstanceProfile {
    /// Its name among profiles: its role's.
    pub name: String,
    /// The role in it.
    pub role: Ref<Role>,
}

/// An instance profile as it was found.
#[derive(Debug, Clone)]
pub struct InstanceProfileFound {
    name: String,
    /// What IAM calls it.
    pub profile: String,
    /// Its ARN.
    pub arn: String,
    /// What IAM calls the roles in it: one, or none yet.
    pub roles: Vec<String>,
}

impl Found for InstanceProfileFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// What IAM calls it.
    fn id(&self) -> &str {
        &self.profile
    }
}

impl AwsResource for InstanceProfile {
    const NEEDS: &'static [Need] = &[
        need("iam:ListInstanceProfiles", Scope::Any),
        need("iam:GetInstanceProfile", Scope::IamPath),
        need("iam:CreateInstanceProfile", Scope::IamPath),
        implied("iam:TagInstanceProfile", "iam:CreateInstanceProfile", Scope::IamPath),
        need("iam:AddRoleToInstanceProfile", Scope::IamPath),
        implied("iam:PassRole", "iam:AddRoleToInstanceProfile", Scope::IamPath),
        need("iam:RemoveRoleFromInstanceProfile", Scope::IamPath),
        need("iam:DeleteInstanceProfile", Scope::IamPath),
    ];
}

impl Resource for InstanceProfile {
    type Cloud = Aws;
    type Found = InstanceProfileFound;
    const KIND: &'static str = "instance profile";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.role.address()]
    }

    fn diff(&self, found: &InstanceProfileFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let from = found.roles.join(", ");
        let to = match cx.look(&self.role) {
            Some(role) => role.role.clone(),
            // It is made anew, under its old name, and the profile lost it with the old one.
            None => cx.cloud.unique(&self.role.address().name, iam::NAME),
        };
        Change::if_differs("role", &from, &to, Change::in_place).into_iter().collect()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<InstanceProfileFound> {
        let (aws, profile) = (cx.cloud, cx.cloud.unique(&self.name, iam::NAME));
        let what = format!("the instance profile {profile} could not be made");
        let made = aws
            .iam
            .create_instance_profile()
            .instance_profile_name(&profile)
            .path(aws.iam_path())
            .set_tags(Some(iam::tags(aws, &self.name, Some(&self.name))))
            .send()
            .await
            .failure();
        let made = match made {
            Ok(made) => made.instance_profile,
            Err(failure) if failure.fault == Fault::Exists => {
                let look = || async {
                    let there = aws.iam.get_instance_profile().instance_profile_name(&profile).send().await.failure();
                    Ok(unless_gone(there)?.and_then(|there| there.instance_profile))
                };
                match taken(look).await.map_err(|failure: Failure| failure.error(&what))? {
                    None => return Err(failure.error(what)),
                    Some(there) if there.path != aws.iam_path() => {
                        return Err(iam::foreign("instance profile", &profile, &there.path, &aws.iam_path()));
                    }
                    there => there,
                }
            }
            Err(failure) => return Err(failure.error(what)),
        };
        let (arn, roles) = made.map(|made| (made.arn, made.roles)).unwrap_or_default();
        let roles = roles.into_iter().map(|role| role.role_name).collect();
        let found = InstanceProfileFound { name: self.name.clone(), profile, arn, roles };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &InstanceProfileFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<InstanceProfileFound> {
        let (aws, profile) = (cx.cloud, &found.profile);
        let role = cx.get(&self.role)?.role.clone();
        let what = format!("the role {role} could not be put into the instance profile {profile}");
        aws.until_unblocked(&what, || async {
            // There is room for one.
            for other in found.roles.iter().filter(|other| **other != role) {
                let call = aws.iam.remove_role_from_instance_profile().instance_profile_name(profile).role_name(other);
                unless_gone(call.send().await.failure())?;
            }
            if !found.roles.contains(&role) {
                let call = aws.iam.add_role_to_instance_profile().instance_profile_name(profile).role_name(&role);
                match call.send().await.failure() {
                    // By a call whose answer was lost, unless somebody was faster with another.
                    Err(failure) if failure.fault == Fault::Quota || failure.fault == Fault::Exists => {
                        let there = aws.iam.get_instance_profile().instance_profile_name(profile).send().await.failure()?;
                        let roles = there.instance_profile.map(|there| there.roles).unwrap_or_default();
                        if !roles.iter().any(|there| there.role_name == role) {
                            return Err(failure);
                        }
                    }
                    other => {
                        other.map_err(iam::soon)?;
                    }
                }
            }
            Ok(())
        })
        .await?;
        Ok(InstanceProfileFound { roles: vec![role], ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<InstanceProfileFound>> {
        let pages = aws.iam.list_instance_profiles().path_prefix(aws.iam_path()).into_paginator().items().send();
        let profiles: Vec<_> = pages.try_collect().await.explain("instance profiles could not be listed")?;
        let found = |profile: aws_sdk_iam::types::InstanceProfile| InstanceProfileFound {
            name: iam::name_of(aws, &[MASTER, MINION], &profile.instance_profile_name),
            profile: profile.instance_profile_name,
            arn: profile.arn,
            roles: profile.roles.into_iter().map(|role| role.role_name).collect(),
        };
        // Not every answer heeds the prefix.
        Ok(profiles.into_iter().filter(|profile| profile.path == aws.iam_path()).map(found).collect())
    }

    async fn delete(aws: &Aws, found: &InstanceProfileFound) -> Result<()> {
        let profile = &found.profile;
        aws.until_unblocked(&format!("the instance profile {profile} could not be removed"), || async {
            for role in &found.roles {
                let call = aws.iam.remove_role_from_instance_profile().instance_profile_name(profile).role_name(role);
                unless_gone(call.send().await.failure())?;
            }
            unless_gone(aws.iam.delete_instance_profile().instance_profile_name(profile).send().await.failure()).map(|_| ())
        })
        .await
    }
}
