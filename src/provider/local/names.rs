//! What local things are called and labelled, and which address each machine gets. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;
use crate::error::{Error, Result};
use crate::machine::{BundleAccess, Machine, Role, topology};
use crate::provider::FoundMachine;

use super::engine::Container;

/// The label that holds the cluster's name; on everything kup makes.
pub const CLUSTER: &str = "kup.dev/cluster";
/// The label that holds the provider; on everything kup makes.
pub const PROVIDER: &str = "kup.dev/provider";
/// A machine's role.
pub const ROLE: &str = "kup.dev/role";
/// A machine's address.
pub const ADDRESS: &str = "kup.dev/address";
/// A machine's public SSH host key.
pub const HOST_KEY: &str = "kup.dev/host-key";
/// The bundle's directory on the host if it is mounted, else `sent`.
pub const BUNDLE: &str = "kup.dev/bundle";
/// Where a machine's SSH server listens.
const SSH_PORT: u16 = 22;

/// The labels of everything of one cluster, as `key=value`.
pub fn labels(cluster: &str) -> Vec<String> {
    vec![format!("{PROVIDER}={}", ProviderKind::Local.as_str()), format!("{CLUSTER}={cluster}")]
}

/// Whether these labels are those of a thing of this cluster, exactly: engines' own filters also match patterns.
pub fn owned(found: &BTreeMap<String, String>, cluster: &str) -> bool {
    owner(found) == Some(cluster)
}

/// The local cluster that a thing with these labels belongs to.
pub fn owner(found: &BTreeMap<String, String>) -> Option<&str> {
    let local = found.get(PROVIDER).map(String::as_str) == Some(ProviderKind::Local.as_str());
    found.get(CLUSTER).filter(|_| local).map(String::as_str)
}

/// The cluster's network.
pub fn network(cluster: &str) -> String {
    format!("kup-local-{cluster}")
}

/// The volume that is a machine's `/var`.
pub fn volume(machine: &str) -> String {
    format!("kup-local-{machine}")
}

/// Refuses a name that no cluster can have: it becomes part of paths, host names and labels.
pub fn check(cluster: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if cluster.len() <= 40
        && cluster.bytes().all(good)
        && cluster.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !cluster.ends_with('-')
    {
        return Ok(());
    }
    Err(Error::usage(format!("{:?} can't be a cluster's name", cluster.chars().take(60).collect::<String>()))
        .hint("use lower-case letters, digits and hyphens, at most 40 characters, with a letter or digit at both ends"))
}

/// A machine that the config asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name: container, host and node are called so.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its number among its kind, from 1.
    pub number: u16,
}

/// The machines of a cluster, masters first.
pub fn wanted(cluster: &Cluster) -> Vec<Wanted> {
    let named =
        |(role, number): (Role, u16)| Wanted { name: format!("{}-{}-{number}", cluster.name, role.as_str()), role, number };
    topology::wanted(cluster).map(named).collect()
}

/// First addresses of masters and minions, as offsets into the subnet. The gateway is at 1 and the balancer at 2. Small subnets
/// keep room for seven masters, so that a machine's address depends on nothing but its name.
const fn offsets(subnet: Ipv4Net) -> (u32, u32) {
    if subnet.prefix_len() <= 24 { (11, 101) } else { (3, 10) }
}

/// The balancer's offset into the subnet.
const BALANCER: u32 = 2;

/// A machine's address: it depends only on the subnet, its role and its number.
pub fn address(subnet: Ipv4Net, role: Role, number: u16) -> Result<Ipv4Addr> {
    let (masters, minions) = offsets(subnet);
    let (first, end) = match role {
        Role::Balancer => (BALANCER, masters),
        Role::Master => (masters, minions),
        Role::Minion => (minions, u32::MAX),
    };
    let offset = u32::from(number) - 1 + first;
    // The last usable one: not the broadcast address. A /31 or /32 has none.
    let last = (u32::from(subnet.broadcast()) - u32::from(subnet.network())).saturating_sub(1);
    let limit = end.min(last + 1);
    if offset >= limit {
        let room = limit.saturating_sub(first);
        return Err(Error::usage(format!(
            "local.subnet: {subnet} holds at most {room} {}s, and {number} are asked for",
            role.as_str()
        ))
        .hint("give a larger range, such as a /24, or let kup choose (`subnet: auto`)"));
    }
    Ok(Ipv4Addr::from(u32::from(subnet.network()) + offset))
}

/// The link address that belongs to an IPv4 address: always the same, so that those who knew the machine before it was started, or
/// made, again reach it at once instead of when their neighbour entry ends (half a minute). Locally administered, and unicast.
pub fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:6b:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Checks that a subnet holds all machines of a cluster.
pub fn check_room(subnet: Ipv4Net, masters: u16, minions: u16) -> Result<()> {
    if masters > 0 {
        address(subnet, Role::Master, masters)?;
    }
    if minions > 0 {
        address(subnet, Role::Minion, minions)?;
    }
    Ok(())
}

/// The gateway: the host's own address in the cluster's network.
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

/// The labels of one machine's container, as `key=value`.
pub fn machine_labels(cluster: &str, machine: &Machine, bundle_dir: Option<&str>) -> Vec<String> {
    let mut all = labels(cluster);
    all.push(format!("{ROLE}={}", machine.role.as_str()));
    all.push(format!("{ADDRESS}={}", machine.address));
    all.push(format!("{HOST_KEY}={}", machine.host_key));
    all.push(format!("{BUNDLE}={}", bundle_dir.unwrap_or("sent")));
    all
}

/// The machine that a container of kup's is; `None` for a container that lacks a machine's labels (an image being built).
pub fn found(container: &Container) -> Option<FoundMachine> {
    let label = |key: &str| container.labels.get(key).map(String::as_str);
    let role = match label(ROLE)? {
        "master" => Role::Master,
        "minion" => Role::Minion,
        "balancer" => Role::Balancer,
        _ => return None,
    };
    let bundle = if label(BUNDLE)? == "sent" { BundleAccess::Sent } else { BundleAccess::Mounted };
    let machine = Machine {
        name: container.name.clone(),
        role,
        address: label(ADDRESS)?.parse().ok()?,
        ssh_port: SSH_PORT,
        user: "root".into(),
        host_key: label(HOST_KEY)?.to_owned(),
        bundle,
        cloud: None,
    };
    Some(FoundMachine { machine, running: container.running })
}

/// The number at the end of a machine's name, so that ten comes after nine.
pub fn number(name: &str) -> u32 {
    name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(subnet: &str, role: Role, number: u16) -> Result<String> {
        address(subnet.parse().map_err(|_| Error::new("bad test"))?, role, number).map(|a| a.to_string())
    }

    #[test]
    fn addresses_depend_only_on_the_name() -> Result<()> {
        assert_eq!(at("172.29.0.0/24", Role::Master, 1)?, "172.29.0.11");
        assert_eq!(at("172.29.0.0/24", Role::Minion, 4)?, "172.29.0.104");
        assert_eq!(at("172.29.3.0/24", Role::Minion, 154)?, "172.29.3.254");
        assert_eq!(at("172.29.0.0/24", Role::Balancer, 1)?, "172.29.0.2");
        assert_eq!(at("10.9.0.32/27", Role::Balancer, 1)?, "10.9.0.34");
        assert_eq!(at("10.9.0.32/27", Role::Master, 7)?, "10.9.0.41");
        assert_eq!(at("10.9.0.32/27", Role::Minion, 1)?, "10.9.0.42");
        assert_eq!(at("10.9.0.32/27", Role::Minion, 21)?, "10.9.0.62");
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_room_there_is() {
        let said = |subnet, role, number| at(subnet, role, number).err().map(|e| e.what);
        assert_eq!(
            said("172.29.3.0/24", Role::Minion, 155).as_deref(),
            Some("local.subnet: 172.29.3.0/24 holds at most 154 minions, and 155 are asked for")
        );
        assert_eq!(
            said("10.9.0.32/27", Role::Minion, 22).as_deref(),
            Some("local.subnet: 10.9.0.32/27 holds at most 21 minions, and 22 are asked for")
        );
        assert_eq!(
            said("10.9.0.32/27", Role::Master, 8).as_deref(),
            Some("local.subnet: 10.9.0.32/27 holds at most 7 masters, and 8 are asked for")
        );
        assert!(said("10.9.0.0/29", Role::Minion, 1).is_some());
        assert!(said("10.9.0.0/30", Role::Master, 1).is_some());
        assert!(said("10.9.0.0/31", Role::Master, 1).is_some());
        assert!(said("10.9.0.0/32", Role::Master, 1).is_some());
        assert_eq!(said("10.9.0.0/29", Role::Master, 4), None);
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", "..", "../x", "a/b", "; rm", "-a", "a-", "A", "ä", "a.b", &"a".repeat(41)] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["a", "kubernetes", "1a-2", &"a".repeat(40)] {
            assert!(check(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn near_misses_of_labels_are_not_ours() {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
        assert!(owned(&map(&[(CLUSTER, "a"), (PROVIDER, "local")]), "a"));
        assert!(!owned(&map(&[(CLUSTER, "a")]), "a"));
        assert!(!owned(&map(&[(CLUSTER, "a"), (PROVIDER, "aws")]), "a"));
        assert!(!owned(&map(&[(CLUSTER, "a-b"), (PROVIDER, "local")]), "a"));
        assert!(!owned(&map(&[("kup.dev/clusters", "a"), (PROVIDER, "local")]), "a"));
    }
}
