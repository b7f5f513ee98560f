//! Rules for the AWS provider: what can be known without asking AWS. Whether zones, types, images and networks exist is asked later.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::Check;
use super::names::{group_fault, label_fault};
use crate::cluster::aws::{is_id, is_region, region_of};
use crate::cluster::problem::quoted;
use crate::cluster::schema::{item, join};
use crate::cluster::spec::ProviderKind;
use crate::cluster::{Cluster, Origin};

/// The most zones: a VPC of the largest size that the loader takes at its smallest, /22, has no room for more.
pub const MAX_ZONES: usize = 4;

/// Sizes of volumes in GiB: a root volume holds the system and images, and gp3 volumes end at 16 TiB.
const ROOT_SIZES: (u32, u32) = (8, 16384);
const ETCD_SIZES: (u32, u32) = (1, 16384);

/// What a /24 has for machines: AWS takes five addresses, and the load balancer one.
const PER_ZONE: u64 = 256 - 5 - 1;

/// The longest DNS name.
const LONGEST_DOMAIN: usize = 253;

const ZONES: &str = "aws.zones";
const REGION: &str = "aws.region";
const CIDR: &str = "aws.vpc.cidr";
const ID: &str = "aws.vpc.id";
const SUBNETS: &str = "aws.vpc.subnets";

/// What is valid on AWS, and yet perhaps not what was meant.
pub fn notes(cluster: &Cluster) -> Vec<String> {
    let masters = cluster.masters.count;
    let zones = cluster.aws.zones.len().max(cluster.aws.vpc.subnets.len()).max(1);
    if cluster.provider != ProviderKind::Aws || masters < 3 || zones >= 3 {
        return Vec::new();
    }
    let place = if zones == 1 { "one zone".to_owned() } else { format!("{zones} zones") };
    vec![format!("{masters} masters in {place} don't bear the loss of every zone; three zones in `aws.zones` would")]
}

/// Why a text is not shaped like an instance type, such as t3.medium.
pub(super) fn type_fault(text: &str) -> Option<String> {
    let good = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let whole = text.len() <= 64 && text.split_once('.').is_some_and(|(family, size)| good(family) && good(size));
    (!whole).then(|| format!("{} is no instance type", quoted(text)))
}

/// The first of these that was there before.
fn twice<'a>(words: impl IntoIterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = BTreeSet::new();
    words.into_iter().find(|word| !seen.insert(*word))
}

impl Check<'_> {
    pub(super) fn aws(&mut self) {
        if self.cluster.provider != ProviderKind::Aws {
            return;
        }
        self.zones();
        self.network_of_aws();
        self.access();
        self.machines();
        self.groups();
    }

    /// The words that machines are told.
    pub(super) fn words_of_aws(&mut self) {
        let aws = &self.cluster.aws;
        if self.cluster.provider != ProviderKind::Aws {
            return;
        }
        if let Some(region) = aws.region.as_ref().filter(|region| !is_region(region)) {
            self.problem(&[REGION], format!("{} is no region", quoted(region)), "write a region like us-west-2".into());
        }
        for (name, group) in &aws.groups {
            let path = item("aws.groups", name);
            if let Some((what, fix)) = group_fault(name) {
                self.problem(&["aws.groups"], what, fix);
            }
            self.labels(&join(&path, "labels"), &group.labels);
            self.taints(&join(&path, "taints"), &group.taints);
        }
    }

    fn zones(&mut self) {
        let aws = &self.cluster.aws;
        if let Some(region) = aws.region.as_ref().filter(|region| !is_region(region) && self.readable(&[REGION])) {
            let fix = match region_of(region) {
                Some(of) => format!("that is a zone: write `{of}` here, and the zone in {ZONES}"),
                None => "write a region like us-west-2, or leave it out".into(),
            };
            return self.problem(&[REGION], format!("{} is no region", quoted(region)), fix);
        }
        if let Some(profile) = &aws.profile
            && (profile.is_empty() || profile.contains(|c: char| c.is_control() || matches!(c, '[' | ']')))
        {
            let fix = "write the name of a profile, as `aws configure list-profiles` shows it, or leave it out".to_owned();
            self.problem(&["aws.profile"], format!("{} can't be a profile's name", quoted(profile)), fix);
        }
        for zone in &aws.zones {
            let region = region_of(zone);
            if region.is_none() {
                let fix = match is_region(zone) {
                    true => format!("that is a region: write its zones, like [{zone}a]"),
                    false => "write zones like [us-west-2a, us-west-2b]; local and wavelength zones can't be used".into(),
                };
                self.problem(&[ZONES], format!("{} is no availability zone", quoted(zone)), fix);
            } else if region != aws.region.as_deref() && self.readable(&[REGION]) {
                let of = aws.region.as_deref().unwrap_or_default();
                let fix = "write zones of one region, and that region in aws.region or nothing".to_owned();
                self.problem(&[ZONES, REGION], format!("{} is not in the region {of}", quoted(zone)), fix);
            }
        }
        if let Some(zone) = twice(&aws.zones) {
            self.problem(&[ZONES], format!("{} is named twice", quoted(zone)), "write each zone once".into());
        }
        if aws.zones.len() > MAX_ZONES {
            let what = format!("{} are too many zones: a cluster spreads over at most {MAX_ZONES}", aws.zones.len());
            self.problem(&[ZONES], what, format!("write at most {MAX_ZONES}; three are enough to bear the loss of any one"));
        }
    }

    fn network_of_aws(&mut self) {
        let (vpc, zones) = (&self.cluster.aws.vpc, self.cluster.aws.zones.len());
        let example = "write it like subnet-0123456789abcdef0; `aws ec2 describe-subnets` lists them";
        for subnet in vpc.subnets.iter().filter(|subnet| !is_id(subnet, "subnet-")) {
            self.problem(&[SUBNETS], format!("{} is no subnet's id", quoted(subnet)), example.into());
        }
        if let Some(subnet) = twice(&vpc.subnets) {
            self.problem(&[SUBNETS], format!("{} is named twice", quoted(subnet)), "write one subnet a zone".into());
        }
        match &vpc.id {
            Some(id) if !is_id(id, "vpc-") => {
                let fix = "write it like vpc-0123456789abcdef0; `aws ec2 describe-vpcs` lists them".to_owned();
                self.problem(&[ID], format!("{} is no VPC's id", quoted(id)), fix);
            }
            Some(id) if vpc.subnets.is_empty() && self.readable(&[SUBNETS]) => {
                let what = format!("{id} is given, but none of its subnets");
                self.problem(&[ID], what, format!("write one subnet a zone in {SUBNETS}, or leave the id out for a new VPC"));
            }
            None if !vpc.subnets.is_empty() && self.readable(&[ID]) => {
                let what = "subnets are given, but not their VPC".to_owned();
                self.problem(&[SUBNETS], what, format!("write their VPC's id in {ID}, or leave both out for a new VPC"));
            }
            _ => {}
        }
        if vpc.subnets.len() > MAX_ZONES {
            let what = format!("{} are too many subnets: there is one a zone, and at most {MAX_ZONES} zones", vpc.subnets.len());
            self.problem(&[SUBNETS], what, format!("write at most {MAX_ZONES}"));
        } else if zones > 0 && !vpc.subnets.is_empty() && vpc.subnets.len() != zones && self.readable(&[ZONES, SUBNETS]) {
            let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
            let what = format!("{} for {}", count(vpc.subnets.len(), "subnet"), count(zones, "zone"));
            let fix = format!("write one subnet a zone, in the same order, or leave {ZONES} out");
            self.problem(&[SUBNETS, ZONES], what, fix);
        }
        if let Some(domain) = &vpc.domain {
            let long = (domain.len() > LONGEST_DOMAIN).then(|| format!("is longer than {LONGEST_DOMAIN} characters"));
            if let Some(why) = long.or_else(|| domain.split('.').find_map(|label| label_fault(label, 63))) {
                let fix = "write a DNS domain in lower case, like example.internal, or leave it out".to_owned();
                self.problem(&["aws.vpc.domain"], format!("{} {why}", quoted(domain)), fix);
            } else if vpc.id.is_some() {
                let what = "an existing VPC keeps its own DHCP options".to_owned();
                self.problem(&["aws.vpc.domain"], what, format!("leave it out, or leave {ID} out for a new VPC"));
            }
        }
        let room = self.own_zones().unwrap_or_default();
        if vpc.id.is_none()
            && zones > room
            && zones <= MAX_ZONES
            && self.readable(&[CIDR, ZONES])
            && (16..=22).contains(&vpc.cidr.prefix_len())
        {
            let what = format!(
                "{} has room for {room} zones, not {zones}: each takes two /24, one of them for private machines",
                vpc.cidr
            );
            self.problem(&[CIDR, ZONES], what, "write a larger range, like 172.20.0.0/16".into());
        }
    }

    /// How many zones fit into a VPC of the cluster's own.
    fn own_zones(&self) -> Option<usize> {
        let bits = 24u8.checked_sub(self.cluster.aws.vpc.cidr.prefix_len())?;
        1usize.checked_shl(u32::from(bits)).map(|ranges| ranges / 2)
    }

    fn access(&mut self) {
        let access = &self.cluster.aws.access;
        for (path, ranges) in [("aws.access.ssh", &access.ssh), ("aws.access.api", &access.api)] {
            for range in ranges {
                let fix = match (range.parse::<Ipv4Net>(), range.parse::<std::net::Ipv4Addr>()) {
                    (Ok(net), _) if net.trunc() == net && net.to_string() == *range => continue,
                    (Ok(net), _) => {
                        format!("write {} for the whole range, or {}/32 for the one address", net.trunc(), net.addr())
                    }
                    (_, Ok(address)) => format!("write {address}/32"),
                    _ => "write IPv4 ranges like [198.51.100.7/32]; 0.0.0.0/0 is everybody".into(),
                };
                self.problem(&[path], format!("{} is no IPv4 range", quoted(range)), fix);
            }
            if let Some(range) = twice(ranges) {
                self.problem(&[path], format!("{} is named twice", quoted(range)), "write each range once".into());
            }
        }
    }

    fn machines(&mut self) {
        let aws = &self.cluster.aws;
        self.size("aws.etcdVolume", aws.etcd_volume, ETCD_SIZES);
        self.size("aws.masters.rootVolume", aws.masters.root_volume, ROOT_SIZES);
        self.size("aws.minions.rootVolume", aws.minions.root_volume, ROOT_SIZES);
        for (place, machines) in [("aws.masters", &aws.masters), ("aws.minions", &aws.minions)] {
            let (first, others) = (join(place, "type"), join(place, "otherTypes"));
            if let Some(what) = type_fault(&machines.instance_type) {
                self.problem(&[&first], what, "write one like t3.medium".into());
            }
            self.types(&others, &machines.other_types);
            if machines.other_types.contains(&machines.instance_type) && self.readable(&[&first, &others]) {
                let what = format!("{} is the type that these are taken instead of", quoted(&machines.instance_type));
                self.problem(&[&others], what, format!("write it in {first} alone"));
            }
        }
        let masters = &aws.masters;
        let others = masters.other_types.iter().map(|kind| ("aws.masters.otherTypes", kind));
        for (path, kind) in std::iter::once(("aws.masters.type", &masters.instance_type)).chain(others) {
            if kind.ends_with(".nano") || kind.ends_with(".micro") {
                let what = format!(
                    "{kind} has at most 1 GiB of memory, and a master needs 2: of what is resident in it, the API server takes 290 MB, \
                     etcd and the controller-manager more than 100 each, kubelet, scheduler, kube-proxy and containerd 260"
                );
                self.problem(&[path], what, "write t3.small or larger, like t3.medium; minions may be as small".into());
            }
        }
        self.path_of_file("aws.sshKey", &aws.ssh_key);
    }

    /// Whether a volume can have this size.
    fn size(&mut self, path: &str, size: u32, (low, high): (u32, u32)) {
        if !(low..=high).contains(&size) {
            let what = format!("{size} GiB is not from {low} to {high}");
            self.problem(&[path], what, format!("write {}", size.clamp(low, high)));
        }
    }

    /// A root volume, as a group has it.
    pub(super) fn root_volume(&mut self, path: &str, size: u32) {
        self.size(path, size, ROOT_SIZES);
    }

    /// How many machines the cluster's own subnets hold, if they are not given.
    pub(super) fn room_on_aws(&self) -> Option<u64> {
        let zones = self.cluster.aws.zones.len().clamp(1, MAX_ZONES) as u64;
        self.cluster.aws.vpc.id.is_none().then_some(zones * PER_ZONE)
    }

    /// Whether nothing set a field.
    pub(super) fn is_default(&self, path: &str) -> bool {
        self.origins.get(path).is_none_or(|origin| *origin == Origin::Default)
    }
}
