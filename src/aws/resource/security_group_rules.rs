//! Who may reach what: the rules of each security group.
//!
//! Rules are kup's by their tags. What somebody else adds to a group (by hand, or Kubernetes for a load balancer) stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_sdk_ec2::types::{IpPermission, IpRange, ResourceType, SecurityGroupRule, Tag, UserIdGroupPair};
use ipnet::Ipv4Net;

use super::AwsResource;
use super::security_group::SecurityGroup;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// All that one group lets in.
#[derive(Debug, Clone)]
pub struct SecurityGroupRules {
    /// The name of the group.
    pub name: String,
    /// What it lets in.
    pub rules: Vec<Rule>,
}

/// What is let in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The ports.
    pub ports: Ports,
    /// Where from.
    pub source: Source,
    /// What for, in a word or two.
    pub purpose: &'static str,
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// `tcp` or `udp`; `-1` for all.
    pub protocol: String,
    /// The first.
    pub from: i32,
    /// The last.
    pub to: i32,
}

/// Where something comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Machines of the group of that name.
    Group(String),
    /// A range of addresses.
    Range(Ipv4Net),
}

/// A rule as AWS has it: ports, and the range or the group's id from where they are reached.
type Key = (Ports, String);

/// A group's rules as they were found.
#[derive(Debug, Clone)]
pub struct RulesFound {
    name: String,
    group: String,
    /// Their ids.
    pub rules: BTreeMap<Key, String>,
}

impl Found for RulesFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// The group's.
    fn id(&self) -> &str {
        &self.group
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol.as_str(), self.from == self.to) {
            ("-1", _) => write!(f, "everything"),
            (protocol, true) => write!(f, "{protocol} {}", self.from),
            (protocol, false) => write!(f, "{protocol} {}-{}", self.from, self.to),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Group(name) => write!(f, "{name}"),
            Source::Range(range) => write!(f, "{range}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.ports, self.source)
    }
}

/// Who may reach a cluster from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Ranges that may reach SSH on all machines.
    pub ssh: Vec<Ipv4Net>,
    /// Ranges that may reach the API.
    pub api: Vec<Ipv4Net>,
    /// Whether a load balancer stands before the API.
    pub balancer: bool,
}

/// What a cluster's groups let in, one for each group.
pub fn rules(access: &Access) -> Vec<SecurityGroupRules> {
    let tcp = |from, to| Ports { protocol: "tcp".to_owned(), from, to };
    let udp = |port| Ports { protocol: "udp".to_owned(), from: port, to: port };
    let group = |name: &str| Source::Group(name.to_owned());
    let each = |ranges: &[Ipv4Net], port, purpose| {
        // AWS forgets the host's part of a range, and refuses two rules that are the same.
        let ranges: BTreeSet<Ipv4Net> = ranges.iter().map(Ipv4Net::trunc).collect();
        ranges.into_iter().map(move |range| Rule {
            ports: Ports { protocol: "tcp".to_owned(), from: port, to: port },
            source: Source::Range(range),
            purpose,
        })
    };
    let mut machines = Vec::new();
    for source in ["master", "minion"] {
        machines.push(Rule { ports: tcp(10250, 10250), source: group(source), purpose: "kubelet" });
        machines.push(Rule { ports: udp(8472), source: group(source), purpose: "pod network" });
    }
    machines.extend(each(&access.ssh, 22, "SSH"));
    let mut master = vec![
        Rule { ports: tcp(6443, 6443), source: group("master"), purpose: "API" },
        Rule { ports: tcp(6443, 6443), source: group("minion"), purpose: "API" },
        Rule { ports: tcp(2379, 2380), source: group("master"), purpose: "etcd" },
    ];
    let api: Vec<Rule> = each(&access.api, 6443, "API").collect();
    let mut all = Vec::new();
    if access.balancer {
        master.push(Rule { ports: tcp(6443, 6443), source: group("balancer"), purpose: "API" });
        all.push(SecurityGroupRules { name: "balancer".to_owned(), rules: api.clone() });
    }
    // With a balancer too: kup asks masters one by one, and before the balancer knows them.
    master.extend(api);
    master.extend(machines.clone());
    all.push(SecurityGroupRules { name: "master".to_owned(), rules: master });
    all.push(SecurityGroupRules { name: "minion".to_owned(), rules: machines });
    for one in &mut all {
        one.rules.sort();
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl SecurityGroupRules {
    fn group(&self) -> Ref<SecurityGroup> {
        Ref::to(self.name.as_str())
    }

    /// The wanted rules as AWS will have them, as far as their groups are there.
    fn keys<'a>(&'a self, cx: &Cx<'_, Aws>) -> Vec<(Option<Key>, &'a Rule)> {
        let of = |rule: &Rule| match &rule.source {
            Source::Range(range) => Some((rule.ports.clone(), range.to_string())),
            Source::Group(name) => Some((rule.ports.clone(), cx.look(&Ref::<SecurityGroup>::to(name.as_str()))?.id().to_owned())),
        };
        self.rules.iter().map(|rule| (of(rule), rule)).collect()
    }

    /// The same, when all their groups are there.
    fn wanted(&self, cx: &Cx<'_, Aws>) -> Result<BTreeMap<Key, &'static str>> {
        let mut wanted = BTreeMap::new();
        for (key, rule) in self.keys(cx) {
            let key = key.ok_or_else(|| Error::new(format!("the group of the rule {rule} is not there")))?;
            wanted.insert(key, rule.purpose);
        }
        Ok(wanted)
    }

    /// The groups that these rules name.
    fn groups(&self) -> BTreeSet<&str> {
        let named = self.rules.iter().filter_map(|rule| match &rule.source {
            Source::Group(name) => Some(name.as_str()),
            Source::Range(_) => None,
        });
        named.chain([self.name.as_str()]).collect()
    }
}

impl AwsResource for SecurityGroupRules {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeSecurityGroupRules", Scope::Any),
        need("ec2:AuthorizeSecurityGroupIngress", Scope::Tagged),
        implied("ec2:CreateTags", "ec2:AuthorizeSecurityGroupIngress", Scope::Creates),
        need("ec2:CreateTags", Scope::Creates),
        need("ec2:RevokeSecurityGroupIngress", Scope::Tagged),
    ];
}

impl Resource for SecurityGroupRules {
    type Cloud = Aws;
    type Found = RulesFound;
    const KIND: &'static str = "security group rules";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        self.groups().into_iter().map(|name| Ref::<SecurityGroup>::to(name).address()).collect()
    }

    fn detail(&self) -> String {
        let mut rules: Vec<String> = self.rules.iter().map(Rule::to_string).collect();
        rules.dedup();
        rules.join(", ")
    }

    fn diff(&self, found: &RulesFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let wanted = self.keys(cx);
        let missing = wanted.iter().filter(|(key, _)| !key.as_ref().is_some_and(|key| found.rules.contains_key(key)));
        let missing = missing.map(|(_, rule)| Change::in_place("inbound rule", "absent", rule));
        // A group's name tells more than its id.
        let names: BTreeMap<String, &str> = self
            .groups()
            .into_iter()
            .filter_map(|name| Some((cx.look(&Ref::<SecurityGroup>::to(name))?.id().to_owned(), name)))
            .collect();
        let surplus = found.rules.keys().filter(|key| !wanted.iter().any(|(want, _)| want.as_ref() == Some(*key)));
        let surplus = surplus.map(|(ports, source)| {
            let source = names.get(source).map_or(source.as_str(), |name| *name);
            Change::in_place("inbound rule", format!("{ports} from {source}"), "absent")
        });
        missing.chain(surplus).collect()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<RulesFound> {
        let found = RulesFound { name: self.name.clone(), group: cx.get(&self.group())?.id().to_owned(), rules: BTreeMap::new() };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &RulesFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<RulesFound> {
        let wanted = self.wanted(cx)?;
        let missing =
            wanted.iter().filter(|(key, _)| !found.rules.contains_key(key)).map(|(key, purpose)| (key.clone(), *purpose));
        let (surplus, mut rules): (BTreeMap<Key, String>, BTreeMap<Key, String>) =
            found.rules.clone().into_iter().partition(|(key, _)| !wanted.contains_key(key));
        // First in, then out, so that nobody who stays allowed is shut out for a moment.
        rules.extend(allow(cx.cloud, found, missing.collect()).await?);
        revoke(cx.cloud, &found.group, surplus).await?;
        Ok(RulesFound { rules, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<RulesFound>> {
        let mut groups: BTreeMap<(String, String), BTreeMap<Key, String>> = BTreeMap::new();
        let rules = described(aws, tags::ec2::ours(aws)).await.map_err(|failure| failure.error("rules could not be listed"))?;
        for rule in rules {
            let (Some(group), Some(id)) = (&rule.group_id, &rule.security_group_rule_id) else { continue };
            let name = tags::ec2::name(rule.tags(), group);
            if let Some(key) = key(&rule) {
                groups.entry((name, group.clone())).or_default().insert(key, id.clone());
            }
        }
        Ok(groups.into_iter().map(|((name, group), rules)| RulesFound { name, group, rules }).collect())
    }

    async fn delete(aws: &Aws, found: &RulesFound) -> Result<()> {
        revoke(aws, &found.group, found.rules.clone()).await
    }
}

async fn described(aws: &Aws, by: aws_sdk_ec2::types::Filter) -> Result<Vec<SecurityGroupRule>, Failure> {
    aws.ec2.describe_security_group_rules().filters(by).into_paginator().items().send().try_collect().await.failure()
}

/// What a rule of AWS's lets in; none if it is about what goes out.
fn key(rule: &SecurityGroupRule) -> Option<Key> {
    if rule.is_egress() == Some(true) {
        return None;
    }
    let group = rule.referenced_group_info().and_then(|group| group.group_id());
    let source = [rule.cidr_ipv4(), rule.cidr_ipv6(), rule.prefix_list_id(), group].into_iter().flatten().next()?;
    let (from, to) = (rule.from_port().unwrap_or(-1), rule.to_port().unwrap_or(-1));
    Some((Ports { protocol: rule.ip_protocol().unwrap_or("-1").to_owned(), from, to }, source.to_owned()))
}

/// Rules in the form in which AWS takes them: one entry for all sources of the same ports.
fn permissions(rules: &BTreeMap<Key, &'static str>) -> Vec<IpPermission> {
    let mut by_ports: BTreeMap<&Ports, Vec<(&str, &str)>> = BTreeMap::new();
    for ((ports, source), purpose) in rules {
        by_ports.entry(ports).or_default().push((source, purpose));
    }
    let one = |(ports, sources): (&Ports, Vec<(&str, &str)>)| {
        let mut permission = IpPermission::builder().ip_protocol(&ports.protocol).from_port(ports.from).to_port(ports.to);
        for (source, purpose) in sources {
            permission = if source.contains('/') {
                permission.ip_ranges(IpRange::builder().cidr_ip(source).description(purpose).build())
            } else {
                permission.user_id_group_pairs(UserIdGroupPair::builder().group_id(source).description(purpose).build())
            };
        }
        permission.build()
    };
    by_ports.into_iter().map(one).collect()
}

/// Adds rules in one call. Those that the group has already (a call whose answer was lost, or somebody by hand) become kup's.
async fn allow(aws: &Aws, found: &RulesFound, mut missing: BTreeMap<Key, &'static str>) -> Result<BTreeMap<Key, String>> {
    let what = format!("what {} lets in could not be set", found.group);
    match authorize(aws, found, &missing).await {
        Ok(made) => return Ok(made),
        Err(failure) if failure.fault == Fault::Exists => {}
        Err(failure) => return Err(failure.error(&what)),
    }
    let here = described(aws, tags::ec2::by("group-id", &found.group)).await.map_err(|failure| failure.error(&what))?;
    let adopted: BTreeMap<Key, String> = here
        .iter()
        .filter_map(|rule| Some((key(rule)?, rule.security_group_rule_id.clone()?)))
        .filter(|(key, _)| missing.remove(key).is_some())
        .collect();
    if !adopted.is_empty() {
        let tag = |(key, value): (String, String)| Tag::builder().key(key).value(value).build();
        let tags = tags::tags(aws, &found.name, None).into_iter().map(tag).collect();
        let call = aws.ec2.create_tags().set_resources(Some(adopted.values().cloned().collect())).set_tags(Some(tags));
        call.send().await.explain(&what)?;
    }
    let mut made = authorize(aws, found, &missing).await.map_err(|failure| failure.error(&what))?;
    made.extend(adopted);
    Ok(made)
}

async fn authorize(
    aws: &Aws,
    found: &RulesFound,
    missing: &BTreeMap<Key, &'static str>,
) -> Result<BTreeMap<Key, String>, Failure> {
    if missing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let specification = tags::ec2::specification(aws, ResourceType::SecurityGroupRule, &found.name, None);
    let permissions = permissions(missing);
    let call = || async {
        let call =
            aws.ec2.authorize_security_group_ingress().group_id(&found.group).set_ip_permissions(Some(permissions.clone()));
        match call.tag_specifications(specification.clone()).send().await.failure().map_err(Failure::fresh) {
            // Not what `until_unblocked` waits for: the caller knows what to do.
            Err(failure) if !matches!(failure.fault, Fault::NotYet | Fault::Blocked) => Ok(Err(failure)),
            outcome => outcome.map(Ok),
        }
    };
    let what = format!("what {} lets in could not be set", found.group);
    let answer = aws.until_unblocked(&what, call).await.map_err(|error| Failure {
        fault: Fault::Other,
        code: String::new(),
        message: error.why.first().cloned().unwrap_or(error.what),
        request: None,
        call: None,
    })??;
    let rules = answer.security_group_rules.unwrap_or_default();
    Ok(rules.iter().filter_map(|rule| Some((key(rule)?, rule.security_group_rule_id.clone()?))).collect())
}

/// Takes rules away in one call. If one of them is gone already AWS takes none: then those that are left go in another call.
async fn revoke(aws: &Aws, group: &str, mut rules: BTreeMap<Key, String>) -> Result<()> {
    let what = format!("rules of {group} could not be removed");
    while !rules.is_empty() {
        let ids: Vec<String> = rules.values().cloned().collect();
        match aws
            .ec2
            .revoke_security_group_ingress()
            .group_id(group)
            .set_security_group_rule_ids(Some(ids))
            .send()
            .await
            .failure()
        {
            Ok(_) => return Ok(()),
            Err(failure) if failure.fault == Fault::Gone => {
                let here = described(aws, tags::ec2::by("group-id", group)).await;
                let here: BTreeSet<String> = match here {
                    Ok(rules) => rules.into_iter().filter_map(|rule| rule.security_group_rule_id).collect(),
                    Err(failure) if failure.fault == Fault::Gone => BTreeSet::new(),
                    Err(failure) => return Err(failure.error(&what)),
                };
                let before = rules.len();
                rules.retain(|_, id| here.contains(id));
                if rules.len() == before {
                    return Err(failure.error(&what));
                }
            }
            Err(failure) => return Err(failure.error(&what)),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "security_group_rules_tests.rs"]
mod tests;
