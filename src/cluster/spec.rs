//! The config file's shape. Field comments are what `kup config schema` and the commented `config-default.yaml` say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::addons::Addons;
use super::aws::Aws;
use super::registries::Registry;

/// The only `apiVersion` of this release.
pub const API_VERSION: &str = "kup.dev/v1alpha1";
/// The only `kind` of a config file.
pub const KIND: &str = "Cluster";

/// A cluster's whole config. Every field has a default: an empty file is the default cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Version of this file's format.
    #[schemars(extend("const" = API_VERSION))]
    pub api_version: String,
    /// Always `Cluster`.
    #[schemars(extend("const" = KIND))]
    pub kind: String,
    /// The cluster's name: lower-case letters, digits and hyphens, at most 40 characters. Everything kup makes carries it.
    #[schemars(extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"))]
    pub name: String,
    /// Who makes the machines.
    pub provider: ProviderKind,
    /// The orchestrator.
    pub kubernetes: Kubernetes,
    /// Machines that run the control plane.
    #[serde(alias = "controlPlane")]
    pub masters: Masters,
    /// Machines that run workloads.
    #[serde(alias = "nodeGroups")]
    pub minions: Minions,
    /// Address ranges inside the cluster.
    pub network: Network,
    /// What runs on the cluster beside Kubernetes itself.
    pub addons: Addons,
    /// Settings of the AWS provider.
    pub aws: Aws,
    /// Settings of the local provider.
    pub local: Local,
    /// Registries that images are pulled from, by host (and port) as images' names begin with it.
    #[schemars(extend("propertyNames" = { "title": "host" }))]
    pub registries: BTreeMap<String, Registry>,
}

impl Cluster {
    /// The config as it is kept: unlike in its plain serialisation, passwords stand in it.
    pub fn with_secrets(&self) -> serde_yaml::Result<serde_yaml::Value> {
        let mut value = serde_yaml::to_value(self)?;
        for (host, registry) in &self.registries {
            if let Some(password) = &registry.password {
                value["registries"][host.as_str()]["password"] = password.reveal().into();
            }
        }
        Ok(value)
    }
}

/// Who makes machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// EC2 instances on AWS.
    Aws,
    /// Containers on this machine.
    Local,
}

impl ProviderKind {
    /// The word used in the config, in contexts and in directory names.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProviderKind::Aws => "aws",
            ProviderKind::Local => "local",
        }
    }
}

/// The orchestrator's version and settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// One of the versions in `kup version`, for example `1.37.1`.
    pub version: String,
    /// Ports that NodePort Services may use, on every node.
    pub service_node_port_range: PortRange,
    /// Pods a node may run; the kubelet's own default is 110.
    #[schemars(range(min = 10, max = 253))]
    pub max_pods: u16,
}

/// A range of ports, written `first-last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "port-range", "pattern" = "^[0-9]+-[0-9]+$"))]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a port range; write it like 30000-32767");
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let (first, last) = (first.trim().parse::<u16>().map_err(|_| bad())?, last.trim().parse::<u16>().map_err(|_| bad())?);
        if first == 0 || first > last {
            return Err(bad());
        }
        Ok(PortRange { first, last })
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

/// The machines that run the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Masters {
    /// How many: an odd number, since etcd needs a majority. It can be raised later.
    #[schemars(range(min = 1, max = 7))]
    pub count: u16,
}

/// The machines that run workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Minions {
    /// How many; with 0 the master runs workloads too.
    pub count: u16,
}

/// Address ranges inside the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Range that pods get addresses from; each node takes a /24 of it.
    #[schemars(with = "String", extend("format" = "ipv4-range"))]
    pub pods: Ipv4Net,
    /// Range of Services' cluster addresses.
    #[schemars(with = "String", extend("format" = "ipv4-range"))]
    pub services: Ipv4Net,
    /// Address of the cluster's DNS Service, inside `services`.
    pub dns: Ipv4Addr,
    /// DNS domain of the cluster.
    pub domain: String,
}

/// Settings of the local provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Local {
    /// Container engine: `auto` takes podman or docker, whichever answers.
    pub engine: EngineChoice,
    /// The machines' network, `auto` for the first free /24 of 172.29.0.0/16.
    pub subnet: Subnet,
    /// Node image to use instead of the one that `kup image build` makes.
    pub image: Option<String>,
    /// How machines get the bundle: mounted read-only, or sent over SSH as to any other machine.
    pub bundle: BundleRoute,
    /// A private SSH key (OpenSSH, ed25519) to use instead of one of the cluster's own.
    pub ssh_key: Option<PathBuf>,
}

/// Which container engine to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// podman or docker, whichever answers.
    Auto,
    /// podman.
    Podman,
    /// docker.
    Docker,
}

/// The local machines' network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "auto-or-ipv4-range"))]
pub enum Subnet {
    /// The first free one.
    Auto,
    /// This one.
    Fixed(Ipv4Net),
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Subnet::Auto);
        }
        text.parse().map(Subnet::Fixed).map_err(|_| format!("`{text}` is neither `auto` nor a range like 172.29.0.0/24"))
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        match subnet {
            Subnet::Auto => "auto".into(),
            Subnet::Fixed(net) => net.to_string(),
        }
    }
}

/// How local machines get the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BundleRoute {
    /// The bundle's directory is mounted read-only.
    Mount,
    /// One stream over an SSH channel, as for machines elsewhere.
    Ssh,
}
