//! Finding a cluster on AWS again, with what is kept of it in its bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::types::Instance as Seen;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

use super::secrets::Secrets;
use super::{AwsProvider, arrivals, kept};
use crate::aws::fault::Explain as _;
use crate::aws::resource::elastic_ip::ElasticIp;
use crate::aws::resource::instance::Instance;
use crate::aws::resource::load_balancer::LoadBalancer;
use crate::aws::resource::volume::Volume;
use crate::aws::resource::{self, instance};
use crate::aws::tags::{self, HOST_KEY};
use crate::aws::watch::state_of;
use crate::bootstrap::Minions as _;
use crate::bootstrap::api::ApiClient;
use crate::cluster::Cluster;
use crate::cluster::aws::{Route, is_id, region_of};
use crate::error::{Error, Result};
use crate::graph::{self, Resource as _};
use crate::machine::ssh::host_key;
use crate::machine::{BundleAccess, InCloud, Machine, Role};
use crate::pki::{Pki, layout};
use crate::provider::{ClusterId, Finder, Found, FoundMachine};

/// How long the API of one master may take to tell of the Nodes, and how long all of them together.
const NODE: Duration = Duration::from_secs(3);
/// See [`NODE`].
const NODES: Duration = Duration::from_secs(8);
/// The role of minions, in their tag.
const MINION: &str = "minion";
/// The kinds of things that masters are put together from.
const OF_MASTERS: [&str; 4] = [Instance::KIND, ElasticIp::KIND, LoadBalancer::KIND, Volume::KIND];

impl Finder for AwsProvider {
    /// Masters by the names of their resources, then minions by their ids. A minion's host key is what its Node says, where the API
    /// answers; without one nobody logs in to it.
    async fn discover(&self, name: &str) -> Result<Found> {
        let provider = self.of_cluster(name);
        let mut kinds = resource::kinds();
        kinds.retain(|kind| OF_MASTERS.contains(&kind.name));
        let (kept, found, minions) =
            tokio::try_join!(kept::load(&provider.aws), graph::resource::list_all(&kinds, &provider.aws), minions(&provider))?;
        let route = kept.as_ref().map_or(Route::Public, |kept| kept.cluster.aws.ssh.address);
        let user = kept.as_ref().and_then(|kept| kept.image.as_ref()).map_or("admin", |image| image.user.as_str());
        let masters = arrivals::standing(&provider.aws, &found, route, user)?;
        let mut machines: Vec<FoundMachine> =
            masters.into_iter().map(|(machine, running)| FoundMachine { machine, running }).collect();
        machines.extend(minions.iter().filter_map(|seen| minion(seen, route, user)));
        // Whoever needs the keys says that they are not known.
        if let Ok(Some(keys)) = tokio::time::timeout(NODES, host_keys(&provider, &machines)).await {
            for found in machines.iter_mut().filter(|found| found.machine.role == Role::Minion) {
                found.machine.host_key = keys.get(&found.machine.name).cloned().unwrap_or_default();
            }
        }
        let others = found.iter().filter(|entry| entry.address.kind != Instance::KIND).map(|entry| entry.address.to_string());
        Ok(Found { others: others.collect(), machines })
    }

    async fn clusters(&self) -> Result<Vec<String>> {
        AwsProvider::clusters(self).await
    }

    async fn config(&self, id: &ClusterId) -> Result<Cluster> {
        let provider = self.of_cluster(&id.name);
        let kept = kept::load(&provider.aws).await?;
        kept.map(|kept| kept.cluster).ok_or_else(|| missing(&provider))
    }

    async fn pki(&self, id: &ClusterId) -> Result<Arc<Pki>> {
        let provider = self.of_cluster(&id.name);
        Ok(Secrets::require(&provider.aws).await?.pki)
    }

    async fn console(&self, _: &str, machine: &str) -> Result<String> {
        super::minions::OfGroups(self.aws.clone()).console(machine).await
    }
}

/// What the Nodes of minions say of their SSH host keys: each writes its own, by its own certificate. None if the API can't be asked.
async fn host_keys(provider: &AwsProvider, machines: &[FoundMachine]) -> Option<BTreeMap<String, String>> {
    if !machines.iter().any(|found| found.machine.role == Role::Minion && found.running) {
        return None;
    }
    let secrets = Secrets::read(&provider.aws).await.ok()??;
    let login = layout::admin(&secrets.pki).ok()?;
    for master in machines.iter().filter(|found| found.machine.role == Role::Master && found.running) {
        let api = ApiClient::new(master.machine.route(), &secrets.pki.cluster.pair.cert, &login).ok()?;
        let nodes: Api<Node> = Api::all(api.client());
        if let Ok(Ok(nodes)) = tokio::time::timeout(NODE, nodes.list(&ListParams::default())).await {
            let key = |node: Node| Some((node.metadata.name?, host_key(&node.metadata.annotations?.remove(HOST_KEY)?)?));
            return Some(nodes.items.into_iter().filter_map(key).collect());
        }
    }
    None
}

fn missing(provider: &AwsProvider) -> Error {
    let aws = &provider.aws;
    Error::new(format!("the config of cluster {} is not in its bucket {}", aws.cluster, aws.bucket()))
        .hint(format!("`kup up {}` makes the cluster, or goes on where it was stopped", aws.flags()))
        .hint("`kup get clusters --provider aws` lists those there are in this region")
}

/// The instances of its groups that have not ended.
async fn minions(provider: &AwsProvider) -> Result<Vec<Seen>> {
    let aws = &provider.aws;
    let role = tags::ec2::by(&format!("tag:{}", tags::ROLE), MINION);
    let ask = aws.ec2.describe_instances().filters(tags::ec2::ours(aws)).filters(role).filters(instance::live());
    let found: Vec<_> = ask.into_paginator().items().send().try_collect().await.explain("minions could not be listed")?;
    let mut all: Vec<Seen> = found.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()).collect();
    all.sort_by(|a, b| a.instance_id().cmp(&b.instance_id()));
    Ok(all)
}

/// A minion as kup would log in to it, but for its host key, which its Node says. None for one that is not shaped like AWS's.
fn minion(seen: &Seen, route: Route, user: &str) -> Option<FoundMachine> {
    let id = seen.instance_id().filter(|id| is_id(id, "i-"))?;
    let zone = seen.placement().and_then(|place| place.availability_zone()).filter(|zone| region_of(zone).is_some())?;
    let public = seen.public_ip_address().and_then(|address| address.parse().ok());
    let machine = Machine {
        name: id.to_owned(),
        role: Role::Minion,
        address: seen.private_ip_address()?.parse().ok()?,
        ssh_port: 22,
        user: user.to_owned(),
        host_key: String::new(),
        bundle: BundleAccess::Fetched,
        cloud: Some(InCloud {
            provider_id: instance::provider_id(zone, id),
            resource: id.to_owned(),
            outside: public.filter(|_| route == Route::Public),
            called: Vec::new(),
            etcd_volume: None,
            place: None,
        }),
    };
    Some(FoundMachine { machine, running: state_of(seen).as_str() == "running" })
}
