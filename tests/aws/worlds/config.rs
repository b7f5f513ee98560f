//! Configs as people might write them, each valid, and whether a cluster that was made with one can become what another says.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::user::REGION;

/// The zones that have every one of the types below.
pub const ZONES: [&str; 3] = ["a", "b", "c"];

/// A config, as far as these tests vary it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    arm: bool,
    image: &'static str,
    /// The zones by their letters; none to let kup choose.
    zones: Vec<&'static str>,
    pub masters: usize,
    master_types: Vec<&'static str>,
    master_root: u32,
    etcd: u32,
    minions: Minions,
    ssh: Vec<&'static str>,
    api: Vec<&'static str>,
    network: Network,
    pods: &'static str,
    private: bool,
    key: bool,
}

/// Minions that are counted, or groups of them.
#[derive(Debug, Clone, PartialEq)]
enum Minions {
    Counted { count: u32, types: Vec<&'static str>, root: u32 },
    Groups(BTreeMap<&'static str, Group>),
}

#[derive(Debug, Clone, PartialEq)]
struct Group {
    types: Vec<&'static str>,
    count: u32,
    /// How far below and above it may be scaled, if anything is said of that.
    bounds: Option<(u32, u32)>,
    root: Option<u32>,
    labels: Vec<&'static str>,
    taints: Vec<&'static str>,
    spot: u32,
}

/// The cluster's own, or one that is there already.
#[derive(Debug, Clone, PartialEq)]
enum Network {
    Own {
        cidr: &'static str,
        domain: Option<&'static str>,
    },
    /// Its subnets by the letters of their zones.
    Given(Vec<&'static str>),
}

/// The ids of a VPC that is there already, and of its subnets by the letters of their zones.
#[derive(Debug, Clone, Default)]
pub struct There {
    pub vpc: String,
    pub subnets: BTreeMap<&'static str, String>,
}

impl Config {
    /// Whether it wants a VPC that is there already.
    pub fn wants_given(&self) -> bool {
        matches!(self.network, Network::Given(_))
    }

    /// How many minions there are to be.
    pub fn minion_count(&self) -> u32 {
        match &self.minions {
            Minions::Counted { count, .. } => *count,
            Minions::Groups(groups) => groups.values().map(|group| group.count).sum(),
        }
    }

    /// How many subnets of its own.
    pub fn own_subnets(&self) -> usize {
        if self.wants_given() { 0 } else { self.zones.len().max(1) }
    }

    /// As a file.
    pub fn file(&self, name: &str, there: &There) -> Value {
        let zone = |letter: &&str| format!("{REGION}{letter}");
        let (first, others) = self.master_types.split_first().unwrap_or((&"", &[]));
        let vpc = match &self.network {
            Network::Own { cidr, domain: None } => json!({ "cidr": cidr }),
            Network::Own { cidr, domain: Some(domain) } => json!({ "cidr": cidr, "domain": domain }),
            Network::Given(zones) => {
                json!({ "id": there.vpc, "subnets": zones.iter().map(|z| &there.subnets[z]).collect::<Vec<_>>() })
            }
        };
        let mut file = json!({
            "apiVersion": "kup.dev/v1alpha1", "kind": "Cluster", "name": name, "provider": "aws",
            "masters": { "count": self.masters },
            "network": { "pods": self.pods },
            "aws": {
                "zones": self.zones.iter().map(zone).collect::<Vec<_>>(),
                "vpc": vpc,
                "access": { "ssh": self.ssh, "api": self.api },
                "image": self.image,
                "ssh": { "address": if self.private { "private" } else { "public" } },
                "masters": { "type": first, "otherTypes": others, "rootVolume": self.master_root },
                "etcdVolume": self.etcd,
                "operator": { "accessKey": self.key },
            },
        });
        match &self.minions {
            Minions::Counted { count, types, root } => {
                let (first, others) = types.split_first().unwrap_or((&"", &[]));
                file["minions"] = json!({ "count": count });
                file["aws"]["minions"] = json!({ "type": first, "otherTypes": others, "rootVolume": root });
            }
            Minions::Groups(groups) => {
                file["aws"]["groups"] = groups.iter().map(|(name, group)| ((*name).to_owned(), group.file())).collect();
            }
        }
        file
    }

    /// The zones that it spreads over, by their letters, in the order of their ranges; the first of all is what kup chooses.
    fn spread(&self) -> Vec<&'static str> {
        match &self.network {
            Network::Given(zones) => zones.clone(),
            Network::Own { .. } if self.zones.is_empty() => vec![ZONES[0]],
            Network::Own { .. } => self.zones.clone(),
        }
    }

    /// The zone of the master of this index.
    fn place(&self, index: usize) -> &'static str {
        let zones = self.spread();
        zones[index % zones.len()]
    }

    /// Why a cluster that was made with this can't become what `next` says while it stands, as the field that is to blame. What a machine
    /// is made with, and what etcd's data hangs on, stays as it is; all else follows the config.
    pub fn keeps(&self, next: &Config) -> Option<&'static str> {
        let stay = [
            ("masters.count", next.masters < self.masters),
            ("network.pods", next.pods != self.pods),
            ("aws.image", next.image != self.image || next.arm != self.arm),
            ("aws.masters.type", !next.master_types.contains(&self.master_types[0])),
            ("aws.masters.rootVolume", next.master_root != self.master_root),
            ("aws.etcdVolume", next.etcd < self.etcd),
            ("zones of masters", (0..self.masters).any(|index| next.chosen(self).place(index) != self.place(index))),
        ];
        let network = match (&self.network, &next.network) {
            (Network::Own { cidr, domain }, Network::Own { cidr: other, domain: wanted }) => {
                // A zone's range is that of its place among them.
                let (was, is) = (self.spread(), next.chosen(self).spread());
                let at = |zones: &[&str], zone: &str| zones.iter().position(|one| *one == zone);
                let moved = was.iter().any(|zone| at(&is, zone).is_some_and(|place| at(&was, zone) != Some(place)));
                // Options are made anew, never changed.
                let other_domain = domain.is_some() && wanted.is_some() && domain != wanted;
                cidr != other || other_domain || moved
            }
            (Network::Given(_), Network::Given(_)) => false,
            _ => true,
        };
        stay.into_iter().chain([("network", network)]).find(|(_, differs)| *differs).map(|(field, _)| field)
    }

    /// With the zones that a cluster that stands goes on with if none are named.
    fn chosen(&self, before: &Config) -> Config {
        let zones = if self.zones.is_empty() { before.spread() } else { self.zones.clone() };
        Config { zones, ..self.clone() }
    }
}

impl Group {
    fn file(&self) -> Value {
        let mut file =
            json!({ "types": self.types, "count": self.count, "labels": self.labels, "taints": self.taints, "spot": self.spot });
        if let Some((less, more)) = self.bounds {
            file["min"] = self.count.saturating_sub(less).into();
            file["max"] = (self.count + more).into();
        }
        if let Some(root) = self.root {
            file["rootVolume"] = root.into();
        }
        file
    }
}

fn types(arm: bool, masters: bool) -> impl Strategy<Value = Vec<&'static str>> {
    let all = match (arm, masters) {
        (false, true) => vec!["t3.medium", "t3a.medium", "m5.large"],
        (false, false) => vec!["t3.small", "t3a.small", "m5.large", "t2.micro"],
        (true, true) => vec!["t4g.medium", "m6g.large"],
        (true, false) => vec!["t4g.small", "m6g.large", "c6g.medium"],
    };
    // Any order: the first is the one that is taken.
    let most = all.len();
    subsequence(all, 1..=most).prop_shuffle()
}

fn group(arm: bool) -> impl Strategy<Value = Group> {
    let labels = select(vec![vec![], vec!["tier=web"], vec!["example.com/empty=", "a=1"]]);
    let taints = select(vec![vec![], vec![], vec!["batch=yes:NoSchedule"], vec!["only:NoExecute", "only:NoSchedule"]]);
    let bounds = prop::option::of((0u32..2, 0u32..4));
    (types(arm, false), 0u32..=3, bounds, prop::option::of(8u32..40), labels, taints, select(vec![0u32, 0, 50, 100]))
        .prop_map(|(types, count, bounds, root, labels, taints, spot)| Group { types, count, bounds, root, labels, taints, spot })
}

fn minions(arm: bool) -> impl Strategy<Value = Minions> {
    let counted =
        (0u32..=6, types(arm, false), 8u32..40).prop_map(|(count, types, root)| Minions::Counted { count, types, root });
    let names = select(vec!["web", "batch", "minions", "master", "a", "g-0123456789-0123456789-0123456789-01234"]);
    let groups = btree_map(names, group(arm), 1..=3).prop_map(|mut groups| {
        // Somewhere pods have to run.
        if let Some(first) = groups.values_mut().next() {
            first.taints.clear();
            first.count = first.count.max(1);
        }
        Minions::Groups(groups)
    });
    prop_oneof![counted, groups]
}

fn ranges() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(vec!["198.51.100.7/32", "203.0.113.0/24", "192.0.2.0/25", "0.0.0.0/0"], 0..=3)
}

fn zones() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(ZONES.to_vec(), 0..=3).prop_shuffle()
}

fn network(zones: usize) -> impl Strategy<Value = Network> {
    // A /22 has room for two zones.
    let ranges =
        if zones > 2 { vec!["172.20.0.0/16", "10.64.8.0/21"] } else { vec!["172.20.0.0/16", "10.64.8.0/21", "192.168.4.0/22"] };
    let domain = select(vec![None, None, Some("example.internal"), Some("corp.example.internal")]);
    let own = (select(ranges), domain).prop_map(|(cidr, domain)| Network::Own { cidr, domain });
    let given = subsequence(ZONES.to_vec(), 1..=3).prop_shuffle().prop_map(Network::Given);
    prop_oneof![3 => own, 1 => given]
}

prop_compose! {
    /// Any config.
    pub fn config()(arm in select(vec![false, false, false, true]), zones in zones())
        (zones in Just(zones.clone()), network in network(zones.len()), arm in Just(arm),
         image in select(vec!["debian-13", "ubuntu-24.04", "al2023"]),
         masters in select(vec![1usize, 1, 3]), master_types in types(arm, true), master_root in 8u32..40, etcd in 1u32..30,
         minions in minions(arm), access in (ranges(), ranges()), more in (any::<bool>(), any::<bool>(), select(vec!["10.244.0.0/16", "10.128.0.0/14"])))
        -> Config {
        // Given subnets say which zones.
        let zones = if matches!(network, Network::Given(_)) { Vec::new() } else { zones };
        let ((ssh, api), (private, key, pods)) = (access, more);
        Config { arm, image, zones, masters, master_types, master_root, etcd, minions, ssh, api, network, pods, private, key }
    }
}

/// A change of a config: a part of it, as another one has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Minions,
    Access,
    MoreEtcd,
    Etcd,
    MoreMasters,
    Masters,
    MasterTypes,
    MasterRoot,
    MoreZones,
    FewerZones,
    Zones,
    Domain,
    Network,
    Pods,
    Image,
    Key,
    Private,
}

impl Part {
    /// Parts that change what stands, most of them in place.
    pub fn any() -> impl Strategy<Value = Vec<Part>> {
        let parts = prop_oneof![
            20 => select(vec![Part::Minions, Part::Access, Part::MoreEtcd, Part::MoreMasters, Part::MoreZones, Part::Key, Part::Private]),
            6 => select(vec![Part::FewerZones, Part::Domain, Part::MasterTypes]),
            1 => select(vec![Part::Etcd, Part::Masters, Part::MasterRoot, Part::Zones, Part::Network, Part::Pods, Part::Image]),
        ];
        vec(parts, 1..=3)
    }

    /// Takes this part from another config.
    pub fn change(self, of: &Config, other: &Config) -> Config {
        let mut next = of.clone();
        let own = matches!(of.network, Network::Own { .. });
        match self {
            // Another processor's types come with all that they belong to, or not at all.
            Part::Minions if of.arm == other.arm => next.minions = other.minions.clone(),
            Part::MasterTypes if of.arm == other.arm => next.master_types.clone_from(&other.master_types),
            Part::Access => (next.ssh, next.api) = (other.ssh.clone(), other.api.clone()),
            Part::MoreEtcd => next.etcd += other.etcd,
            Part::Etcd => next.etcd = other.etcd,
            Part::MoreMasters => next.masters = of.masters.max(other.masters),
            Part::Masters => next.masters = other.masters,
            Part::MasterRoot => next.master_root = other.master_root,
            Part::MoreZones if own => {
                let room = if matches!(of.network, Network::Own { cidr: "192.168.4.0/22", .. }) { 2 } else { 3 };
                // What kup chose is named, or the first would be another.
                next.zones = if of.zones.is_empty() { vec![ZONES[0]] } else { of.zones.clone() };
                let more: Vec<&str> = ZONES.into_iter().filter(|zone| !next.zones.contains(zone)).collect();
                next.zones.extend(more);
                next.zones.truncate(room);
            }
            // Of one zone none can go; none named is another thing, and kup keeps what it chose.
            Part::FewerZones if own => next.zones.truncate(of.zones.len().saturating_sub(1).max(1)),
            Part::Zones if own && (1..=2).contains(&other.zones.len()) => next.zones.clone_from(&other.zones),
            Part::Domain => {
                if let (Network::Own { domain, .. }, Network::Own { domain: wanted, .. }) = (&mut next.network, &other.network) {
                    *domain = *wanted;
                }
            }
            Part::Network if of.zones.len() <= 2 => {
                next.network = other.network.clone();
                if next.wants_given() {
                    next.zones.clear();
                }
            }
            Part::Pods => next.pods = other.pods,
            Part::Image => next.image = other.image,
            Part::Key => next.key = other.key,
            Part::Private => next.private = other.private,
            _ => {}
        }
        next
    }
}
