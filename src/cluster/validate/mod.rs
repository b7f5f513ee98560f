//! What types can't say: every rule that a cluster must keep, each with the value's place and the fix.
//!
//! A rule is skipped if a field that it reads could not be read, so that one mistake is told once.

mod aws;
mod groups;
pub(super) mod names;
pub mod ranges;
mod registries;

pub use aws::{MAX_ZONES, notes};

use std::collections::{BTreeMap, BTreeSet};

use super::Cluster;
use super::problem::{Origin, Problem, did_you_mean, quoted};
use super::spec::{API_VERSION, KIND, PortRange};
use super::versions::Releases;

/// The most masters: etcd's own documentation advises against more than seven members, since each write waits for a majority.
pub const MAX_MASTERS: u16 = 7;

/// A node's /24 has 254 addresses for hosts, of which its bridge takes one.
const MOST_PODS: u16 = 253;

/// Room for both CoreDNS replicas on a cluster of one node, for a few add-ons, and for something of the user's.
const FEWEST_PODS: u16 = 10;

/// TCP and UDP ports that every node or every master already uses: those of kubeadm's list of ports and protocols, SSH, DNS, and
/// flannel's vxlan.
const TAKEN_PORTS: [(u16, u16, &str); 9] = [
    (22, 22, "SSH"),
    (53, 53, "DNS"),
    (2379, 2381, "etcd"),
    (6443, 6443, "the API server"),
    (8472, 8472, "flannel"),
    (10248, 10250, "kubelet and kube-proxy"),
    (10256, 10256, "kube-proxy"),
    (10257, 10257, "the controller-manager"),
    (10259, 10259, "the scheduler"),
];

/// Everything that is wrong with a cluster whose types are right. `bad` names the fields that still hold their default because what
/// was written could not be read.
pub fn problems(
    cluster: &Cluster,
    origins: &BTreeMap<String, Origin>,
    bad: &BTreeSet<String>,
    releases: &Releases,
) -> Vec<Problem> {
    let mut check = Check { cluster, origins, bad, problems: Vec::new() };
    check.format();
    check.version(releases);
    check.names();
    check.counts();
    check.ports();
    check.ranges();
    check.capacity();
    check.registries();
    check.aws();
    check.problems
}

/// What is wrong with the words of a config that go into scripts and units on machines, and into names.
pub fn words(cluster: &Cluster) -> Vec<Problem> {
    let (origins, bad) = (BTreeMap::new(), BTreeSet::new());
    let mut check = Check { cluster, origins: &origins, bad: &bad, problems: Vec::new() };
    check.names();
    if !cluster.kubernetes.version.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b)) {
        let what = format!("{} is no version", quoted(&cluster.kubernetes.version));
        check.problem(&["kubernetes.version"], what, "write one like 1.37.1".into());
    }
    check.words_of_aws();
    check.problems
}

struct Check<'a> {
    cluster: &'a Cluster,
    origins: &'a BTreeMap<String, Origin>,
    bad: &'a BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Whether all of these fields could be read.
    fn readable(&self, paths: &[&str]) -> bool {
        !paths.iter().any(|path| self.bad.contains(*path))
    }

    /// Notes a problem at the first of these fields that the user set, or at the first of all.
    fn problem(&mut self, paths: &[&str], what: String, fix: String) {
        let origin = |path: &str| self.origins.get(path).cloned().unwrap_or(Origin::Default);
        let set = paths.iter().find(|path| origin(path) != Origin::Default).or(paths.first());
        let path = set.copied().unwrap_or_default();
        self.problems.push(Problem { origin: origin(path), path: path.to_owned(), what, fix });
    }

    fn format(&mut self) {
        for (path, value, only) in [("apiVersion", &self.cluster.api_version, API_VERSION), ("kind", &self.cluster.kind, KIND)] {
            if value != only {
                let what = format!("{} is not a format that this kup reads", quoted(value));
                self.problem(&[path], what, format!("write `{path}: {only}`"));
            }
        }
    }

    fn version(&mut self, releases: &Releases) {
        let version = &self.cluster.kubernetes.version;
        if releases.knows(version) {
            return;
        }
        let versions = releases.versions();
        let bare = version.trim().trim_start_matches(['v', 'V']);
        let newest_patch = |v: &&&str| v.strip_prefix(bare).is_some_and(|rest| rest.starts_with('.'));
        let meant = versions.iter().find(|v| **v == bare).or_else(|| versions.iter().find(newest_patch)).copied();
        let meant = meant.or_else(|| did_you_mean(bare, versions.iter().copied()));
        let known = format!("this kup knows {}", versions.join(", "));
        let fix = meant.map_or(known.clone(), |meant| format!("did you mean `{meant}`? ({known})"));
        self.problem(
            &["kubernetes.version"],
            format!("{} is not a Kubernetes version that this kup builds", quoted(version)),
            fix,
        );
    }

    fn counts(&mut self) {
        let masters = self.cluster.masters.count;
        let lower = |n: u16| (if n.is_multiple_of(2) { n.saturating_sub(1) } else { n }).clamp(1, MAX_MASTERS);
        let path = &["masters.count"];
        if masters == 0 {
            self.problem(path, "a cluster without a master runs nothing".into(), "write 1".into());
        } else if masters.is_multiple_of(2) {
            let what = format!(
                "{masters} is an even number of masters: etcd needs a majority, so that {masters} bear no more failures than {}",
                masters - 1
            );
            self.problem(path, what, format!("write {}", lower(masters)));
        } else if masters > MAX_MASTERS {
            self.problem(
                path,
                format!("{masters} are too many: etcd slows down with each member beyond {MAX_MASTERS}"),
                format!("write {}", lower(masters)),
            );
        }
        let pods = self.cluster.kubernetes.max_pods;
        if !(FEWEST_PODS..=MOST_PODS).contains(&pods) {
            let why = if pods > MOST_PODS { "a node's /24 has no more addresses" } else { "the cluster's own pods need some" };
            let what = format!("{pods} is not from {FEWEST_PODS} to {MOST_PODS}: {why}");
            self.problem(&["kubernetes.maxPods"], what, format!("write {}", pods.clamp(FEWEST_PODS, MOST_PODS)));
        }
    }

    fn ports(&mut self) {
        let range @ PortRange { first, last } = self.cluster.kubernetes.service_node_port_range;
        let clash: Vec<String> = TAKEN_PORTS
            .iter()
            .filter(|(low, high, _)| *low <= last && first <= *high)
            .map(|(low, high, user)| if low == high { format!("{low} ({user})") } else { format!("{low}-{high} ({user})") })
            .collect();
        if !clash.is_empty() {
            let what = format!("{} covers ports that nodes use themselves: {}", String::from(range), clash.join(", "));
            self.problem(&["kubernetes.serviceNodePortRange"], what, "write a range without them, like 30000-32767".into());
        }
    }
}
