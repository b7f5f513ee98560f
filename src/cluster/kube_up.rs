//! kube-up's own variables: they win over the defaults only, and what they ask for and can't get is said.

use serde_yaml::Value;

use super::aws::region_of;
use super::problem::{Origin, Problem};
use super::schema::Schema;
use super::source::{Setting, Source, typed};
use super::spec::ProviderKind;

/// One of kube-up's variables.
struct Variable {
    name: &'static str,
    path: &'static str,
    /// The provider whose clusters it describes; none for all.
    provider: Option<ProviderKind>,
    /// From its text to that of the field, or why it has no effect.
    convert: fn(&str) -> Result<String, String>,
}

const fn every(name: &'static str, path: &'static str) -> Variable {
    Variable { name, path, provider: None, convert: same }
}

const fn aws(name: &'static str, path: &'static str) -> Variable {
    Variable { name, path, provider: Some(ProviderKind::Aws), convert: same }
}

/// Of two for one field the later one is the newer name, or the one that kube-up itself preferred, and wins.
const VARIABLES: [Variable; 28] = [
    every("KUBERNETES_PROVIDER", "provider"),
    every("NUM_MINIONS", "minions.count"),
    every("NUM_NODES", "minions.count"),
    every("CLUSTER_IP_RANGE", "network.pods"),
    every("SERVICE_CLUSTER_IP_RANGE", "network.services"),
    every("DNS_SERVER_IP", "network.dns"),
    every("DNS_DOMAIN", "network.domain"),
    aws("CLUSTER_ID", "name"),
    aws("KUBE_AWS_INSTANCE_PREFIX", "name"),
    aws("KUBE_AWS_ZONE", "aws.zones"),
    aws("MASTER_SIZE", "aws.masters.type"),
    aws("MASTER_ROOT_DISK_SIZE", "aws.masters.rootVolume"),
    aws("MASTER_DISK_SIZE", "aws.etcdVolume"),
    aws("MINION_SIZE", "aws.minions.type"),
    aws("NODE_SIZE", "aws.minions.type"),
    aws("MINION_ROOT_DISK_SIZE", "aws.minions.rootVolume"),
    aws("NODE_ROOT_DISK_SIZE", "aws.minions.rootVolume"),
    Variable { convert: base, ..aws("KUBE_VPC_CIDR_BASE", "aws.vpc.cidr") },
    aws("VPC_ID", "aws.vpc.id"),
    aws("SUBNET_ID", "aws.vpc.subnets"),
    aws("SSH_CIDR", "aws.access.ssh"),
    aws("HTTP_API_CIDR", "aws.access.api"),
    aws("AWS_SSH_KEY", "aws.sshKey"),
    Variable { convert: image, ..aws("KUBE_NODE_IMAGE", "aws.image") },
    Variable { convert: image, ..aws("AWS_IMAGE", "aws.image") },
    Variable { convert: public, ..aws("KUBE_ENABLE_NODE_PUBLIC_IP", "") },
    Variable { convert: network, ..aws("NETWORK_PROVIDER", "") },
    Variable { convert: runtime, ..aws("KUBE_CONTAINER_RUNTIME", "") },
];

/// What has no equal, and what there is instead.
const WITHOUT_EQUAL: [(&str, &str); 20] = [
    ("AWS_IMAGE_NAME", "aws.image takes a distribution's name or an image's id"),
    ("AWS_S3_BUCKET", "each cluster has a bucket of its own"),
    ("AWS_S3_REGION", "the bucket is in the cluster's region"),
    ("DHCP_OPTION_SET_ID", "aws.vpc.domain sets the domain that DHCP tells the machines"),
    ("DOCKER_STORAGE", "containers run by containerd, on overlayfs"),
    ("EXTRA_DOCKER_OPTS", "containers run by containerd; `registries` has the settings of registries"),
    ("KUBE_CONFIG_CONTEXT", "the context is named after provider and cluster"),
    ("KUBE_ENABLE_CLUSTER_AUTOSCALER", "aws.groups[NAME].min and .max are the bounds of one that you install"),
    ("KUBE_OS_DISTRIBUTION", "aws.image chooses the distribution"),
    ("KUBE_SUBNET_CIDR", "the subnets are taken from aws.vpc.cidr, one a zone"),
    ("KUBE_USE_EXISTING_MASTER", "aws.zones spreads one cluster's machines over zones"),
    ("MASTER_DISK_TYPE", "volumes are encrypted gp3"),
    ("MASTER_INTERNAL_IP", "kup chooses the masters' addresses"),
    ("MASTER_IP_RANGE", "masters take their pods' addresses from network.pods, as minions do"),
    ("MASTER_RESERVED_IP", "a master's public address is made with the cluster, and kept when the machine is replaced"),
    ("MASTER_ROOT_DISK_TYPE", "volumes are encrypted gp3"),
    ("NODE_ROOT_DISK_TYPE", "volumes are encrypted gp3"),
    ("NODE_SPOT_PRICE", "aws.groups[NAME].spot is the share of spot instances, at the market's price"),
    ("NON_MASQUERADE_CIDR", "what leaves network.pods is masqueraded"),
    ("VPC_NAME", "the VPC is named after the cluster; aws.vpc.id chooses an existing one"),
];

fn same(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// `172.20` is the beginning of a range.
fn base(text: &str) -> Result<String, String> {
    Ok(format!("{text}.0.0/16"))
}

fn image(text: &str) -> Result<String, String> {
    if text.starts_with("ami-") {
        return Ok(text.to_owned());
    }
    Err("it is no image's id; aws.image takes one, like ami-0123456789abcdef0, or a distribution's name".into())
}

/// For what kup does in one way only: nothing is said if that is what was asked for.
fn only(text: &str, ours: &str, instead: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case(ours) { Ok(String::new()) } else { Err(instead.to_owned()) }
}

fn public(text: &str) -> Result<String, String> {
    only(text, "true", "minions have public addresses, which only aws.access lets anybody reach")
}

fn network(text: &str) -> Result<String, String> {
    only(text, "flannel", "the pods' network is flannel's")
}

fn runtime(text: &str) -> Result<String, String> {
    only(text, "containerd", "containers run by containerd")
}

/// That a variable has no effect, and why.
pub(super) fn note(name: &str, why: &str) -> String {
    format!("kube-up's {name} has no effect: {why}")
}

/// The names of all that are looked at.
pub fn names() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().map(|variable| variable.name).chain(WITHOUT_EQUAL.iter().map(|(name, _)| *name))
}

/// What the variables set, as far as nothing else does, and notes on what has no effect. `others` is what else was said.
pub(super) fn settings(
    source: &Source,
    schema: &Schema,
    others: &[Setting],
    problems: &mut Vec<Problem>,
) -> (Vec<Setting>, Vec<String>) {
    let said = |path: &str| others.iter().rev().find(|setting| setting.path == path).map(|setting| &setting.value);
    let is_aws = |value: Option<&Value>| value.and_then(Value::as_str) == Some(ProviderKind::Aws.as_str());
    let (mut settings, mut notes): (Vec<Setting>, Vec<String>) = Default::default();
    let mut for_aws = is_aws(said("provider"));
    let mut note = |name: &str, why: &str| notes.push(note(name, why));
    for variable in &VARIABLES {
        if said(variable.path).is_some() || (variable.provider == Some(ProviderKind::Aws) && !for_aws) {
            continue;
        }
        let Some(text) = source.text(variable.name, variable.path, problems) else { continue };
        let text = match (variable.convert)(text) {
            Ok(text) => text,
            Err(why) => {
                note(variable.name, &why);
                continue;
            }
        };
        let Some((path, field)) = schema.find(variable.path) else { continue };
        let value = typed(field, &text);
        if path == "provider" {
            for_aws = is_aws(Some(&value));
        }
        if let (true, Some(region)) = (path == "aws.zones", said("aws.region").and_then(Value::as_str))
            && region_of(&text) != Some(region)
        {
            note(variable.name, &format!("aws.region is {region}, where that zone is not"));
            continue;
        }
        if let Some(older) = settings.iter().position(|setting| setting.path == path) {
            let Setting { value: other, origin, .. } = settings.remove(older);
            if let (true, Origin::Env(other)) = (other != value, origin) {
                note(&other, &format!("{} says something else", variable.name));
            }
        }
        settings.push(Setting { path, value, origin: Origin::Env(variable.name.to_owned()) });
    }
    if for_aws {
        WITHOUT_EQUAL.iter().filter(|(name, _)| source.variable(name).is_some()).for_each(|(name, why)| note(name, why));
    }
    (settings, notes)
}
