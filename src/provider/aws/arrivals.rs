//! Masters as they come: from things that AWS says are there to machines that kup can log in to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::first_login;
use crate::aws::Aws;
use crate::aws::layout::{self, Surroundings};
use crate::aws::resource::elastic_ip::ElasticIp;
use crate::aws::resource::instance::{Instance, InstanceFound, provider_id};
use crate::aws::resource::load_balancer::LoadBalancer;
use crate::aws::resource::volume::Volume;
use crate::cluster::Cluster;
use crate::cluster::aws::{Route, is_id, region_of};
use crate::cluster::problem::quoted as shown;
use crate::error::{Error, Result};
use crate::graph::{Entry, Found as _, Resource as _};
use crate::machine::files::aws::Place;
use crate::machine::ssh::{LoginKey, host_key};
use crate::machine::{BundleAccess, InCloud, Machine, Role};
use crate::provider::{ClusterId, MachineSender};
use crate::report::Report;
use crate::saved;

/// What the first login to a master needs.
pub struct Arrivals<'a> {
    /// The cloud.
    pub aws: &'a Aws,
    /// What is wanted.
    pub cluster: &'a Cluster,
    /// Which image, and so which user.
    pub around: &'a Surroundings,
    /// How long a machine may take to let kup in, if not the usual time.
    pub patience: Option<Duration>,
    /// Where progress goes.
    pub report: &'a Report,
}

/// What has come so far that masters are put together from.
#[derive(Default)]
struct Seen {
    volumes: BTreeMap<String, String>,
    addresses: BTreeMap<String, String>,
    balancer: Option<String>,
    waiting: Vec<InstanceFound>,
}

impl Arrivals<'_> {
    /// Hands on each master as soon as it can be logged in to by a host key of its own, until no more things come.
    ///
    /// # Errors
    /// A master that can't be logged in to.
    pub async fn masters(&self, mut things: UnboundedReceiver<Entry>, machines: MachineSender) -> Result<()> {
        let mut seen = Seen::default();
        let mut logins = FuturesUnordered::new();
        let mut open = true;
        let span = self.report.step("first logins");
        let outcome = loop {
            tokio::select! {
                thing = things.recv(), if open => match thing {
                    Some(thing) => {
                        if let Err(e) = seen.take(&thing) {
                            break Err(e);
                        }
                        // Several are called by the load balancer's name, which stands in their certificates.
                        if self.cluster.masters.count == 1 || seen.balancer.is_some() {
                            for found in std::mem::take(&mut seen.waiting) {
                                let machine = self.machine(&found, &seen);
                                let part = span.child(found.name());
                                logins.push(async move {
                                    let outcome = async {
                                        first_login::adopt(self.aws, &found, machine?, &self.login()?, self.patience, &part).await
                                    };
                                    let outcome = outcome.await;
                                    part.close(outcome)
                                });
                            }
                        }
                    }
                    None => open = false,
                },
                Some(machine) = logins.next() => match machine {
                    // Whoever wanted it may have failed meanwhile, and says so itself.
                    Ok(machine) => drop(machines.send(machine)),
                    Err(e) => break Err(e),
                },
                else => break Ok(()),
            }
        };
        span.close(outcome)
    }

    /// The key that lets kup in: it is there once an instance is.
    fn login(&self) -> Result<LoginKey> {
        let id = ClusterId { provider: self.cluster.provider, name: self.cluster.name.clone() };
        saved::login_key(&id, self.cluster)
    }

    fn machine(&self, found: &InstanceFound, seen: &Seen) -> Result<Machine> {
        machine(found, self.cluster.aws.ssh.address, &self.around.image.user, &seen.facts(found, self.aws))
    }
}

/// What is known of a master beside its instance.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its address outside of its network.
    pub public: Option<String>,
    /// The load balancer's name, of several.
    pub balancer: Option<String>,
    /// The id of the volume for etcd.
    pub volume: Option<String>,
    /// Where it is.
    pub place: Option<Place>,
}

/// Whether what AWS says of a master is shaped as AWS shapes it: it becomes words of commands and of units that root runs.
fn shaped(found: &InstanceFound, facts: &Facts) -> Result<()> {
    let ids = [("instance", found.id(), "i-"), ("VPC", found.vpc.as_str(), "vpc-"), ("subnet", found.subnet.as_str(), "subnet-")];
    let volume = facts.volume.as_deref().map(|id| ("volume", id, "vol-"));
    let odd = ids.into_iter().chain(volume).find(|(_, id, prefix)| !is_id(id, prefix)).map(|(what, id, _)| (what, id));
    let zone = region_of(&found.zone).is_none().then_some(("zone", found.zone.as_str()));
    let called = facts.balancer.as_deref().filter(|name| !is_host(name)).map(|name| ("load balancer", name));
    match odd.or(zone).or(called) {
        None => Ok(()),
        Some((what, word)) => Err(Error::new(format!("AWS says of the master {} what can't be", shown(found.name())))
            .why(format!("{} is the name of no {what}", shown(word)))
            .hint("try again: nothing was done with it")),
    }
}

/// Whether a text is shaped like a host's name.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// A master as kup logs in to it: by its own host key, if it has made one, else by the one that it booted with.
///
/// # Errors
/// One whose host key was never known, or without an address, or with ids that are none.
pub fn machine(found: &InstanceFound, route: Route, user: &str, facts: &Facts) -> Result<Machine> {
    let id = found.id();
    shaped(found, facts)?;
    let host_key = found.own_host_key.as_deref().or(found.host_key.as_deref()).and_then(host_key).ok_or_else(|| {
        Error::new(format!("the instance {id} has no tag with its SSH host key, so nobody can know that it is the right one"))
            .hint(format!("`kup up --replace {}` makes it anew", found.name()))
    })?;
    let address = |text: &str, which: &str| {
        text.parse::<Ipv4Addr>().map_err(|_| Error::new(format!("the instance {id} has no {which} address")))
    };
    let public = facts.public.as_deref().or(found.public_address.as_deref());
    let outside = match route {
        Route::Public => Some(address(public.unwrap_or_default(), "public")?),
        Route::Private => None,
    };
    Ok(Machine {
        name: id.to_owned(),
        role: Role::Master,
        address: address(&found.private_address, "private")?,
        ssh_port: 22,
        user: user.to_owned(),
        host_key,
        bundle: BundleAccess::Fetched,
        cloud: Some(InCloud {
            provider_id: provider_id(&found.zone, id),
            resource: found.name().to_owned(),
            outside,
            called: public.into_iter().chain(facts.balancer.as_deref()).map(str::to_owned).collect(),
            etcd_volume: facts.volume.clone(),
            place: facts.place.clone(),
        }),
    })
}

impl Seen {
    fn take(&mut self, thing: &Entry) -> Result<()> {
        match thing.address.kind {
            Instance::KIND => self.waiting.push(thing.value::<Instance>()?.clone()),
            Volume::KIND => drop(self.volumes.insert(thing.address.name.clone(), thing.id.clone())),
            ElasticIp::KIND => {
                let address = thing.value::<ElasticIp>()?.address.clone();
                self.addresses.insert(thing.address.name.clone(), address);
            }
            LoadBalancer::KIND => self.balancer = Some(thing.value::<LoadBalancer>()?.dns_name.clone()),
            _ => {}
        }
        Ok(())
    }

    fn facts(&self, found: &InstanceFound, aws: &Aws) -> Facts {
        Facts {
            public: self.addresses.get(found.name()).cloned(),
            balancer: self.balancer.clone(),
            volume: self.volumes.get(&layout::etcd_volume(found.name())).cloned(),
            place: Some(Place {
                region: aws.region.clone(),
                vpc: found.vpc.clone(),
                subnet: found.subnet.clone(),
                endpoint: aws.endpoint.clone(),
            }),
        }
    }
}

/// All masters of a listing, by name.
///
/// # Errors
/// As [`machine`].
pub fn standing(aws: &Aws, found: &[Entry], route: Route, user: &str) -> Result<Vec<(Machine, bool)>> {
    let mut seen = Seen::default();
    for thing in found {
        seen.take(thing)?;
    }
    let masters = seen.waiting.iter().map(|master| {
        let running = master.state == "running";
        Ok((machine(master, route, user, &seen.facts(master, aws))?, running))
    });
    let mut masters = masters.collect::<Result<Vec<_>>>()?;
    masters.sort_by(|(a, _), (b, _)| resource(a).cmp(resource(b)));
    Ok(masters)
}

fn resource(machine: &Machine) -> &str {
    machine.cloud.as_ref().map_or(machine.name.as_str(), |cloud| cloud.resource.as_str())
}
