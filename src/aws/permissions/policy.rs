//! The least policy for one cluster: actions, sorted into statements by what they are allowed on.
//!
//! Which types of resources an action touches, and which condition keys it knows, is from AWS's Service Authorization Reference
//! (<https://docs.aws.amazon.com/service-authorization/latest/reference/>: "Actions, resources, and condition keys for Amazon EC2", "…AWS Elastic
//! Load Balancing V2", "…Amazon EC2 Auto Scaling", "…AWS Identity and Access Management (IAM)", "…Amazon S3"). Only its words were read: no
//! emulator evaluates conditions.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Requirement, Scope, all_kinds, requirements};
use crate::aws::{Aws, client, tags};

/// The longest managed policy that IAM takes, in characters that are not white space.
pub const LARGEST: usize = 6144;

/// Which cluster a policy is for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The cluster's name.
    pub cluster: String,
    /// Its region.
    pub region: String,
    /// Its account, or `*` where that is not known.
    pub account: String,
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
}

impl Whose {
    /// The cluster of these clients.
    pub fn of(aws: &Aws) -> Whose {
        Whose {
            cluster: aws.cluster.clone(),
            region: aws.region.clone(),
            account: aws.identity.account.clone(),
            partition: aws.identity.partition.clone(),
        }
    }

    /// The beginning of the ARNs of a service in the region: `arn:aws:ec2:us-west-2:123456789012`.
    pub fn regional(&self, service: &str) -> String {
        format!("arn:{}:{service}:{}:{}", self.partition, self.region, self.account)
    }

    /// The beginning of the ARNs of a service without regions: `arn:aws:iam::123456789012`.
    pub fn global(&self, service: &str) -> String {
        format!("arn:{}:{service}::{}", self.partition, self.account)
    }

    /// The cluster's bucket.
    pub fn arn_of_bucket(&self) -> String {
        let bucket = match self.account.as_str() {
            "*" => format!("kup-*-{}", self.cluster),
            account => client::bucket(account, &self.region, &self.cluster),
        };
        format!("arn:{}:s3:::{bucket}", self.partition)
    }

    /// The cluster's IAM entities of a kind: `role`, `user`.
    fn below_path(&self, kind: &str) -> String {
        format!("{}:{kind}/kup/{}/{}/*", self.global("iam"), self.region, self.cluster)
    }
}

/// An IAM policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    /// Of the language: always the newest.
    pub version: &'static str,
    /// What is allowed.
    pub statement: Vec<Statement>,
}

/// One part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// What it is about.
    pub sid: &'static str,
    /// Always `Allow`.
    pub effect: &'static str,
    /// The actions: those that look, and those that remove what is the cluster's, as one pattern a service.
    pub action: Vec<String>,
    /// On what.
    pub resource: Vec<String>,
    /// If what.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub condition: Value,
}

/// What creations touch beside what they create: what they put it into, or take for it. No tag of the request counts on these.
const TOUCHED: &[(&str, &[&str])] = &[
    ("ec2:CreateNetworkInterface", &["subnet", "security-group"]),
    ("ec2:CreateRouteTable", &["vpc"]),
    ("ec2:CreateSecurityGroup", &["vpc"]),
    ("ec2:CreateSubnet", &["vpc"]),
    ("ec2:CreateVpcEndpoint", &["vpc", "route-table"]),
    // Rules need nothing but their group's tag, unless they are tagged themselves.
    ("ec2:AuthorizeSecurityGroupEgress", &["security-group-rule"]),
    ("ec2:AuthorizeSecurityGroupIngress", &["security-group-rule"]),
    ("ec2:RunInstances", &["image", "key-pair", "launch-template", "network-interface", "security-group", "subnet"]),
];

/// The parts of a policy, in the order in which they are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Look,
    Parameters,
    Make,
    TagWhatIsMade,
    TagRules,
    TagBalancers,
    Change,
    Sweep,
    Share,
    Iam,
    PassRoles,
    LinkedRoles,
    Bucket,
}

/// One action, for one of the calls that need it.
#[derive(Debug, Clone, Copy)]
struct Use {
    action: &'static str,
    call: &'static str,
    scope: Scope,
}

impl Use {
    fn part(self) -> Part {
        let creates = creates(self.call, self.scope);
        match (self.action, self.scope) {
            ("iam:PassRole", _) => Part::PassRoles,
            ("iam:CreateServiceLinkedRole", _) => Part::LinkedRoles,
            ("ssm:GetParameter" | "ssm:GetParameters" | "ssm:GetParametersByPath", _) => Part::Parameters,
            ("ec2:CreateTags" | "ec2:DeleteTags", Scope::Any) => Part::Share,
            ("ec2:CreateTags", _) if creates && self.call == self.action => Part::TagRules,
            ("ec2:CreateTags", _) if creates => Part::TagWhatIsMade,
            ("elasticloadbalancing:AddTags", _) if creates => Part::TagBalancers,
            _ if creates => Part::Make,
            (_, Scope::Any) => Part::Look,
            (_, Scope::Creates | Scope::Tagged | Scope::Named) => Part::Change,
            (_, Scope::Kubernetes) => Part::Sweep,
            (_, Scope::IamPath) => Part::Iam,
            (_, Scope::Bucket) => Part::Bucket,
        }
    }
}

/// Whether a call of this scope makes things, and tags them as it does.
pub fn creates(call: &str, scope: Scope) -> bool {
    // The name misleads: groups that are there get new tags.
    let named = ["Create", "Run"].iter().any(|word| name(call).starts_with(word)) && call != "autoscaling:CreateOrUpdateTags";
    scope == Scope::Creates || scope == Scope::Named && named
}

/// A call's or an action's name without its service.
fn name(call: &str) -> &str {
    call.split_once(':').map_or(call, |(_, name)| name)
}

/// The least policy that makes, runs and removes a cluster of these kinds.
pub fn policy(whose: &Whose, kinds: &BTreeSet<&'static str>) -> Document {
    document(whose, &requirements(kinds))
}

/// The policy of the cluster's operator: all that running it takes, whatever it is made of, but nothing that writes IAM.
pub fn operator(whose: &Whose) -> Document {
    let mut all = requirements(&all_kinds());
    all.retain(|requirement| !writes_iam(requirement.action));
    document(whose, &all)
}

/// Passing a role on is how machines are started, and gives nobody more than that role may do.
fn writes_iam(action: &str) -> bool {
    let reads = ["Get", "List", "Simulate", "PassRole"];
    action.strip_prefix("iam:").is_some_and(|name| !reads.iter().any(|word| name.starts_with(word)))
}

fn document(whose: &Whose, all: &[Requirement]) -> Document {
    let each =
        |one: &Requirement| one.calls.iter().map(|call| Use { action: one.action, call, scope: one.scope }).collect::<Vec<_>>();
    let uses: Vec<Use> = all.iter().flat_map(each).collect();
    let of = |part: Part| -> Vec<Use> { uses.iter().copied().filter(|one| one.part() == part).collect() };
    let mut statement = Vec::new();
    let mut add = |sid, action: Vec<&'static str>, resource: Vec<String>, condition: Value| {
        if !action.is_empty() {
            statement.push(Statement { sid, effect: "Allow", action: squeezed(&action, resource == ["*"]), resource, condition });
        }
    };
    let cluster = whose.cluster.as_str();
    let anything = || vec!["*".to_owned()];
    add("Look", actions(&of(Part::Look)), anything(), Value::Null);
    let parameters = format!("arn:{}:ssm:{}::parameter/aws/service/*", whose.partition, whose.region);
    add("Images", actions(&of(Part::Parameters)), vec![parameters], Value::Null);

    let make = actions(&of(Part::Make));
    let tagged = json!({"StringEquals": {format!("aws:RequestTag/{}", tags::CLUSTER): cluster}});
    add("Make", make.clone(), regions(whose, &make), tagged);
    let change = actions(&of(Part::Change));
    let (touching, types) = touched(make.iter().chain(&change));
    add("MakeOf", touching, types.into_iter().map(|kind| type_of(whose, kind)).collect(), Value::Null);
    let (made, ec2) = (of(Part::TagWhatIsMade), whose.regional("ec2"));
    add("TagMade", actions(&made), vec![format!("{ec2}:*/*")], json!({"StringLike": {"ec2:CreateAction": "*"}}));
    let rules = json!({"StringEquals": {format!("aws:RequestTag/{}", tags::CLUSTER): cluster}});
    add("TagRules", actions(&of(Part::TagRules)), vec![format!("{ec2}:security-group-rule/*")], rules);
    let (balancers, elb) = (of(Part::TagBalancers), whose.regional("elasticloadbalancing"));
    let by = json!({"StringLike": {"elasticloadbalancing:CreateAction": "*"}});
    add("TagElb", actions(&balancers), vec![format!("{elb}:*/*")], by);
    let tagged = json!({"StringEquals": {format!("aws:ResourceTag/{}", tags::CLUSTER): cluster}});
    add("Change", change.clone(), regions(whose, &change), tagged);
    let sweep = actions(&of(Part::Sweep));
    let owned = json!({"StringEquals": {format!("aws:ResourceTag/kubernetes.io/cluster/{cluster}"): "owned"}});
    add("Sweep", sweep.clone(), regions(whose, &sweep), owned);
    let keys = [format!("kup.dev/shared/{cluster}"), format!("kubernetes.io/cluster/{cluster}")];
    let shared = vec![format!("{ec2}:vpc/*"), format!("{ec2}:subnet/*")];
    add("Share", actions(&of(Part::Share)), shared, json!({"ForAllValues:StringEquals": {"aws:TagKeys": keys}}));

    let entities = ["role", "instance-profile", "user", "policy"].map(|kind| whose.below_path(kind)).to_vec();
    add("Iam", actions(&of(Part::Iam)), entities, Value::Null);
    let ec2 = ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"][usize::from(whose.partition == "aws-cn")];
    let to = json!({"StringEquals": {"iam:PassedToService": ec2}});
    // Of a cluster's roles there are only its masters' and its minions'.
    let roles = vec![whose.below_path("role")];
    add("Pass", actions(&of(Part::PassRoles)), roles, to);
    let linked = of(Part::LinkedRoles);
    let services = linked_services(&linked);
    let paths = vec![format!("{}:role/aws-service-role/*", whose.global("iam"))];
    add("Linked", actions(&linked), paths, json!({"StringEquals": {"iam:AWSServiceName": services}}));
    let bucket = whose.arn_of_bucket();
    add("Bucket", actions(&of(Part::Bucket)), vec![bucket.clone(), format!("{bucket}/*")], Value::Null);
    Document { version: "2012-10-17", statement }
}

fn actions(uses: &[Use]) -> Vec<&'static str> {
    uses.iter().map(|one| one.action).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The first words of actions that are put together where there are several, since a policy has no room for all of them: those that tell
/// nothing secret, and those that come with a condition or a narrow resource, so that they find nothing but what is the cluster's.
const TOGETHER: [&str; 8] = ["Associate", "Delete", "Describe", "Detach", "Disassociate", "Modify", "Put", "Tag"];

/// As [`TOGETHER`], but never on anything.
const NARROW: [&str; 2] = ["Get", "List"];

fn squeezed(actions: &[&'static str], on_anything: bool) -> Vec<String> {
    let pattern = |action: &&'static str| {
        let mut verbs = TOGETHER.iter().chain(NARROW.iter().filter(|_| !on_anything)).copied();
        let verb = verbs.find(|verb| name(action).starts_with(verb))?;
        let service = action.split(':').next()?;
        Some(format!("{service}:{verb}*"))
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for together in actions.iter().filter_map(pattern) {
        *counts.entry(together).or_default() += 1;
    }
    let shortest = |action: &&'static str| match pattern(action) {
        Some(together) if counts.get(&together).is_some_and(|count| *count > 1) => together,
        _ => (*action).to_owned(),
    };
    actions.iter().map(shortest).collect::<BTreeSet<_>>().into_iter().collect()
}

/// All resources of the services of these actions, in the cluster's region.
fn regions(whose: &Whose, actions: &[&'static str]) -> Vec<String> {
    let services: BTreeSet<&str> = actions.iter().filter_map(|action| action.split(':').next()).collect();
    let kinds = |service: &str| if service == "autoscaling" { "autoScalingGroup:*" } else { "*/*" };
    services.into_iter().map(|service| format!("{}:{}", whose.regional(service), kinds(service))).collect()
}

/// Those of these actions that touch more than they create, and the types of that.
fn touched<'a>(actions: impl Iterator<Item = &'a &'static str>) -> (Vec<&'static str>, BTreeSet<&'static str>) {
    let actions: BTreeSet<&str> = actions.copied().collect();
    let rows: Vec<_> = TOUCHED.iter().filter(|(action, _)| actions.contains(action)).collect();
    let mut names: Vec<&'static str> = rows.iter().map(|(action, _)| *action).collect();
    names.sort_unstable();
    (names, rows.iter().flat_map(|(_, types)| *types).copied().collect())
}

fn type_of(whose: &Whose, kind: &str) -> String {
    match kind {
        // Images have no account in their ARN.
        "image" => format!("arn:{}:ec2:*::image/*", whose.partition),
        // No region and account, for brevity: what is created is of this region, and can only touch what is there too.
        _ => format!("arn:{}:ec2:*:*:{kind}/*", whose.partition),
    }
}

/// The services whose own roles AWS makes when an account first uses them.
fn linked_services(uses: &[Use]) -> BTreeSet<&'static str> {
    let of = |one: &Use| match one.call.split(':').next() {
        Some("elasticloadbalancing") => &["elasticloadbalancing.amazonaws.com"][..],
        Some("autoscaling") => &["autoscaling.amazonaws.com", "spot.amazonaws.com"][..],
        _ => &["spot.amazonaws.com"][..],
    };
    uses.iter().flat_map(of).copied().collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
