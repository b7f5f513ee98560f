//! Rules for address ranges: form, size, what may not overlap, and whether all machines fit.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Check;
use crate::cluster::aws::NamedGroup;
use crate::cluster::schema::{item, join};
use crate::cluster::spec::{ProviderKind, Subnet};

/// The prefix length of the range of pods that each node takes (the controller-manager's `--node-cidr-mask-size`).
pub const NODE_PREFIX: u8 = 24;

/// The range whose first free /24 is the machines' network if `local.subnet` is `auto`.
pub const AUTO_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 0, 0), 16);

/// The prefix length of an `auto` subnet.
const AUTO_PREFIX: u8 = 24;

/// Ranges that mean something else to every host: this network, loopback, link-local, multicast, reserved.
const SPECIAL: [(Ipv4Net, &str); 5] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), "this host itself"),
    (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), "loopback"),
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), "link-local addresses"),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
    (Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4), "nothing that can be used"),
];

const PODS: &str = "network.pods";
const SERVICES: &str = "network.services";
const DNS: &str = "network.dns";
const SUBNET: &str = "local.subnet";
const VPC: &str = "aws.vpc.cidr";
const ZONES: &str = "aws.zones";
const MASTERS: &str = "masters.count";
const MINIONS: &str = "minions.count";

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

impl Check<'_> {
    pub(super) fn ranges(&mut self) {
        let network = &self.cluster.network;
        let (pods, services) = (network.pods, network.services);
        // The controller-manager takes at most 16 bits between the whole range and a node's; the API server's Services at most 20 bits.
        let mut wanted = vec![
            (PODS, pods, 8, NODE_PREFIX, "each node takes a /24 of it"),
            (SERVICES, services, 12, 28, "the API server takes no other size, and DNS and the API need an address each"),
        ];
        // What the machines' network is, if that is known by now.
        let machines = match (self.cluster.provider, self.cluster.local.subnet) {
            (ProviderKind::Local, Subnet::Fixed(net)) => {
                wanted.push((SUBNET, net, 8, 29, "the gateway, each machine and a load balancer need an address each"));
                Some((SUBNET, net))
            }
            (ProviderKind::Local, Subnet::Auto) => Some((SUBNET, AUTO_POOL)),
            (ProviderKind::Aws, _) if self.cluster.aws.vpc.id.is_none() => {
                let net = self.cluster.aws.vpc.cidr;
                wanted.push((VPC, net, 16, 22, "AWS takes nothing larger than a /16, and each zone needs two /24"));
                Some((VPC, net))
            }
            (ProviderKind::Aws, _) => None,
        };
        for (path, net, low, high, why) in wanted {
            self.form(path, net, low, high, why);
        }
        let mut pairs = vec![(SERVICES, services, PODS, pods)];
        if let Some((path, net)) = machines {
            pairs.extend([(path, net, PODS, pods), (path, net, SERVICES, services)]);
        }
        for (a, net_a, b, net_b) in pairs {
            if !overlap(&net_a, &net_b) || !self.readable(&[a, b]) {
                continue;
            }
            if a == SUBNET && self.cluster.local.subnet == Subnet::Auto {
                let what = format!("{net_b} overlaps {AUTO_POOL}, from which `local.subnet: auto` takes the machines' network");
                self.problem(&[b], what, "write another range, or give local.subnet a range of its own".into());
            } else {
                // Named where the user wrote something, and never as overlapping itself.
                let (path, net, other, other_net) =
                    if self.is_default(a) && !self.is_default(b) { (b, net_b, a, net_a) } else { (a, net_a, b, net_b) };
                let what =
                    format!("{net} overlaps {other}, {other_net}{}", if self.is_default(other) { " (the default)" } else { "" });
                self.problem(&[path], what, "write ranges that have no address in common".into());
            }
        }
        self.dns(services, network.dns);
    }

    fn form(&mut self, path: &str, net: Ipv4Net, low: u8, high: u8, why: &str) {
        if !self.readable(&[path]) {
            return;
        }
        if net.trunc() != net {
            let what = format!("{net} is an address inside a range, not a range");
            return self.problem(&[path], what, format!("write {}", net.trunc()));
        }
        if !(low..=high).contains(&net.prefix_len()) {
            let size = if net.prefix_len() > high { "small" } else { "large" };
            let what = format!("{net} is too {size}: {why}");
            return self.problem(&[path], what, format!("write a range from /{low} to /{high}"));
        }
        if let Some((special, meaning)) = SPECIAL.iter().find(|(special, _)| overlap(special, &net)) {
            let what = format!("{net} overlaps {special}, which stands for {meaning}");
            self.problem(&[path], what, "write a private range, inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16".into());
        }
    }

    fn dns(&mut self, services: Ipv4Net, dns: Ipv4Addr) {
        if !self.readable(&[DNS, SERVICES]) || services.trunc() != services || services.prefix_len() > 28 {
            return;
        }
        // As in every cluster: the first address is the `kubernetes` Service's, and the tenth is DNS's by custom.
        let nth = |n: u32| Ipv4Addr::from(u32::from(services.network()).saturating_add(n));
        let fault = if !services.contains(&dns) {
            Some(format!("network.dns, {dns}, is outside network.services, {services}"))
        } else if dns == services.network() || dns == services.broadcast() {
            Some(format!("network.dns, {dns}, is the first or last address of {services}, which no Service gets"))
        } else if dns == nth(1) {
            Some(format!("network.dns, {dns}, is the address of the API's own Service"))
        } else {
            None
        };
        if let Some(what) = fault {
            self.problem(&[DNS, SERVICES], what, format!("set network.dns to {}", nth(10)));
        }
    }

    /// Whether every machine gets its range of pods and its address.
    pub(super) fn capacity(&mut self) {
        if !self.readable(&[MASTERS, MINIONS]) {
            return;
        }
        let masters = u64::from(self.cluster.masters.count);
        let on_aws = self.cluster.provider == ProviderKind::Aws;
        // Groups may grow by themselves.
        let most = |group: NamedGroup| u64::from(group.max.max(group.count));
        let minions =
            if on_aws { self.cluster.groups().into_iter().map(most).sum() } else { u64::from(self.cluster.minions.count) };
        let grown = if minions > u64::from(self.cluster.minions.count) { ", all groups at their max" } else { "" };
        let machines = masters + minions;
        let pods = self.cluster.network.pods;
        let short = |room: u64, of: &str| {
            let most = room.saturating_sub(masters);
            format!(
                "{machines} machines (masters and minions{grown}) don't fit into {of}, which holds {room}: at most {most} minions beside {masters} {}",
                if masters == 1 { "master" } else { "masters" }
            )
        };
        let room = if pods.prefix_len() <= NODE_PREFIX { 1u64 << (NODE_PREFIX - pods.prefix_len()) } else { 0 };
        // Where users said how many minions there are to be.
        let groups = self.cluster.aws.groups.keys().map(|name| item("aws.groups", name));
        let said: Vec<String> = groups.flat_map(|group| ["max", "count"].map(|field| join(&group, field))).collect();
        let paths = |others: [&'static str; 2]| -> Vec<&str> {
            [MINIONS].into_iter().chain(said.iter().filter(|_| on_aws).map(String::as_str)).chain(others).collect()
        };
        // A range that is no range at all was already named.
        if self.readable(&[PODS]) && room > 0 && machines > room {
            let what = short(room, &format!("network.pods, {pods}"));
            self.problem(
                &paths([PODS, MASTERS]),
                what,
                "ask for fewer, or give network.pods a larger range; each machine takes a /24".into(),
            );
        }
        if on_aws {
            if let Some(room) = self.room_on_aws().filter(|room| machines > *room && self.readable(&[VPC, ZONES])) {
                let what = short(room, "a public /24 in each zone");
                return self.problem(&paths([ZONES, MASTERS]), what, "ask for fewer, or name more zones, up to four".into());
            }
            return;
        }
        let (prefix, name) = match self.cluster.local.subnet {
            Subnet::Fixed(net) => (net.prefix_len(), format!("local.subnet, {net}")),
            Subnet::Auto => (AUTO_PREFIX, "the /24 that `local.subnet: auto` takes".to_owned()),
        };
        // Beside the network's own first and last address: the gateway, and a load balancer.
        let room = (1u64 << (32 - prefix.min(32))).saturating_sub(4);
        if self.readable(&[SUBNET]) && prefix <= 29 && machines > room {
            let what = short(room, &name);
            self.problem(
                &[MINIONS, SUBNET, MASTERS],
                what,
                "ask for fewer, or give local.subnet a larger range, like 172.29.0.0/16".into(),
            );
        }
    }
}
