//! What machines may: the rules of the cluster's security groups, one by one, of which with any taken away what it is for stops; and what
//! their roles may read in the bucket.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, ResourceType, SecurityGroupRule, TagSpecification, UserIdGroupPair};

use tokio::process::Command;

use crate::ensure;
use crate::support::api::{Api, name, text};
use crate::support::cluster::run;
use crate::support::{Check, eventually};
use crate::world::World;

/// Seconds that a connection may take: far more than one needs that nothing forbids.
const PATIENCE: u8 = 2;

/// The port of API servers.
const API: u16 = 6443;

/// How `timeout` ends if it had to end something.
const SILENCE: i32 = 124;

/// A machine of the cluster.
#[derive(Debug, Clone)]
struct Machine {
    id: String,
    address: String,
    public: String,
    /// Its address in the pods' network: what is sent there passes the overlay.
    overlay: String,
}

/// A connection that can be made only while a rule is there.
enum Probe {
    /// From outside, to a port.
    Outside(String, u16),
    /// From one machine to another's ports.
    Between(String, String, Vec<u16>),
    /// From one machine to another's address in the pods' network, through the overlay. Nothing listens there, and it says so at once.
    Overlay(String, String),
}

impl Probe {
    /// Whether all its connections can be made.
    async fn works(&self, world: &World) -> Check<bool> {
        let connect = |host: &str, port: u16| format!("timeout {PATIENCE} bash -c '</dev/tcp/{host}/{port}' 2>/dev/null");
        match self {
            // A load balancer takes a connection before it knows whether it can hand it on.
            Probe::Outside(host, port) if *port == API => {
                let url = format!("https://{host}:{port}/version");
                let words = ["-sk", "--noproxy", "*", "-o", "/dev/null", "-m", &PATIENCE.to_string(), &url];
                Ok(run(Command::new("curl").args(words), None).await?.code == Some(0))
            }
            Probe::Outside(host, port) => {
                let limit = std::time::Duration::from_secs(PATIENCE.into());
                let connected = tokio::time::timeout(limit, tokio::net::TcpStream::connect((host.as_str(), *port))).await;
                Ok(matches!(connected, Ok(Ok(_))))
            }
            Probe::Between(from, to, ports) => {
                let all: Vec<String> = ports.iter().map(|port| connect(to, *port)).collect();
                Ok(world.on(from, &all.join(" && ")).await?.code == Some(0))
            }
            Probe::Overlay(from, to) => Ok(world.on(from, &connect(to, 9)).await?.code != Some(SILENCE)),
        }
    }
}

/// A rule as people say it: `tcp 6443 of master from minion`.
struct Named<'a> {
    rule: &'a SecurityGroupRule,
    groups: &'a BTreeMap<String, String>,
}

impl Named<'_> {
    fn of(&self) -> &str {
        self.groups.get(self.rule.group_id().unwrap_or_default()).map_or("?", String::as_str)
    }

    /// The group that it lets in, or a range.
    fn source(&self) -> &str {
        let group = self.rule.referenced_group_info().and_then(|info| info.group_id());
        group.and_then(|id| self.groups.get(id)).map(String::as_str).or(self.rule.cidr_ipv4()).unwrap_or("?")
    }

    fn ports(&self) -> (&str, i32, i32) {
        let rule = self.rule;
        (rule.ip_protocol().unwrap_or_default(), rule.from_port().unwrap_or_default(), rule.to_port().unwrap_or_default())
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, from, to) = self.ports();
        write!(f, "{protocol} {from}-{to} of {} from {}", self.of(), self.source())
    }
}

/// Takes every rule away, sees what it is for stop while all else goes on, and gives it back. Rules among masters need a second one.
/// Says how many were tried.
pub async fn each_is_needed(world: &World, api: &Api, cluster: &str) -> Check<usize> {
    let machines = machines(world, api).await?;
    let ec2 = world.ec2().await;
    let ours = Filter::builder().name("tag:kup.dev/cluster").values(cluster).build();
    let groups = ec2.describe_security_groups().filters(ours.clone()).send().await?;
    let groups: BTreeMap<String, String> = groups
        .security_groups()
        .iter()
        .map(|group| {
            let role = group.tags().iter().find(|tag| tag.key() == Some("kup.dev/role")).and_then(|tag| tag.value());
            (group.group_id().unwrap_or_default().to_owned(), role.unwrap_or_default().to_owned())
        })
        .collect();
    let rules = ec2.describe_security_group_rules().filters(ours).send().await?;
    let mut probes = Vec::new();
    for rule in rules.security_group_rules() {
        let named = Named { rule, groups: &groups };
        if let Some(probe) = probe(&named, &machines, world)? {
            ensure!(probe.works(world).await?, "{named}: what it is for does not work with it");
            probes.push((named, probe));
        }
    }
    ensure!(probes.len() >= 10, "of {} rules only {} can be tried", rules.security_group_rules().len(), probes.len());
    for (n, (named, probe)) in probes.iter().enumerate() {
        let rule = named.rule;
        let (group, id) = (rule.group_id().unwrap_or_default(), rule.security_group_rule_id().unwrap_or_default());
        ec2.revoke_security_group_ingress().group_id(group).security_group_rule_ids(id).send().await?;
        let stopped = eventually(&format!("{named}: what it is for to stop without it"), async || {
            Ok(if probe.works(world).await? { Err("it goes on".to_owned()) } else { Ok(()) })
        })
        .await;
        // Another rule's, to see that it was this one.
        let other = &probes[(n + 1) % probes.len()];
        let goes_on = other.1.works(world).await;
        let tags =
            TagSpecification::builder().resource_type(ResourceType::SecurityGroupRule).set_tags(Some(rule.tags().to_vec()));
        let call = ec2.authorize_security_group_ingress().group_id(group).ip_permissions(permission(rule));
        call.tag_specifications(tags.build()).send().await?;
        stopped?;
        ensure!(goes_on?, "without {named} also this stops: {}", other.0);
        eventually(&format!("{named}: what it is for to work again"), async || {
            Ok(if probe.works(world).await? { Ok(()) } else { Err("it does not".to_owned()) })
        })
        .await?;
    }
    Ok(probes.len())
}

fn permission(rule: &SecurityGroupRule) -> IpPermission {
    let made = IpPermission::builder()
        .set_ip_protocol(rule.ip_protocol().map(str::to_owned))
        .set_from_port(rule.from_port())
        .set_to_port(rule.to_port());
    let why = rule.description().map(str::to_owned);
    match rule.referenced_group_info() {
        Some(info) => {
            let group = UserIdGroupPair::builder().set_group_id(info.group_id().map(str::to_owned)).set_description(why);
            made.user_id_group_pairs(group.build()).build()
        }
        None => {
            let range = IpRange::builder().set_cidr_ip(rule.cidr_ipv4().map(str::to_owned)).set_description(why);
            made.ip_ranges(range.build()).build()
        }
    }
}

/// What only this rule allows; `None` if there is no second machine to try it with.
fn probe(rule: &Named<'_>, machines: &BTreeMap<String, Vec<Machine>>, world: &World) -> Check<Option<Probe>> {
    let of = |role: &str| machines.get(role).cloned().unwrap_or_default();
    let (protocol, from, to) = rule.ports();
    let (Ok(first), Ok(last)) = (u16::try_from(from), u16::try_from(to)) else {
        return Err(format!("{rule}: no such ports").into());
    };
    let balanced = rule.of() == "balancer" || rule.source() == "balancer";
    if balanced || !["master", "minion"].contains(&rule.source()) {
        // The name that users have for the load balancer, or a machine's own address.
        let target = match balanced {
            true => Some(world.server()?),
            false => of(rule.of()).first().map(|machine| machine.public.clone()),
        };
        let target = target.ok_or_else(|| format!("{rule}: nothing is in that group"))?;
        return Ok(Some(Probe::Outside(target, first)));
    }
    // The last of one group and the first of the other: two, unless it is one alone.
    let (sources, targets) = (of(rule.source()), of(rule.of()));
    let (Some(source), Some(target)) = (sources.last(), targets.first()) else { return Ok(None) };
    if source.id == target.id {
        return Ok(None);
    }
    Ok(Some(match protocol {
        "udp" => Probe::Overlay(source.id.clone(), target.overlay.clone()),
        _ => Probe::Between(source.id.clone(), target.address.clone(), (first..=last).collect()),
    }))
}

/// The machines of each role.
async fn machines(world: &World, api: &Api) -> Check<BTreeMap<String, Vec<Machine>>> {
    let nodes: BTreeMap<String, String> =
        api.list("/api/v1/nodes").await?.iter().map(|node| (name(node), text(&node["spec"]["podCIDR"]))).collect();
    let mut all = BTreeMap::new();
    for role in ["master", "minion"] {
        let mut machines = Vec::new();
        for instance in world.instances(role).await? {
            let id = instance.instance_id().unwrap_or_default().to_owned();
            let range = nodes.get(&id).ok_or_else(|| format!("{id} is no Node"))?;
            machines.push(Machine {
                address: instance.private_ip_address().unwrap_or_default().to_owned(),
                public: instance.public_ip_address().unwrap_or_default().to_owned(),
                overlay: range.split('/').next().unwrap_or_default().to_owned(),
                id,
            });
        }
        all.insert(role.to_owned(), machines);
    }
    Ok(all)
}

/// Machines read what they start from in the bucket, and the cluster's keys nowhere, by the very functions that their own scripts use.
pub async fn roles_read_no_keys(world: &World) -> Check {
    let imds = include_str!("../../templates/shell/imds.sh");
    let get = include_str!("../../templates/shell/bucket.sh");
    let minion = world.instances("minion").await?.iter().find_map(|i| i.instance_id().map(str::to_owned)).ok_or("no minion")?;
    let settings = world.on(&minion, "cat /var/lib/kup/boot/settings").await?.ok("the minion's settings")?;
    let of = |name: &str| settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let known =
        format!("imds=http://169.254.169.254 bucket='{}' region='{}' account='{}'", of("bucket"), of("region"), of("account"));
    let ask = "login || echo \"$why\"\nget node/manifest /dev/null && echo may\nget pki/keys.json /dev/null || echo \"$why\"\n";
    let master = world.instances("master").await?.iter().find_map(|i| i.instance_id().map(str::to_owned)).ok_or("no master")?;
    for machine in [minion, master] {
        let said = world.on(&machine, &format!("{known}\n{imds}\n{get}\n{ask}")).await?.stdout;
        ensure!(said == "may\npki/keys.json can't be had from the bucket yet (HTTP 403)\n", "{machine}: {said}");
    }
    Ok(())
}
