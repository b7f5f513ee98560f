//! Which addresses the cluster's network gets: the first free /24, or the user's range if nothing else has it.

use std::process::Stdio;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::Deserialize;

use super::engine::Network;
use crate::cluster::Cluster;
use crate::cluster::spec::Subnet;
use crate::error::{Context, Error, Result};

/// Where kup looks for a free /24. Below Docker's own pools' end (172.17–172.31 in steps of a /16), so Docker takes it last.
const POOL: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 29, 0, 0), 16);

/// A range that can't be had, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// The range.
    pub range: Ipv4Net,
    /// Who has it, as it reads after "taken by".
    pub by: String,
}

/// Everything that has addresses on this host: the engines' networks and the host's routes and addresses.
pub(super) async fn taken(networks: &[(&'static str, Network)]) -> Result<Vec<Taken>> {
    let mut all: Vec<Taken> = networks
        .iter()
        .flat_map(|(engine, n)| n.subnets.iter().map(move |&range| Taken { range, by: format!("{engine}'s network {}", n.name) }))
        .collect();
    all.extend(routes().await?);
    Ok(all)
}

/// The host's routes and own addresses.
async fn routes() -> Result<Vec<Taken>> {
    let run = tokio::process::Command::new("ip")
        .args(["-j", "-4", "route", "show", "table", "all"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(10), run)
        .await
        .map_err(|_| Error::new("`ip route` did not end within 10 s"))?
        .context("cannot run `ip route`, which shows the addresses that are taken")
        .map_err(|e| e.hint("apt install iproute2"))?;
    if !output.status.success() {
        return Err(Error::new("`ip route` failed").why(String::from_utf8_lossy(&output.stderr).trim()));
    }
    parse_routes(&String::from_utf8_lossy(&output.stdout))
}

fn parse_routes(json: &str) -> Result<Vec<Taken>> {
    #[derive(Deserialize)]
    struct Route {
        dst: String,
        dev: Option<String>,
    }
    let json = if json.trim().is_empty() { "[]" } else { json };
    let routes: Vec<Route> = serde_json::from_str(json).context("`ip -j route` answered with something else than expected")?;
    let mut taken = Vec::new();
    for route in routes {
        // A lone address has no prefix length; "default" has no address.
        let Some(range) =
            route.dst.parse::<Ipv4Net>().ok().or_else(|| Some(Ipv4Net::from(route.dst.parse::<std::net::Ipv4Addr>().ok()?)))
        else {
            continue;
        };
        // Halves and quarters of everything are a VPN's way to say "default".
        if range.prefix_len() < 8 || range.addr().is_loopback() {
            continue;
        }
        let dev = route.dev.unwrap_or_else(|| "the host".into());
        taken.push(Taken { range, by: format!("a route of this host ({} on {dev})", route.dst) });
    }
    Ok(taken)
}

/// The subnet for a new network. `refused` are ranges that the engine itself would not give.
pub(super) fn choose(cluster: &Cluster, taken: &[Taken], refused: &[Ipv4Net]) -> Result<Ipv4Net> {
    let inside = [
        (cluster.network.pods, "the pods' range (network.pods)"),
        (cluster.network.services, "the Services' range (network.services)"),
    ];
    let inside: Vec<Taken> = inside.into_iter().map(|(range, by)| Taken { range: range.trunc(), by: by.into() }).collect();
    let holder = |subnet: Ipv4Net| inside.iter().chain(taken).find(|t| overlap(t.range, subnet));
    match cluster.local.subnet {
        Subnet::Fixed(subnet) => {
            if let Some(holder) = holder(subnet) {
                return Err(Error::new(format!("local.subnet: {subnet} is taken by {}", holder.by))
                    .hint("choose another range, or let kup choose (`subnet: auto`)"));
            }
            Ok(subnet.trunc())
        }
        Subnet::Auto => POOL
            .subnets(24)
            .into_iter()
            .flatten()
            .find(|&subnet| holder(subnet).is_none() && !refused.contains(&subnet))
            .ok_or_else(|| {
                let holder = taken.iter().chain(&inside).find(|t| overlap(t.range, POOL));
                let by = holder.map_or("the container engine, which refuses them all", |t| &t.by);
                Error::new(format!("no /24 of {POOL} is free for the machines' network"))
                    .why(format!("taken, among others, by {by}"))
                    .hint("name a free range as local.subnet in the config")
            }),
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(subnet: Subnet, pods: &str, services: &str) -> Result<Cluster> {
        let mut cluster = crate::cluster::defaults::cluster()?;
        cluster.local.subnet = subnet;
        cluster.network.pods = pods.parse().context("bad test")?;
        cluster.network.services = services.parse().context("bad test")?;
        Ok(cluster)
    }

    fn held(range: &str) -> Result<Taken> {
        Ok(Taken { range: range.parse().map_err(|_| Error::new("bad test"))?, by: "someone".into() })
    }

    #[test]
    fn the_first_free_one() -> Result<()> {
        let cluster = cluster(Subnet::Auto, "10.244.0.0/16", "172.29.2.0/24")?;
        let pick = |taken: &[Taken], refused: &[Ipv4Net]| choose(&cluster, taken, refused).map(|n| n.to_string());
        assert_eq!(pick(&[], &[])?, "172.29.0.0/24");
        assert_eq!(
            pick(&[held("172.29.0.128/25")?, held("172.29.1.7/32")?], &[])?,
            "172.29.3.0/24",
            "partly taken, one address, Services"
        );
        assert_eq!(pick(&[held("172.29.0.0/17")?], &[])?, "172.29.128.0/24");
        assert_eq!(pick(&[], &["172.29.0.0/24".parse().map_err(|_| Error::new("bad test"))?])?, "172.29.1.0/24");
        let error = choose(&cluster, &[held("172.16.0.0/12")?], &[]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("no /24 of 172.29.0.0/16") && error.contains("someone"), "{error}");
        Ok(())
    }

    #[test]
    fn a_wanted_one_that_is_taken_names_its_holder() -> Result<()> {
        let fixed = |range: &str| Subnet::try_from(range.to_owned()).map_err(Error::new);
        let cluster = cluster(fixed("10.9.0.0/24")?, "10.244.0.0/16", "10.0.0.0/16")?;
        assert_eq!(choose(&cluster, &[held("10.9.1.0/24")?], &[])?.to_string(), "10.9.0.0/24");
        let what = choose(&cluster, &[held("10.8.0.0/15")?], &[]).err().map(|e| e.what);
        assert_eq!(what.as_deref(), Some("local.subnet: 10.9.0.0/24 is taken by someone"));
        let inside = super::tests::cluster(fixed("10.244.7.0/24")?, "10.244.0.0/16", "10.0.0.0/16")?;
        assert!(choose(&inside, &[], &[]).is_err_and(|e| e.what.contains("network.pods")));
        Ok(())
    }

    #[test]
    fn routes_as_iproute2_writes_them() -> Result<()> {
        let json = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},{"dst":"192.0.2.0/24","dev":"eth0"},
            {"type":"local","dst":"192.0.2.2","dev":"eth0"},{"type":"local","dst":"127.0.0.0/8","dev":"lo"},{"dst":"128.0.0.0/1","dev":"tun0"},
            {"type":"unreachable","dst":"10.1.0.0/16"}]"#;
        let ranges: Vec<String> = parse_routes(json)?.into_iter().map(|t| t.range.to_string()).collect();
        assert_eq!(ranges, ["192.0.2.0/24", "192.0.2.2/32", "10.1.0.0/16"]);
        assert_eq!(parse_routes("")?, []);
        assert!(parse_routes("rubbish").is_err());
        Ok(())
    }
}
