//! What kup plans for AWS, what it asks IAM for, and what minions are told at boot, for the examples in `config/examples`, to the letter.
//!
//! Computed from the config and fixed surroundings, with nothing found: no AWS, and no emulator. `KUP_UPDATE_GOLDENS=1` writes the files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use kup::aws::Aws;
use kup::aws::client::Identity;
use kup::aws::layout::{Image, Surroundings, layout, minion};
use kup::aws::permissions::{self, Whose, policy};
use kup::aws::plan_view::View;
use kup::cluster::{Cluster, Source, load};
use kup::graph::{Plan, Verb};

const SCENARIOS: [&str; 5] = ["aws-minimal", "aws-three-zones", "aws-three-masters", "aws-existing-vpc", "aws-groups-spot"];
const REGION: &str = "us-west-2";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cluster(scenario: &str) -> Cluster {
    let file = root().join(format!("config/examples/{scenario}.yaml"));
    let mut cluster = load(Source { file: Some(file), ..Source::default() }).unwrap().cluster;
    // Wherever the tests run.
    cluster.aws.ssh_key = "/home/me/.ssh/kube_aws_rsa".into();
    cluster
}

fn around(cluster: &Cluster) -> Surroundings {
    let zones = if cluster.aws.zones.is_empty() { vec![format!("{REGION}a")] } else { cluster.aws.zones.clone() };
    Surroundings {
        account: "123456789012".into(),
        partition: "aws".into(),
        region: REGION.into(),
        s3_endpoint: None,
        zones,
        image: Image {
            id: "ami-0123456789abcdef0".into(),
            architecture: "x86_64".into(),
            root_device: "/dev/xvda".into(),
            user: "admin".into(),
        },
        caller: Some(Ipv4Addr::new(198, 51, 100, 7)),
        ssh_public: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJfHsPx0wYDKpGoHz0wWq0hCZcIqOAMmUJ8VhMnqVh9P".into(),
        missing: 5,
    }
}

/// Clients that nobody answers: planning a new cluster asks nothing.
fn aws(cluster: &str) -> Aws {
    let config = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::from_static(REGION))
        .build();
    let arn = "arn:aws:iam::123456789012:user/me".to_owned();
    let identity = Identity { account: "123456789012".into(), arn, partition: "aws".into() };
    Aws::of_config(&config, REGION, identity, cluster)
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// The files of a scenario, by name.
fn computed(scenario: &str) -> BTreeMap<String, String> {
    let cluster = cluster(scenario);
    let (around, aws) = (around(&cluster), aws(&cluster.name));
    let plan = Plan::new(layout(&cluster, &around).unwrap(), Vec::new(), &aws, |_| false).unwrap();
    assert!(plan.items.iter().all(|item| item.verb == Verb::Create), "nothing was found");
    let view = View::of(&plan, &cluster, &around, None).unwrap();
    let whose = Whose::of(&aws);
    let mut files = BTreeMap::from([
        ("plan.txt".to_owned(), view.text(Some(120), true) + "\n"),
        ("plan.json".to_owned(), pretty(&view)),
        ("policy.json".to_owned(), pretty(&policy(&whose, &permissions::kinds(&cluster)))),
    ]);
    for group in cluster.groups() {
        files.insert(format!("user-data-{}.sh", group.name), minion(&cluster, &around, &group).render().unwrap());
    }
    assert_eq!(aws.calls.sums(), (0, 0), "no call was made");
    files
}

fn golden(scenario: &str) -> PathBuf {
    root().join("tests/golden/aws").join(scenario.strip_prefix("aws-").unwrap())
}

#[test]
fn the_examples_are_planned_to_the_letter() {
    let mut wrong = Vec::new();
    for scenario in SCENARIOS {
        let (dir, files) = (golden(scenario), computed(scenario));
        if std::env::var_os("KUP_UPDATE_GOLDENS").is_some() {
            if dir.exists() {
                fs::remove_dir_all(&dir).unwrap();
            }
            fs::create_dir_all(&dir).unwrap();
            for (name, text) in &files {
                fs::write(dir.join(name), text).unwrap();
            }
        }
        let there: Vec<String> = match fs::read_dir(&dir) {
            Ok(entries) => entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
            Err(_) => Vec::new(),
        };
        wrong.extend(there.iter().filter(|name| !files.contains_key(*name)).map(|name| format!("{scenario}/{name} is no more")));
        for (name, text) in &files {
            let golden = fs::read_to_string(dir.join(name)).unwrap_or_default();
            if let Some((n, (is, was))) =
                text.lines().chain([""]).zip(golden.lines().chain([""])).enumerate().find(|(_, (a, b))| a != b)
            {
                wrong.push(format!("{scenario}/{name}:{}\n  was {was}\n  is  {is}", n + 1));
            } else if *text != golden {
                wrong.push(format!("{scenario}/{name} is longer or shorter"));
            }
        }
    }
    assert!(wrong.is_empty(), "KUP_UPDATE_GOLDENS=1 writes what is right now:\n{}", wrong.join("\n"));
}

#[test]
fn sums_are_those_of_the_lines() {
    for scenario in SCENARIOS {
        let cluster = cluster(scenario);
        let around = around(&cluster);
        let plan = Plan::new(layout(&cluster, &around).unwrap(), Vec::new(), &aws(&cluster.name), |_| false).unwrap();
        let json = serde_json::to_value(View::of(&plan, &cluster, &around, Some(42.5)).unwrap()).unwrap();
        let lines: f64 = json["actions"].as_array().unwrap().iter().filter_map(|line| line["costPerHour"].as_f64()).sum();
        let months: f64 = json["actions"].as_array().unwrap().iter().filter_map(|line| line["costPerMonth"].as_f64()).sum();
        assert!((months - lines * 730.0).abs() < 0.05, "{scenario}: {months} a month, {lines} an hour");
        let sum = json["cost"]["perHour"].as_f64().unwrap();
        let unknown = json["cost"]["unknown"].as_array().unwrap().len();
        assert!(if unknown == 0 { (sum - lines).abs() < 1e-4 } else { sum >= lines - 1e-4 }, "{scenario}: {sum}, {lines}");
        assert!((json["cost"]["perMonth"].as_f64().unwrap() - sum * 730.0).abs() < 0.01);
        assert_eq!(json["expectedSeconds"], 42.5);
        assert!(!serde_json::to_string(&json).unwrap().contains("AAAA"), "{scenario}: keys are no part of a plan");
    }
}

#[test]
fn a_plan_by_hand_costs_what_it_costs() {
    // One t3.medium with 20 GiB, an etcd volume of 20 GiB and an address; four t3.small with 32 GiB and an address each.
    let cluster = cluster("aws-minimal");
    let around = around(&cluster);
    let plan = Plan::new(layout(&cluster, &around).unwrap(), Vec::new(), &aws(&cluster.name), |_| false).unwrap();
    let view = View::of(&plan, &cluster, &around, None).unwrap();
    let hour = 0.0416 + 4.0 * 0.0208 + 5.0 * 0.005 + (20.0 + 20.0 + 4.0 * 32.0) * 0.08 / 730.0;
    assert!((view.cost.per_hour - hour).abs() < 1e-6, "{} is not {hour}", view.cost.per_hour);
    let text = view.text(Some(80), true);
    assert!(text.contains("costs about $0.168 an hour, $122.79 a month"), "{text}");
    assert!(!text.contains("/month"), "{text}");
    assert!(view.text(None, true).contains("$0.0438/h  $31.97/month  t3.medium"), "{}", view.text(None, true));
    // Narrow screens have whole tables too: only single words are longer.
    assert!(text.lines().take_while(|line| !line.is_empty()).all(|line| line.chars().count() <= 90), "{text}");
}

/// Nobody waits for what is not done.
#[test]
fn only_what_changes_something_takes_time() {
    let cluster = cluster("aws-minimal");
    let around = around(&cluster);
    let mut plan = Plan::new(layout(&cluster, &around).unwrap(), Vec::new(), &aws(&cluster.name), |_| false).unwrap();
    let said = |plan: &Plan<Aws>, seconds| View::of(plan, &cluster, &around, seconds).unwrap().text(None, true);
    assert!(said(&plan, None).ends_with("\nExpected time: unknown, there was no such run from here yet."));
    plan.items.iter_mut().for_each(|item| item.verb = Verb::Keep);
    assert!(said(&plan, None).ends_with("they are not estimated."), "{}", said(&plan, None));
    assert!(said(&plan, Some(2.0)).contains("\nExpected time: 2.0s"), "{}", said(&plan, Some(2.0)));
}
