//! What the account may have, against what it has and what a plan adds. Asked only if the plan adds any of it; an account that may not
//! ask, or an endpoint that knows no quotas, is told so and passed over.

use aws_config::retry::RetryConfig;

use super::Aws;
use super::deadline::seconds;
use super::fault::{Explain as _, Failure};
use super::permissions::{Need, Scope, need, optional};
use crate::error::{Error, Result};
use crate::report::Report;

/// What the check calls.
pub const NEEDS: &[Need] = &[
    optional("servicequotas:GetServiceQuota", Scope::Any),
    need("ec2:DescribeInstances", Scope::Any),
    need("ec2:DescribeAddresses", Scope::Any),
];

/// What a plan adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adds {
    /// Virtual CPUs of instances on demand.
    pub vcpus: u32,
    /// Virtual CPUs of spot instances.
    pub spot: u32,
    /// VPCs.
    pub vpcs: u32,
    /// Elastic IPs.
    pub addresses: u32,
}

/// One quota.
struct Quota {
    what: &'static str,
    service: &'static str,
    code: &'static str,
    adds: u32,
}

/// Fails if what is added is more than is left. `vpcs` is how many there are. Passed over, and said so, if AWS takes too long.
pub async fn check(aws: &Aws, adds: Adds, vpcs: u32, report: &Report) -> Result<()> {
    let all = [
        Quota { what: "virtual CPUs of instances on demand", service: "ec2", code: "L-1216C47A", adds: adds.vcpus },
        Quota { what: "virtual CPUs of spot instances", service: "ec2", code: "L-34B43A08", adds: adds.spot },
        Quota { what: "VPCs", service: "vpc", code: "L-F678F1CE", adds: adds.vpcs },
        Quota { what: "Elastic IPs", service: "ec2", code: "L-0263D0A3", adds: adds.addresses },
    ];
    let wanted: Vec<&Quota> = all.iter().filter(|quota| quota.adds > 0).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // An answer is not worth a long wait.
    let few = RetryConfig::standard().with_max_attempts(2);
    let quotas = aws_sdk_servicequotas::Client::from_conf(aws.quotas.config().to_builder().retry_config(few).build());
    let limits = futures::future::join_all(wanted.iter().map(|quota| async {
        let answer = quotas.get_service_quota().service_code(quota.service).quota_code(quota.code).send().await;
        answer.failure().map(|answer| answer.quota.and_then(|q| q.value))
    }));
    let used = async { tokio::try_join!(vcpus(aws, adds.vcpus + adds.spot > 0), addresses(aws, adds.addresses > 0)) };
    let Some((limits, used)) = aws.deadlines.spare(async { tokio::join!(limits, used) }).await else {
        unknown(&format!("no answer within {}", seconds(aws.deadlines.spare)), report);
        return Ok(());
    };
    let ((on_demand, spot), addresses) = used?;
    let (mut over, mut more, mut silent): (Vec<String>, Vec<String>, Option<Failure>) = (Vec::new(), Vec::new(), None);
    for (quota, limit) in wanted.into_iter().zip(limits) {
        let limit = match limit {
            Ok(limit) => limit,
            Err(failure) => {
                silent.get_or_insert(failure);
                continue;
            }
        };
        let used = match quota.code {
            "L-1216C47A" => on_demand,
            "L-34B43A08" => spot,
            "L-F678F1CE" => vpcs,
            _ => addresses,
        };
        if let Some(words) = limit.and_then(|limit| exceeds(quota, used, limit)) {
            over.push(words);
            more.push(format!(
                "ask for more: `aws service-quotas request-service-quota-increase --region {} --service-code {} --quota-code {} --desired-value {}`",
                aws.region,
                quota.service,
                quota.code,
                used.saturating_add(quota.adds)
            ));
        }
    }
    if let Some(failure) = silent {
        unknown(if failure.code.is_empty() { &failure.message } else { &failure.code }, report);
    }
    if over.is_empty() {
        return Ok(());
    }
    let error = Error::new(format!("the account {} may not have that much in {}", aws.identity.account, aws.region))
        .why(over.join("\n"))
        .hint("remove what is no longer used, or give smaller or fewer machines");
    Err(more.into_iter().fold(error, Error::hint))
}

fn unknown(why: &str, report: &Report) {
    report.note(format!("the account's quotas are not known ({why}): whether the machines fit in them shows when they are made"));
}

/// The sentence about a quota that would be exceeded.
fn exceeds(quota: &Quota, used: u32, limit: f64) -> Option<String> {
    let sum = f64::from(used) + f64::from(quota.adds);
    (sum > limit)
        .then(|| format!("{}: {used} in use, {} more wanted, {limit} allowed (quota {})", quota.what, quota.adds, quota.code))
}

/// Virtual CPUs in use, on demand and spot.
async fn vcpus(aws: &Aws, wanted: bool) -> Result<(u32, u32)> {
    if !wanted {
        return Ok((0, 0));
    }
    let running = aws_sdk_ec2::types::Filter::builder().name("instance-state-name").values("pending").values("running").build();
    let call = aws.ec2.describe_instances().filters(running).into_paginator().items().send();
    let all: Vec<_> = call.try_collect().await.explain("the instances in use could not be counted")?;
    let (mut on_demand, mut spot) = (0u32, 0u32);
    for instance in all.into_iter().flat_map(|r| r.instances.into_iter().flatten()) {
        // The quota counts the families A, C, D, H, I, M, R, T and Z.
        let standard = instance
            .instance_type
            .as_ref()
            .is_some_and(|t| t.as_str().starts_with(['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z']));
        let cpus = instance.cpu_options.map_or(2, |o| o.core_count.unwrap_or(1) * o.threads_per_core.unwrap_or(1));
        if standard {
            let sum = if instance.instance_lifecycle.is_some() { &mut spot } else { &mut on_demand };
            *sum += u32::try_from(cpus).unwrap_or(0);
        }
    }
    Ok((on_demand, spot))
}

async fn addresses(aws: &Aws, wanted: bool) -> Result<u32> {
    if !wanted {
        return Ok(0);
    }
    let all = aws.ec2.describe_addresses().send().await.explain("the Elastic IPs in use could not be counted")?;
    Ok(u32::try_from(all.addresses().len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_allowed_is_told_in_numbers() {
        let quota = Quota { what: "VPCs", service: "vpc", code: "L-F678F1CE", adds: 1 };
        assert_eq!(exceeds(&quota, 4, 5.0), None);
        let text = exceeds(&quota, 5, 5.0).unwrap();
        assert_eq!(text, "VPCs: 5 in use, 1 more wanted, 5 allowed (quota L-F678F1CE)");
    }
}
