//! What the operator may do: run this cluster, and not write IAM.

use serde_json::Value;

use super::AwsResource;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::iam;
use crate::aws::once::taken;
use crate::aws::permissions::{self, Need, Scope, Whose, implied, need};
use crate::error::{Context as _, Result};
use crate::graph::{Change, Cx, Found, Resource};

/// The operator's name, and its policy's.
pub const OPERATOR: &str = "operator";

/// How many versions of a policy IAM keeps.
const VERSIONS: usize = 5;

/// The managed policy of the cluster's operator.
#[derive(Debug, Clone)]
pub struct OperatorPolicy {
    /// Its name among policies: [`OPERATOR`].
    pub name: String,
}

impl Default for OperatorPolicy {
    fn default() -> Self {
        OperatorPolicy { name: OPERATOR.into() }
    }
}

/// A managed policy as it was found.
#[derive(Debug, Clone)]
pub struct OperatorPolicyFound {
    name: String,
    /// Its ARN.
    pub arn: String,
    /// What it allows.
    pub policy: Value,
}

impl Found for OperatorPolicyFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// Its ARN.
    fn id(&self) -> &str {
        &self.arn
    }
}

impl AwsResource for OperatorPolicy {
    const NEEDS: &'static [Need] = &[
        need("iam:ListPolicies", Scope::Any),
        need("iam:GetPolicyVersion", Scope::IamPath),
        need("iam:GetPolicy", Scope::IamPath),
        need("iam:CreatePolicy", Scope::IamPath),
        implied("iam:TagPolicy", "iam:CreatePolicy", Scope::IamPath),
        need("iam:ListPolicyVersions", Scope::IamPath),
        need("iam:CreatePolicyVersion", Scope::IamPath),
        need("iam:DeletePolicyVersion", Scope::IamPath),
        need("iam:DeletePolicy", Scope::IamPath),
        // Whom somebody else gave it to is in the way of its removal.
        need("iam:ListEntitiesForPolicy", Scope::IamPath),
        need("iam:DetachUserPolicy", Scope::IamPath),
        need("iam:DetachRolePolicy", Scope::IamPath),
        need("iam:DetachGroupPolicy", Scope::IamPath),
    ];
}

impl Resource for OperatorPolicy {
    type Cloud = Aws;
    type Found = OperatorPolicyFound;
    const KIND: &'static str = "operator policy";

    fn name(&self) -> &str {
        &self.name
    }

    fn detail(&self) -> String {
        "for running this cluster, without changing IAM".to_owned()
    }

    fn diff(&self, found: &OperatorPolicyFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        match wanted(cx.cloud) {
            Ok(policy) if found.policy == policy => Vec::new(),
            Ok(policy) => vec![Change::in_place("policy", iam::digest(&found.policy), iam::digest(&policy))],
            Err(e) => vec![Change::refuse("policy", iam::digest(&found.policy), e)],
        }
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<OperatorPolicyFound> {
        let (aws, name) = (cx.cloud, cx.cloud.unique(&self.name, iam::NAME));
        let policy = wanted(aws)?;
        let what = format!("the policy {name} could not be made");
        let made = aws
            .iam
            .create_policy()
            .policy_name(&name)
            .path(aws.iam_path())
            .policy_document(policy.to_string())
            .description(format!("For running the Kubernetes cluster {}; made by kup", aws.cluster))
            .set_tags(Some(iam::tags(aws, &self.name, None)))
            .send()
            .await
            .failure();
        match made {
            Ok(made) => {
                let arn = made.policy.and_then(|made| made.arn).unwrap_or_default();
                Ok(OperatorPolicyFound { name: self.name.clone(), arn, policy })
            }
            // By a call whose answer was lost, unless it is somebody else's.
            Err(failure) if failure.fault == Fault::Exists => {
                let arn = format!("{}:policy{}{name}", Whose::of(aws).global("iam"), aws.iam_path());
                let look = || async { unless_gone(aws.iam.get_policy().policy_arn(&arn).send().await.failure()) };
                match taken(look).await {
                    Ok(Some(there)) => {
                        let version = there.policy.and_then(|there| there.default_version_id).unwrap_or_default();
                        let found =
                            OperatorPolicyFound { name: self.name.clone(), policy: document(aws, &arn, &version).await?, arn };
                        if found.policy == policy { Ok(found) } else { self.update(&found, &[], cx).await }
                    }
                    Ok(None) => Err(iam::foreign("policy", &name, "another path", &aws.iam_path())),
                    Err(other) => Err(other.error(what)),
                }
            }
            Err(failure) => Err(failure.error(what)),
        }
    }

    async fn update(&self, found: &OperatorPolicyFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<OperatorPolicyFound> {
        let (aws, arn) = (cx.cloud, &found.arn);
        let policy = wanted(aws)?;
        let what = format!("the policy {arn} could not be changed");
        aws.until_unblocked(&what, || async {
            let pages = aws.iam.list_policy_versions().policy_arn(arn).into_paginator().items().send();
            let mut versions: Vec<_> = pages.try_collect().await.failure().map_err(iam::soon)?;
            versions.sort_by_key(|version| version.create_date);
            let old = versions.len().saturating_sub(VERSIONS - 1);
            for version in versions.iter().filter(|version| !version.is_default_version).take(old) {
                let call = aws.iam.delete_policy_version().policy_arn(arn).set_version_id(version.version_id.clone());
                unless_gone(call.send().await.failure())?;
            }
            let call = aws.iam.create_policy_version().policy_arn(arn).policy_document(policy.to_string()).set_as_default(true);
            call.send().await.failure().map(|_| ())
        })
        .await?;
        Ok(OperatorPolicyFound { policy, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<OperatorPolicyFound>> {
        let local = aws_sdk_iam::types::PolicyScopeType::Local;
        let pages = aws.iam.list_policies().scope(local).path_prefix(aws.iam_path()).into_paginator().items().send();
        let policies: Vec<_> = pages.try_collect().await.explain("policies could not be listed")?;
        let each = policies.into_iter().map(|policy| async move {
            let (arn, version) = (policy.arn.unwrap_or_default(), policy.default_version_id.unwrap_or_default());
            let name = iam::name_of(aws, &[OPERATOR], policy.policy_name.as_deref().unwrap_or_default());
            Ok(OperatorPolicyFound { name, policy: document(aws, &arn, &version).await?, arn })
        });
        futures::future::try_join_all(each).await
    }

    async fn delete(aws: &Aws, found: &OperatorPolicyFound) -> Result<()> {
        let arn = &found.arn;
        aws.until_unblocked(&format!("the policy {arn} could not be removed"), || async {
            match unless_gone(aws.iam.delete_policy().policy_arn(arn).send().await.failure()) {
                Err(failure) if failure.fault == Fault::Blocked => {
                    clear(aws, arn).await?;
                    Err(failure)
                }
                other => other.map(|_| ()),
            }
        })
        .await
    }
}

fn wanted(aws: &Aws) -> Result<Value> {
    serde_json::to_value(permissions::operator(&Whose::of(aws))).context("the operator's policy can't be written")
}

/// What a version of a policy allows. One that was removed meanwhile allows nothing.
async fn document(aws: &Aws, arn: &str, version: &str) -> Result<Value> {
    let read = aws.iam.get_policy_version().policy_arn(arn).version_id(version).send().await.failure();
    let read = unless_gone(read).map_err(|failure| failure.error(format!("the policy {arn} could not be read")))?;
    let document = read.and_then(|read| read.policy_version).and_then(|version| version.document);
    Ok(document.map_or(Value::Null, |document| iam::decoded(&document)))
}

/// Takes a policy away from whoever has it, and removes its older versions: it can't be removed before.
async fn clear(aws: &Aws, arn: &str) -> std::result::Result<(), Failure> {
    let iam = &aws.iam;
    let mut pages = iam.list_entities_for_policy().policy_arn(arn).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.failure()?;
        for user in page.policy_users.unwrap_or_default() {
            unless_gone(iam.detach_user_policy().policy_arn(arn).set_user_name(user.user_name).send().await.failure())?;
        }
        for role in page.policy_roles.unwrap_or_default() {
            unless_gone(iam.detach_role_policy().policy_arn(arn).set_role_name(role.role_name).send().await.failure())?;
        }
        for group in page.policy_groups.unwrap_or_default() {
            unless_gone(iam.detach_group_policy().policy_arn(arn).set_group_name(group.group_name).send().await.failure())?;
        }
    }
    let versions: Vec<_> =
        iam.list_policy_versions().policy_arn(arn).into_paginator().items().send().try_collect().await.failure()?;
    for version in versions.into_iter().filter(|version| !version.is_default_version) {
        unless_gone(iam.delete_policy_version().policy_arn(arn).set_version_id(version.version_id).send().await.failure())?;
    }
    Ok(())
}
