//! What the engine lists: containers, networks and volumes, in the two engines' different words.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ASK, Engine, EngineKind, is_gone};
use crate::error::{Context, Result};

/// A container as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its processes run.
    pub running: bool,
}

/// A network as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its IPv4 ranges.
    pub subnets: Vec<ipnet::Ipv4Net>,
}

/// A volume as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// All containers that carry these labels (`key=value` or `key`), running or not; with no label, all there are.
    pub async fn containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Podman {
            names: Vec<String>,
            labels: Option<BTreeMap<String, String>>,
            state: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Docker {
            name: String,
            config: DockerConfig,
            state: DockerState,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct DockerConfig {
            labels: Option<BTreeMap<String, String>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct DockerState {
            running: bool,
        }
        Ok(match self.kind {
            EngineKind::Podman => self
                .list::<Podman>(&["ps", "-a", "--format", "json"], labels)
                .await?
                .into_iter()
                .map(|c| Container {
                    name: c.names.into_iter().next().unwrap_or_default(),
                    labels: c.labels.unwrap_or_default(),
                    running: c.state == "running",
                })
                .collect(),
            EngineKind::Docker => self
                .inspect::<Docker>(&["ps", "-a", "-q", "--no-trunc"], "container", labels)
                .await?
                .into_iter()
                .map(|c| Container {
                    name: c.name.trim_start_matches('/').to_owned(),
                    labels: c.config.labels.unwrap_or_default(),
                    running: c.state.running,
                })
                .collect(),
        })
    }

    /// All networks that carry these labels; with no label, all there are.
    pub async fn networks(&self, labels: &[String]) -> Result<Vec<Network>> {
        #[derive(Deserialize)]
        struct Podman {
            name: String,
            labels: Option<BTreeMap<String, String>>,
            subnets: Option<Vec<PodmanSubnet>>,
        }
        #[derive(Deserialize)]
        struct PodmanSubnet {
            subnet: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Docker {
            name: String,
            labels: Option<BTreeMap<String, String>>,
            #[serde(rename = "IPAM")]
            ipam: DockerIpam,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct DockerIpam {
            config: Option<Vec<DockerSubnet>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct DockerSubnet {
            subnet: Option<String>,
        }
        // IPv6 ranges don't parse as IPv4 ones, and need no look: kup's networks have none.
        Ok(match self.kind {
            EngineKind::Podman => self
                .list::<Podman>(&["network", "ls", "--format", "json"], labels)
                .await?
                .into_iter()
                .map(|n| Network {
                    name: n.name,
                    labels: n.labels.unwrap_or_default(),
                    subnets: n.subnets.unwrap_or_default().iter().filter_map(|s| s.subnet.parse().ok()).collect(),
                })
                .collect(),
            EngineKind::Docker => self
                .inspect::<Docker>(&["network", "ls", "-q", "--no-trunc"], "network", labels)
                .await?
                .into_iter()
                .map(|n| Network {
                    name: n.name,
                    labels: n.labels.unwrap_or_default(),
                    subnets: n.ipam.config.unwrap_or_default().into_iter().filter_map(|c| c.subnet?.parse().ok()).collect(),
                })
                .collect(),
        })
    }

    /// All volumes that carry these labels; with no label, all there are.
    pub async fn volumes(&self, labels: &[String]) -> Result<Vec<Volume>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            name: String,
            labels: Option<BTreeMap<String, String>>,
        }
        let listed: Vec<Listed> = match self.kind {
            EngineKind::Podman => self.list(&["volume", "ls", "--format", "json"], labels).await?,
            EngineKind::Docker => self.inspect(&["volume", "ls", "-q"], "volume", labels).await?,
        };
        Ok(listed.into_iter().map(|v| Volume { name: v.name, labels: v.labels.unwrap_or_default() }).collect())
    }

    async fn list<T: for<'de> Deserialize<'de>>(&self, args: &[&str], labels: &[String]) -> Result<Vec<T>> {
        let text = self.run(ASK, filtered(args, labels)).await?;
        self.parse(args, if text.trim().is_empty() { "[]" } else { &text })
    }

    /// Docker's lists show labels as one ambiguous string, so its things are listed by id and then inspected together.
    async fn inspect<T: for<'de> Deserialize<'de>>(&self, args: &[&str], kind: &str, labels: &[String]) -> Result<Vec<T>> {
        let mut tries = 3;
        loop {
            let ids = self.run(ASK, filtered(args, labels)).await?;
            if ids.trim().is_empty() {
                return Ok(Vec::new());
            }
            tries -= 1;
            match self.run(ASK, [kind, "inspect"].into_iter().chain(ids.split_whitespace())).await {
                Ok(text) => return self.parse(args, &text),
                // One disappeared in between: list again.
                Err(e) if is_gone(&e) && tries > 0 => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, args: &[&str], text: &str) -> Result<Vec<T>> {
        serde_json::from_str(text)
            .with_context(|| format!("`{} {}` answered with something else than expected", self.name(), args.join(" ")))
    }
}

fn filtered(args: &[&str], labels: &[String]) -> Vec<String> {
    args.iter().map(|a| (*a).to_owned()).chain(labels.iter().map(|l| format!("--filter=label={l}"))).collect()
}
