//! Which of the actions that kup needs IAM would deny the caller: asked of IAM's own simulator where the caller may. An answer is only a
//! warning, since the simulator knows neither the organisation's policies nor a session's.

use std::collections::BTreeMap;

use aws_config::retry::RetryConfig;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};

use super::Aws;
use super::fault::Explain as _;
use super::permissions::{Need, Scope, optional};
use super::resource::ROWS;
use crate::report::Report;

/// What asking calls.
pub const NEEDS: &[Need] = &[optional("iam:SimulatePrincipalPolicy", Scope::Any)];

/// The principal that the simulator knows for a caller: a role for a session of one; none for the account's root.
fn principal(arn: &str) -> Option<String> {
    let mut parts = arn.splitn(6, ':');
    let (partition, service, account, resource) = (parts.nth(1)?, parts.next()?, parts.nth(1)?, parts.next()?);
    match (service, resource.split_once('/')) {
        ("iam", Some(("user" | "role", _))) => Some(arn.to_owned()),
        ("sts", Some(("assumed-role", rest))) => Some(format!("arn:{partition}:iam::{account}:role/{}", rest.split('/').next()?)),
        _ => None,
    }
}

/// The resource that an action is tried on.
fn resource(aws: &Aws, need: &Need) -> String {
    let (partition, account) = (&aws.identity.partition, &aws.identity.account);
    match need.scope {
        Scope::Bucket if need.action.contains("Object") => format!("arn:{partition}:s3:::{}/x", aws.bucket()),
        Scope::Bucket => format!("arn:{partition}:s3:::{}", aws.bucket()),
        Scope::IamPath => {
            let (action, path) = (need.action, aws.iam_path());
            let entity = [("InstanceProfile", "instance-profile"), ("User", "user"), ("AccessKey", "user"), ("Role", "role")];
            let entity = entity.iter().find(|(word, _)| action.contains(word)).map_or("policy", |(_, entity)| *entity);
            format!("arn:{partition}:iam::{account}:{entity}{path}x")
        }
        _ => "*".to_owned(),
    }
}

/// Warns of the actions that would be denied.
pub async fn warn(aws: &Aws, report: &Report) {
    let Some(principal) = principal(&aws.identity.arn).filter(|_| !aws.identity.arn.ends_with(":root")) else { return };
    let mut by_resource: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for need in ROWS.iter().flat_map(|row| row.needs).filter(|need| !need.optional) {
        let actions = by_resource.entry(resource(aws, need)).or_default();
        if !actions.iter().any(|known| known == need.action) {
            actions.push(need.action.to_owned());
        }
    }
    let context = |key: &str, value: &str| {
        ContextEntry::builder()
            .context_key_name(key)
            .context_key_type(ContextKeyTypeEnum::String)
            .context_key_values(value)
            .build()
    };
    let mut tagged = ["aws:RequestTag", "aws:ResourceTag", "ec2:ResourceTag", "autoscaling:ResourceTag"]
        .map(|key| context(&format!("{key}/{}", super::tags::CLUSTER), &aws.cluster))
        .to_vec();
    tagged.push(context(&format!("aws:ResourceTag/kubernetes.io/cluster/{}", aws.cluster), "owned"));
    // An answer is not worth waiting for one that does not come.
    let iam = aws_sdk_iam::Client::from_conf(aws.iam.config().to_builder().retry_config(RetryConfig::disabled()).build());
    let ask = |(resource, actions): (String, Vec<String>)| {
        let call = iam
            .simulate_principal_policy()
            .policy_source_arn(&principal)
            .set_action_names(Some(actions))
            .resource_arns(resource)
            .set_context_entries(Some(tagged.clone()));
        async move {
            let results: std::result::Result<Vec<aws_sdk_iam::types::EvaluationResult>, _> =
                call.into_paginator().items().send().try_collect().await;
            results.failure()
        }
    };
    let mut questions = by_resource.into_iter();
    let mut denied: Vec<String> = Vec::new();
    // The first question shows whether the caller may ask at all.
    let first = match questions.next() {
        Some(first) => ask(first).await,
        None => return,
    };
    let rest = match &first {
        Ok(_) => futures::future::join_all(questions.map(ask)).await,
        Err(_) => Vec::new(),
    };
    for answer in std::iter::once(first).chain(rest) {
        match answer {
            Ok(results) => denied.extend(
                results
                    .into_iter()
                    .filter(|r| r.eval_decision != PolicyEvaluationDecisionType::Allowed)
                    .map(|r| r.eval_action_name),
            ),
            // Nothing depends on the answer.
            Err(failure) => {
                let words = if failure.code.is_empty() { "IAM gives no answer".to_owned() } else { failure.code };
                report.note(format!(
                    "whether you may do all that is needed can't be asked in advance ({words}); a denied action will be named"
                ));
                break;
            }
        }
    }
    if !denied.is_empty() {
        denied.sort();
        denied.dedup();
        report.warn(format!(
            "by IAM's simulator {} may not: {}; `kup iam policy` prints what is needed",
            aws.identity.arn,
            denied.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_asked_about_as_its_role() {
        let of = |arn: &str| principal(arn).unwrap_or_default();
        assert_eq!(of("arn:aws:iam::123456789012:user/dev/ann"), "arn:aws:iam::123456789012:user/dev/ann");
        assert_eq!(of("arn:aws-cn:sts::123456789012:assumed-role/Admin/ann"), "arn:aws-cn:iam::123456789012:role/Admin");
        assert_eq!(of("arn:aws:iam::123456789012:root"), "");
        assert_eq!(of("nonsense"), "");
    }
}
