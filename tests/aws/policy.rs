//! What `kup iam policy` prints is enough, and none of it is too much: nothing else is called, moto's own IAM lets it through, and what the
//! examples may do is done in the lives of their clusters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::foreign::{LOOKING, help, network};
use super::story::{UP, difference, down};
use super::user::Account;
use crate::ensure;
use crate::support::Check;
use crate::support::cluster::Output;

/// One line of the table that the policy is printed from.
pub struct Allowed {
    /// The action.
    pub action: String,
    /// The calls that need it.
    pub calls: BTreeSet<String>,
    /// Whether kup can do without.
    pub optional: bool,
}

/// The table for the cluster that these flags mean.
pub async fn table(account: &Account, config: &[&str]) -> Check<Vec<Allowed>> {
    let said = account.kup(&[&["iam", "policy", "--explain", "-o", "json"], config].concat()).await?;
    let rows: Vec<Value> = serde_json::from_str(&said.ok("kup iam policy --explain")?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| Allowed {
        action: text(&row["action"]),
        calls: row["calls"].as_array().into_iter().flatten().map(text).collect(),
        optional: row["optional"] == true,
    };
    Ok(rows.iter().map(row).collect())
}

/// Whether moto's IAM counts: it can't judge conditions, and knows few resources.
async fn enforce(account: &Account, on: bool) -> Check {
    let count = if on { "0" } else { "inf" };
    let url = format!("{}/moto-api/reset-auth", account.url);
    let answer = reqwest::Client::builder().no_proxy().build()?.post(url).body(count).send().await?;
    ensure!(answer.status().is_success(), "moto answers {}", answer.status());
    Ok(())
}

/// A user who may do what the printed policy says, less one action; its key.
async fn user(account: &Account, name: &str, policy: &Value, without: &str) -> Check<(String, String)> {
    let iam = account.iam().await;
    let actions: BTreeSet<&str> = policy["Statement"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|statement| statement["Effect"] == "Allow")
        .flat_map(|statement| match &statement["Action"] {
            Value::String(one) => vec![one.as_str()],
            many => many.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        })
        .filter(|action| *action != without)
        .collect();
    let document = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }] });
    iam.create_user().user_name(name).send().await?;
    iam.put_user_policy().user_name(name).policy_name("kup").policy_document(document.to_string()).send().await?;
    let key = iam.create_access_key().user_name(name).send().await?;
    let key = key.access_key().ok_or("no access key")?;
    Ok((key.access_key_id().to_owned(), key.secret_access_key().to_owned()))
}

pub async fn it_is_enough_where_iam_is_enforced(account: Account) -> Check {
    let name = "allowed";
    let printed = account.kup(&["iam", "policy", "--provider", "aws", "--name", name]).await?.ok("kup iam policy")?;
    let policy: Value = serde_json::from_str(&printed)?;
    let (key, secret) = user(&account, "somebody", &policy, "").await?;
    let (poor, poor_secret) = user(&account, "nearly", &policy, "ec2:CreateVpc").await?;
    let before = account.dump().await?;
    let run = async |(key, secret): (&str, &str), arguments: &[&str]| -> Check<Output> {
        let variables = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
        enforce(&account, true).await?;
        let outcome = account.kup_with(&variables, arguments).await;
        enforce(&account, false).await?;
        outcome
    };
    let arguments = [&UP[..], &[name]].concat();
    let removal = ["down", "--provider", "aws", "-y", "--name", name];
    let denied = run((&poor, &poor_secret), &arguments).await?;
    ensure!(
        denied.code == Some(4) && denied.stderr.contains("ec2:CreateVpc"),
        "an action was taken away: {:?}\n{}{}",
        denied.code,
        denied.stdout,
        denied.stderr
    );
    run((&key, &secret), &arguments).await?.ok("kup up by one who may do what kup iam policy says")?;
    run((&key, &secret), &removal).await?.ok("kup down by the same")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// The examples of which there are golden policies, and what each needs here beside its file.
const EXAMPLES: [&str; 5] = ["aws-minimal", "aws-three-zones", "aws-three-masters", "aws-existing-vpc", "aws-groups-spot"];

/// What none of these lives needs, but the repair or the end of another cluster may, by when that is. Each of these calls is made somewhere
/// in the sources: a test of the table sees to that.
const OTHERWISE: &[(&str, &[&str])] = &[
    ("pods are moved from minions before these go", &["autoscaling:TerminateInstanceInAutoScalingGroup"]),
    ("a VPC gets another domain", &["ec2:AssociateDhcpOptions", "ec2:DeleteDhcpOptions"]),
    ("a master that was lost still has its volume", &["ec2:DetachVolume"]),
    ("a master does not answer to its host key", &["ec2:GetConsoleOutput"]),
    (
        "somebody has changed the network or the balancer",
        &[
            "ec2:ModifyNetworkInterfaceAttribute",
            "ec2:ModifyVpcEndpoint",
            "ec2:ReplaceRoute",
            "elasticloadbalancing:DeregisterTargets",
            "elasticloadbalancing:ModifyListener",
            "elasticloadbalancing:SetSecurityGroups",
            "elasticloadbalancing:SetSubnets",
        ],
    ),
    (
        "policies or roles are others than they were, or a call that made one has lost its answer",
        &[
            "iam:CreatePolicyVersion",
            "iam:DeletePolicyVersion",
            "iam:GetInstanceProfile",
            "iam:GetPolicy",
            "iam:GetRole",
            "iam:GetUser",
            "iam:ListPolicyVersions",
            "iam:UpdateAssumeRolePolicy",
        ],
    ),
    (
        "people have given roles and users what emulators let go without a word",
        &[
            "iam:DeactivateMFADevice",
            "iam:DeleteSSHPublicKey",
            "iam:DeleteServiceSpecificCredential",
            "iam:DeleteSigningCertificate",
            "iam:DetachGroupPolicy",
            "iam:DetachRolePolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListEntitiesForPolicy",
            "iam:ListInstanceProfilesForRole",
            "iam:ListMFADevices",
            "iam:ListRolePolicies",
            "iam:ListSSHPublicKeys",
            "iam:ListServiceSpecificCredentials",
            "iam:ListSigningCertificates",
        ],
    ),
    ("somebody's upload has broken off", &["s3:AbortMultipartUpload"]),
];

pub async fn nothing_that_the_examples_may_do_is_unused(account: Account) -> Check {
    let (vpc, subnet) = network(&account.ec2().await, "10.9.0.0/16", "10.9.1.0/24", &[]).await?;
    let policy = account.iam().await.create_policy().policy_name("of-a-person").policy_document(LOOKING).send().await?;
    let policy = policy.policy().and_then(|p| p.arn()).ok_or("no policy")?.to_owned();
    let before = account.dump().await?;
    let given = [format!("aws.vpc.id={vpc}"), format!("aws.vpc.subnets=[{subnet}]")];
    let mut may: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut known, mut called): (BTreeSet<String>, BTreeSet<String>) = Default::default();
    for example in EXAMPLES {
        let file = format!("{}/config/examples/{example}.yaml", env!("CARGO_MANIFEST_DIR"));
        let mut config = vec!["--provider", "aws", "-f", file.as_str(), "--set", "aws.image=al2023"];
        if example == "aws-existing-vpc" {
            config.extend(["--set", given[0].as_str(), "--set", given[1].as_str(), "--set", "aws.zones=[]"]);
        }
        for row in table(&account, &config).await? {
            known.extend(row.calls.iter().cloned());
            if !row.optional {
                may.entry(row.action).or_default().extend(row.calls);
            }
        }
        account.wire.clear();
        let made = account.kup(&[&["up", "--until", "infrastructure", "-y"], &config[..]].concat()).await?;
        made.ok(&format!("kup up of {example}"))?;
        if example == "aws-minimal" {
            lived(&account, example, &config, &policy).await?;
        }
        // The examples' clusters are called as they are.
        down(&account, example).await?.ok(&format!("kup down of {example}"))?;
        called.extend(account.wire.counts().into_keys());
    }
    let unknown: Vec<&String> = called.difference(&known).collect();
    ensure!(unknown.is_empty(), "the policies have nothing for {unknown:?}");
    let unused: BTreeSet<&str> =
        may.iter().filter(|(_, calls)| calls.is_disjoint(&called)).map(|(action, _)| action.as_str()).collect();
    let excused: BTreeSet<&str> = OTHERWISE.iter().flat_map(|(_, actions)| *actions).copied().collect();
    ensure!(
        unused == excused,
        "used by nothing: {:?}; used after all: {:?}",
        unused.difference(&excused).collect::<Vec<_>>(),
        excused.difference(&unused).collect::<Vec<_>>()
    );
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// A cluster's life between its beginning and its end: it grows, its master is stopped, and people give its user what they need.
async fn lived(account: &Account, name: &str, config: &[&str], policy: &str) -> Check {
    let ec2 = account.ec2().await;
    let master = aws_sdk_ec2::types::Filter::builder().name("tag:kup.dev/role").values("master").build();
    let masters = ec2.describe_instances().filters(master).send().await?;
    let masters = masters.reservations().iter().flat_map(|r| r.instances()).filter_map(|i| i.instance_id().map(str::to_owned));
    ec2.stop_instances().set_instance_ids(Some(masters.collect())).send().await?;
    help(&account.iam().await, name, policy, LOOKING).await?;
    let change = ["--minions", "3", "--set", "aws.etcdVolume=30", "--set", "aws.minions.rootVolume=40"];
    let grown = account.kup(&[&["up", "--until", "infrastructure", "-y"], config, &change[..]].concat()).await?;
    grown.ok(&format!("kup up of {name} with changes"))?;
    Ok(())
}
