//! Who runs the cluster day by day: an IAM user with the operator's policy, and no more.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::AwsResource;
use super::operator_policy::{OPERATOR, OperatorPolicy};
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::iam;
use crate::aws::once::taken;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// The cluster's operator.
#[derive(Debug, Clone)]
pub struct OperatorUser {
    /// Its name among users: [`OPERATOR`].
    pub name: String,
    /// What it may do.
    pub policy: Ref<OperatorPolicy>,
}

/// A user as it was found.
#[derive(Debug, Clone)]
pub struct OperatorUserFound {
    name: String,
    /// What IAM calls it.
    pub user: String,
    /// Its ARN.
    pub arn: String,
    /// The ARNs of its managed policies.
    pub attached: Vec<String>,
}

impl Found for OperatorUserFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// What IAM calls it.
    fn id(&self) -> &str {
        &self.user
    }
}

impl AwsResource for OperatorUser {
    const NEEDS: &'static [Need] = &[
        need("iam:ListUsers", Scope::Any),
        need("iam:ListAttachedUserPolicies", Scope::IamPath),
        need("iam:GetUser", Scope::IamPath),
        need("iam:CreateUser", Scope::IamPath),
        implied("iam:TagUser", "iam:CreateUser", Scope::IamPath),
        need("iam:AttachUserPolicy", Scope::IamPath),
        need("iam:DetachUserPolicy", Scope::IamPath),
        need("iam:DeleteUser", Scope::IamPath),
        // What somebody else gave it is in the way of its removal.
        need("iam:ListAccessKeys", Scope::IamPath),
        need("iam:DeleteAccessKey", Scope::IamPath),
        need("iam:ListUserPolicies", Scope::IamPath),
        need("iam:DeleteUserPolicy", Scope::IamPath),
        need("iam:ListGroupsForUser", Scope::IamPath),
        need("iam:ListMFADevices", Scope::IamPath),
        need("iam:DeactivateMFADevice", Scope::IamPath),
        need("iam:ListSigningCertificates", Scope::IamPath),
        need("iam:DeleteSigningCertificate", Scope::IamPath),
        need("iam:ListSSHPublicKeys", Scope::IamPath),
        need("iam:DeleteSSHPublicKey", Scope::IamPath),
        need("iam:ListServiceSpecificCredentials", Scope::IamPath),
        need("iam:DeleteServiceSpecificCredential", Scope::IamPath),
        need("iam:DeleteLoginProfile", Scope::IamPath),
    ];
}

impl Resource for OperatorUser {
    type Cloud = Aws;
    type Found = OperatorUserFound;
    const KIND: &'static str = "operator user";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.policy.address()]
    }

    fn detail(&self) -> String {
        "for running this cluster".to_owned()
    }

    fn diff(&self, found: &OperatorUserFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let has = cx.look(&self.policy).is_some_and(|policy| found.attached.contains(&policy.arn));
        if has { Vec::new() } else { vec![Change::in_place("its policy", "not attached", "attached")] }
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<OperatorUserFound> {
        let (aws, user) = (cx.cloud, cx.cloud.unique(&self.name, iam::NAME));
        let what = format!("the user {user} could not be made");
        let call = aws.iam.create_user().user_name(&user).path(aws.iam_path()).set_tags(Some(iam::tags(aws, &self.name, None)));
        let made = match call.send().await.failure() {
            Ok(made) => made.user,
            // By a call whose answer was lost, unless it is somebody else's.
            Err(failure) if failure.fault == Fault::Exists => {
                let look = || async {
                    let there = unless_gone(aws.iam.get_user().user_name(&user).send().await.failure())?;
                    Ok(there.and_then(|there| there.user))
                };
                match taken(look).await.map_err(|failure: Failure| failure.error(&what))? {
                    None => return Err(failure.error(what)),
                    Some(there) if there.path != aws.iam_path() => {
                        return Err(iam::foreign("user", &user, &there.path, &aws.iam_path()));
                    }
                    there => there,
                }
            }
            Err(failure) => return Err(failure.error(what)),
        };
        let arn = made.map(|made| made.arn).unwrap_or_default();
        let found = OperatorUserFound { name: self.name.clone(), user, arn, attached: Vec::new() };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &OperatorUserFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<OperatorUserFound> {
        let policy = cx.get(&self.policy)?.arn.clone();
        let what = format!("the policy {policy} could not be attached to the user {}", found.user);
        let send = || async {
            let call = cx.cloud.iam.attach_user_policy().user_name(&found.user).policy_arn(&policy);
            call.send().await.failure().map_err(iam::soon)
        };
        cx.cloud.until_unblocked(&what, send).await?;
        let mut attached = found.attached.clone();
        attached.push(policy);
        Ok(OperatorUserFound { attached, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<OperatorUserFound>> {
        let pages = aws.iam.list_users().path_prefix(aws.iam_path()).into_paginator().items().send();
        let users: Vec<_> = pages.try_collect().await.explain("users could not be listed")?;
        let each = users.into_iter().map(|user| async move {
            let pages = aws.iam.list_attached_user_policies().user_name(&user.user_name).into_paginator().items().send();
            let what = || format!("the policies of the user {} could not be listed", user.user_name);
            let attached = unless_gone(pages.try_collect().await.failure()).map_err(|failure| failure.error(what()))?;
            Ok(OperatorUserFound {
                name: iam::name_of(aws, &[OPERATOR], &user.user_name),
                attached: attached.unwrap_or_default().into_iter().filter_map(|policy| policy.policy_arn).collect(),
                user: user.user_name,
                arn: user.arn,
            })
        });
        futures::future::try_join_all(each).await
    }

    async fn delete(aws: &Aws, found: &OperatorUserFound) -> Result<()> {
        let user = &found.user;
        // What people are given by hand most often, and then all the rest.
        let tries = AtomicUsize::new(0);
        aws.until_unblocked(&format!("the user {user} could not be removed"), || async {
            for policy in &found.attached {
                unless_gone(aws.iam.detach_user_policy().user_name(user).policy_arn(policy).send().await.failure())?;
            }
            match unless_gone(aws.iam.delete_user().user_name(user).send().await.failure()) {
                Err(failure) if failure.fault == Fault::Blocked => {
                    if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                        tokio::try_join!(keys(aws, user), policies(aws, user))?;
                    } else {
                        tokio::try_join!(credentials(aws, user), certificates(aws, user))?;
                    }
                    Err(failure)
                }
                other => other.map(|_| ()),
            }
        })
        .await
    }
}

// What follows takes away from a user what it was given by hand: it can't be removed before.

async fn keys(aws: &Aws, user: &str) -> std::result::Result<(), Failure> {
    let iam = &aws.iam;
    let keys: Vec<_> = iam.list_access_keys().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    for key in keys.into_iter().filter_map(|key| key.access_key_id) {
        unless_gone(iam.delete_access_key().user_name(user).access_key_id(key).send().await.failure())?;
    }
    unless_gone(iam.delete_login_profile().user_name(user).send().await.failure()).map(|_| ())
}

async fn policies(aws: &Aws, user: &str) -> std::result::Result<(), Failure> {
    let iam = &aws.iam;
    let attached: Vec<_> =
        iam.list_attached_user_policies().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    for policy in attached.into_iter().filter_map(|policy| policy.policy_arn) {
        unless_gone(iam.detach_user_policy().user_name(user).policy_arn(policy).send().await.failure())?;
    }
    let inline: Vec<_> =
        iam.list_user_policies().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    for policy in inline {
        unless_gone(iam.delete_user_policy().user_name(user).policy_name(policy).send().await.failure())?;
    }
    let groups: Vec<_> =
        iam.list_groups_for_user().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    if groups.is_empty() {
        return Ok(());
    }
    // Whoever may take users out of groups may take anybody out of any: kup does not ask for that.
    let groups: Vec<String> = groups.into_iter().map(|group| group.group_name).collect();
    let message = format!("it is a member of {}: `aws iam remove-user-from-group` takes it out", groups.join(", "));
    Err(Failure { fault: Fault::Other, code: String::new(), message, request: None, call: None })
}

async fn credentials(aws: &Aws, user: &str) -> std::result::Result<(), Failure> {
    let iam = &aws.iam;
    let devices: Vec<_> = iam.list_mfa_devices().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    for device in devices {
        unless_gone(iam.deactivate_mfa_device().user_name(user).serial_number(device.serial_number).send().await.failure())?;
    }
    let specific = iam.list_service_specific_credentials().user_name(user).send().await.failure()?;
    for one in specific.service_specific_credentials.unwrap_or_default() {
        let call = iam.delete_service_specific_credential().user_name(user);
        unless_gone(call.service_specific_credential_id(one.service_specific_credential_id).send().await.failure())?;
    }
    Ok(())
}

async fn certificates(aws: &Aws, user: &str) -> std::result::Result<(), Failure> {
    let iam = &aws.iam;
    let certificates: Vec<_> =
        iam.list_signing_certificates().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    for one in certificates {
        unless_gone(iam.delete_signing_certificate().user_name(user).certificate_id(one.certificate_id).send().await.failure())?;
    }
    let keys: Vec<_> =
        iam.list_ssh_public_keys().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    for key in keys.into_iter().map(|key| key.ssh_public_key_id) {
        unless_gone(iam.delete_ssh_public_key().user_name(user).ssh_public_key_id(key).send().await.failure())?;
    }
    Ok(())
}
