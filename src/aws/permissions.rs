//! Which IAM action each call of each kind needs, and the least policy that follows: the table that `kup iam policy` prints from.

mod policy;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use policy::{Document, LARGEST, Statement, Whose, creates, operator, policy};

use super::resource::ROWS;
use super::{census, foreign, image, leftovers, lock, node_store, preflight, quota, simulate};
use crate::backup::store::bucket;
use crate::cluster::Cluster;
use crate::provider::aws::{first_login, kept, minions, secrets, shrink};

/// One action that a kind of resource needs of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Need {
    /// The IAM action: `ec2:CreateVpc`.
    pub action: &'static str,
    /// The call that needs it (`ec2:CreateVpc`), if it has another name or is implied by another (`iam:PassRole` by `ec2:RunInstances`).
    pub call: &'static str,
    /// What of the cluster the policy allows it on.
    pub scope: Scope,
    /// Whether kup can do without, and says so.
    pub optional: bool,
}

/// What an action is allowed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Anything: AWS knows no narrower scope for it (all of Describe).
    Any,
    /// What is being created with this cluster's tag.
    Creates,
    /// What carries this cluster's tag.
    Tagged,
    /// IAM entities below the cluster's path.
    IamPath,
    /// The cluster's bucket and what is in it.
    Bucket,
    /// Load balancers, target groups, listeners and Auto Scaling groups that carry this cluster's tag.
    Named,
    /// What Kubernetes made for this cluster's users, and tagged as the cluster's.
    Kubernetes,
}

/// An action of the same name as its call.
pub const fn need(action: &'static str, scope: Scope) -> Need {
    Need { action, call: action, scope, optional: false }
}

/// An action that a call of another name needs.
pub const fn implied(action: &'static str, call: &'static str, scope: Scope) -> Need {
    Need { action, call, scope, optional: false }
}

/// An action that kup can do without.
pub const fn optional(action: &'static str, scope: Scope) -> Need {
    Need { action, call: action, scope, optional: true }
}

/// What logging in calls.
pub const LOGIN: &[Need] = &[need("sts:GetCallerIdentity", Scope::Any)];

/// What is needed beside the kinds of things, and by what.
pub const OTHERS: &[(&str, &[Need])] = &[
    ("login", LOGIN),
    ("preflight", preflight::NEEDS),
    ("image", image::NEEDS),
    ("quotas", quota::NEEDS),
    ("permissions", simulate::NEEDS),
    ("lock", lock::NEEDS),
    ("kept config", kept::NEEDS),
    ("keys", secrets::NEEDS),
    ("first login", first_login::NEEDS),
    ("minions joining", minions::NEEDS),
    ("minions leaving", shrink::NEEDS),
    ("what minions start from", node_store::NEEDS),
    ("backups", bucket::NEEDS),
    ("census", census::NEEDS),
    ("foreign things", foreign::NEEDS),
    ("made by Kubernetes", leftovers::NEEDS),
];

/// One action, and all that needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// The action.
    pub action: &'static str,
    /// What it is allowed on.
    pub scope: Scope,
    /// The calls that need it.
    pub calls: BTreeSet<&'static str>,
    /// The kinds of things whose code makes these calls.
    #[serde(rename = "neededBy")]
    pub kinds: BTreeSet<&'static str>,
    /// Whether kup can do without.
    pub optional: bool,
}

/// All that is needed for clusters that are made of these kinds, ordered by action.
///
/// Things of other kinds are never made, but may be there since the config was another: they are found, changed and removed.
pub fn requirements(kinds: &BTreeSet<&'static str>) -> Vec<Requirement> {
    let rows = ROWS.iter().map(|row| (row.kind.name, row.needs, kinds.contains(row.kind.name)));
    let others = OTHERS.iter().map(|(name, needs)| (*name, *needs, true));
    let mut all: BTreeMap<(&str, Scope), Requirement> = BTreeMap::new();
    for (kind, needs, made) in rows.chain(others) {
        for need in needs.iter().filter(|need| made || !makes(need)) {
            let Need { action, call, scope, optional } = *need;
            let new = || Requirement { action, scope, calls: BTreeSet::new(), kinds: BTreeSet::new(), optional: true };
            let one = all.entry((action, scope)).or_insert_with(new);
            one.calls.insert(call);
            one.kinds.insert(kind);
            one.optional &= optional;
        }
    }
    all.into_values().collect()
}

/// The action that a call needs, if the table knows the call: `s3:DeleteObject` for `s3:DeleteObjects`.
pub fn action_of(call: &str) -> Option<&'static str> {
    let needs = ROWS.iter().flat_map(|row| row.needs).chain(OTHERS.iter().flat_map(|(_, needs)| *needs));
    let of: Vec<&Need> = needs.filter(|need| need.call == call).collect();
    // Of several that one call needs, the one of its own name is what it is mostly about.
    of.iter().find(|need| need.action == call).or(of.first()).map(|need| need.action)
}

/// Whether it is only needed for making something.
fn makes(need: &Need) -> bool {
    let call = need.call.split(':').next_back().unwrap_or_default();
    need.scope == Scope::Creates || ["Create", "Run", "Allocate", "Import"].iter().any(|word| call.starts_with(word))
}

/// The kinds that a cluster of this config is made of.
pub fn kinds(cluster: &Cluster) -> BTreeSet<&'static str> {
    let own = cluster.aws.vpc.id.is_none();
    let several = cluster.masters.count > 1;
    all_kinds()
        .into_iter()
        .filter(|kind| match *kind {
            "vpc" | "subnet" | "internet gateway" | "route table" | "s3 endpoint" => own,
            "dhcp options" => own && cluster.aws.vpc.domain.is_some(),
            "given vpc" | "given subnet" => !own,
            "load balancer" | "target group" | "listener" => several,
            "access key" => cluster.aws.operator.access_key,
            _ => true,
        })
        .collect()
}

/// All kinds there are.
pub fn all_kinds() -> BTreeSet<&'static str> {
    ROWS.iter().map(|row| row.kind.name).collect()
}
