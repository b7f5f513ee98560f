//! What must hold of every policy; those of the example configs are among the golden plans.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::path::PathBuf;

use super::*;
use crate::aws::iam;
use crate::aws::permissions::{kinds, makes};
use crate::cluster::{Cluster, Source, load};

const EXAMPLES: [&str; 5] = ["aws-minimal", "aws-three-zones", "aws-three-masters", "aws-existing-vpc", "aws-groups-spot"];

fn example(name: &str) -> Cluster {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("config/examples/{name}.yaml"));
    load(Source { file: Some(file), ..Source::default() }).unwrap().cluster
}

fn whose(cluster: &str) -> Whose {
    let (region, account, partition) = ("us-west-2".into(), "123456789012".into(), "aws".into());
    Whose { cluster: cluster.into(), region, account, partition }
}

/// As IAM counts it.
fn size(policy: &impl Serialize) -> usize {
    serde_json::to_string(policy).unwrap().chars().filter(|c| !c.is_whitespace()).count()
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    }
}

/// The statements of a role's policy with this effect.
fn statements(name: &str, effect: &str) -> Vec<Value> {
    let policy = iam::policy(name, &whose("kubernetes")).unwrap();
    policy["Statement"].as_array().unwrap().iter().filter(|one| one["Effect"] == effect).cloned().collect()
}

#[test]
fn a_minion_reads_what_it_starts_from_and_nothing_else() {
    let bucket = whose("kubernetes").arn_of_bucket();
    let allowed = statements("minion", "Allow");
    assert_eq!(allowed.len(), 1);
    assert_eq!(allowed[0]["Action"], "s3:GetObject");
    assert_eq!(strings(&allowed[0]["Resource"]), [format!("{bucket}/node/*"), format!("{bucket}/bundle/*")]);
    let denied = statements("minion", "Deny");
    let all_of =
        |one: &Value, what: &str| one["Action"] == "s3:*" && strings(&one["Resource"]).contains(&format!("{bucket}/{what}"));
    for what in ["pki/*", "backups/*", "cluster.yaml", "lock"] {
        assert!(denied.iter().any(|one| all_of(one, what)), "{what}");
    }
    let writes = |one: &Value| one["NotAction"] == "s3:GetObject" && strings(&one["Resource"]).contains(&format!("{bucket}/*"));
    assert!(denied.iter().any(writes));
}

#[test]
fn a_master_never_reads_the_pki_and_changes_only_what_the_cluster_owns() {
    let bucket = whose("kubernetes").arn_of_bucket();
    for one in statements("master", "Allow") {
        let (actions, resources) = (strings(&one["Action"]), strings(&one["Resource"]));
        if actions.iter().any(|action| action.starts_with("s3:") && action != "s3:ListBucket") {
            let parts = ["node/*", "bundle/*", "backups/*"].map(|part| format!("{bucket}/{part}"));
            assert!(resources.iter().all(|resource| parts.contains(resource)), "{resources:?}");
        }
        let looks = actions.iter().all(|action| name_of(action).starts_with("Describe") || action.starts_with("s3:"));
        // A group stands in the VPC, which has no tag of the request.
        let in_vpc = actions == ["ec2:CreateSecurityGroup"] && resources.iter().all(|resource| resource.ends_with(":vpc/*"));
        assert!(looks || in_vpc || one["Condition"].is_object(), "{one}");
    }
    assert_eq!(iam::policy("trust", &whose("c")).unwrap()["Statement"][0]["Principal"]["Service"], "ec2.amazonaws.com");
}

#[test]
fn every_policy_fits_even_with_the_longest_name() {
    let longest = Whose { region: "ap-southeast-2".into(), ..whose(&"n".repeat(40)) };
    for name in EXAMPLES {
        let size = size(&policy(&longest, &kinds(&example(name))));
        assert!(size <= LARGEST, "{name}: {size}");
    }
    assert!(size(&operator(&longest)) <= LARGEST, "operator: {}", size(&operator(&longest)));
    let everything = Whose { partition: "aws-us-gov".into(), region: "us-gov-east-1".into(), ..longest.clone() };
    // A cluster is in a network of its own or in a given one.
    for never in
        [&["given vpc", "given subnet"][..], &["vpc", "subnet", "internet gateway", "route table", "s3 endpoint", "dhcp options"]]
    {
        let kinds = all_kinds().into_iter().filter(|kind| !never.contains(kind)).collect();
        let size_of_all = size(&policy(&everything, &kinds));
        assert!(size_of_all <= LARGEST, "everything but {never:?}: {size_of_all}");
    }
    // Inline policies of a role may have more.
    for name in ["master", "minion"] {
        assert!(size(&iam::policy(name, &longest).unwrap()) <= 10_240, "{name}");
    }
}

fn actions_of(policy: &Document) -> BTreeSet<String> {
    policy.statement.iter().flat_map(|one| one.action.clone()).collect()
}

fn matches(pattern: &str, action: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == action, |start| action.starts_with(start))
}

#[test]
fn every_action_of_the_table_is_allowed_and_no_other() {
    let kinds = all_kinds();
    let needed: BTreeSet<&str> = requirements(&kinds).iter().map(|one| one.action).collect();
    let allowed = actions_of(&policy(&whose("c"), &kinds));
    for pattern in &allowed {
        assert!(needed.iter().any(|action| matches(pattern, action)), "{pattern} is needed by nothing");
    }
    for action in &needed {
        assert!(allowed.iter().any(|pattern| matches(pattern, action)), "{action} is not allowed");
    }
    for (action, _) in TOUCHED {
        assert!(needed.contains(action) || *action == "ec2:AuthorizeSecurityGroupEgress", "{action} is needed by nothing");
    }
}

/// The calls of AWS's SDK that the sources make, by the names that IAM gives them, in small letters. Tests make others.
fn calls_in_the_sources() -> BTreeSet<String> {
    // `aws.ec2.describe_vpcs()`, also over several lines; clients are called by their fields' names everywhere.
    let call = regex::Regex::new(r"\b(ec2|iam|autoscaling|elb|s3|ssm|sts|quotas)\s*\.\s*([a-z_0-9]+)\(\)").unwrap();
    let none = ["build", "config", "into_iter"];
    let mut calls = BTreeSet::new();
    let mut directories = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() {
                directories.push(entry);
                continue;
            }
            if name.ends_with("tests.rs") || name == "testing.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for found in call.captures_iter(code).filter(|found| !none.contains(&&found[2])) {
                let service = match &found[1] {
                    "elb" => "elasticloadbalancing",
                    "quotas" => "servicequotas",
                    other => other,
                };
                calls.insert(format!("{service}:{}", found[2].replace('_', "")));
            }
        }
    }
    calls
}

#[test]
fn the_table_knows_the_calls_that_there_are_and_no_others() {
    let made = calls_in_the_sources();
    let known: BTreeSet<String> =
        requirements(&all_kinds()).iter().flat_map(|one| one.calls.iter().map(|call| call.to_lowercase())).collect();
    assert!(made.len() > 80, "the search finds no calls any more: {made:?}");
    assert_eq!(made.difference(&known).collect::<Vec<_>>(), [] as [&String; 0], "called, and in no policy");
    assert_eq!(known.difference(&made).collect::<Vec<_>>(), [] as [&String; 0], "in policies, and never called");
}

#[test]
fn the_operator_reads_iam_and_writes_none() {
    let of_iam: BTreeSet<String> = actions_of(&operator(&whose("c"))).into_iter().filter(|one| one.starts_with("iam:")).collect();
    assert!(of_iam.contains("iam:ListRoles") && of_iam.contains("iam:PassRole"), "{of_iam:?}");
    assert!(
        of_iam.iter().all(|one| ["iam:Get", "iam:List", "iam:Simulate", "iam:PassRole"].iter().any(|ok| one.starts_with(ok))),
        "{of_iam:?}"
    );
}

#[test]
fn what_a_config_does_not_have_is_removed_but_never_made() {
    let actions = actions_of(&policy(&whose("c"), &kinds(&example("aws-minimal"))));
    let may = |action: &str| actions.iter().any(|pattern| matches(pattern, action));
    assert!(!may("elasticloadbalancing:CreateLoadBalancer") && may("elasticloadbalancing:DeleteLoadBalancer"));
    assert!(!may("iam:CreateAccessKey") && may("iam:DeleteAccessKey"));
}

#[test]
fn nothing_is_changed_without_a_condition_or_a_narrow_resource() {
    for one in policy(&whose("c"), &all_kinds()).statement {
        let reads = |action: &str| ["Describe", "Get", "List", "Simulate"].iter().any(|word| name_of(action).starts_with(word));
        assert!(one.resource != ["*"] || one.action.iter().all(|action| reads(action)), "{one:?}");
    }
}

fn name_of(action: &str) -> &str {
    action.split(':').next_back().unwrap()
}

#[test]
fn every_kind_that_makes_something_says_so() {
    for row in crate::aws::resource::ROWS {
        let given = row.kind.name.starts_with("given") || row.kind.name.ends_with("rules");
        assert!(given || row.needs.iter().any(makes), "{}", row.kind.name);
    }
}

#[test]
fn an_unknown_account_is_any() {
    let anyone = Whose { account: "*".into(), ..whose("c") };
    let text = serde_json::to_string(&policy(&anyone, &all_kinds())).unwrap();
    assert!(text.contains("arn:aws:iam::*:role/kup/us-west-2/c/") && text.contains("arn:aws:s3:::kup-*-c/*"), "{text}");
    let china = Whose { partition: "aws-cn".into(), region: "cn-north-1".into(), ..whose("c") };
    let text = serde_json::to_string(&policy(&china, &all_kinds())).unwrap();
    assert!(text.contains("ec2.amazonaws.com.cn") && !text.contains("arn:aws:"), "{text}");
}
