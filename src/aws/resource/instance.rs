//! A master's machine. It can be lost and made again: its address and its data are things of their own.

use aws_sdk_ec2::operation::run_instances::RunInstancesError;
use aws_sdk_ec2::operation::start_instances::StartInstancesError;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, HttpTokensState, IamInstanceProfileSpecification, InstanceMetadataEndpointState,
    InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification, InstanceStateName, InstanceType, ResourceType,
    VolumeType,
};
use base64::Engine as _;

use super::AwsResource;
use super::elastic_ip::ElasticIp;
use super::instance_profile::InstanceProfile;
use super::key_pair::KeyPair;
use super::network_interface::NetworkInterface;
use super::route_table::RouteTable;
use super::security_group_rules::SecurityGroupRules;
use super::volume::{self, Volume};
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::layout::Image;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags::{self, HOST_KEY, IMAGE, OWN_HOST_KEY, ROOT_VOLUME};
use crate::aws::user_data::HostKey;
use crate::aws::watch::state_of;
use crate::aws::{Aws, capacity};
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// By which name a master's etcd volume is attached. On today's machines the kernel gives it another, with the volume's id in its serial number.
pub const ETCD_DEVICE: &str = "/dev/sdf";

/// The role of these machines, by which they differ from minions, which belong to their groups.
const ROLE: &str = "master";

/// A master's machine.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name among instances: `master-1`.
    pub name: String,
    /// The types it may be of, in the order in which they are tried where AWS has run out of one: `t3.medium`.
    pub types: Vec<String>,
    /// Its zone, as its network interface and its volume have it.
    pub zone: String,
    /// What it boots from.
    pub image: Image,
    /// What the config calls that: a newer image of the same name is no reason to replace a machine.
    pub image_name: String,
    /// Size of its root volume in GiB.
    pub root_volume: u32,
    /// Its place in the network.
    pub interface: Ref<NetworkInterface>,
    /// Its data.
    pub volume: Ref<Volume>,
    /// What it may do.
    pub profile: Ref<InstanceProfile>,
    /// Who may log in.
    pub key: Ref<KeyPair>,
    /// Its public address, which is to be there before it boots.
    pub address: Option<Ref<ElasticIp>>,
    /// What lets it be reached.
    pub rules: Vec<Ref<SecurityGroupRules>>,
    /// What lets it reach others; a given VPC has its own routes.
    pub routes: Option<Ref<RouteTable>>,
}

/// A master's machine as it was found.
#[derive(Debug, Clone)]
pub struct InstanceFound {
    name: String,
    id: String,
    /// `pending`, `running`, `stopping` or `stopped`.
    pub state: String,
    /// Its type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Its network's id.
    pub vpc: String,
    /// Its subnet's id.
    pub subnet: String,
    /// Its address in the network.
    pub private_address: String,
    /// Its address outside of it.
    pub public_address: Option<String>,
    /// The public half of the SSH host key that it was made with, as one line.
    pub host_key: Option<String>,
    /// The public half of the one that it made for itself since, as one line.
    pub own_host_key: Option<String>,
    /// When it was started last, in seconds since 1970.
    pub launched: Option<i64>,
    /// What `aws.image` said when it was made, and the processor.
    pub image: Option<String>,
    /// The size of its root volume in GiB.
    pub root_volume: Option<String>,
    /// The ids of the volumes it has.
    pub volumes: Vec<String>,
}

impl Found for InstanceFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for Instance {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeInstances", Scope::Any),
        need("ec2:RunInstances", Scope::Creates),
        implied("ec2:CreateTags", "ec2:RunInstances", Scope::Creates),
        implied("iam:PassRole", "ec2:RunInstances", Scope::IamPath),
        need("ec2:StartInstances", Scope::Tagged),
        need("ec2:DescribeVolumes", Scope::Any),
        need("ec2:AttachVolume", Scope::Tagged),
        need("ec2:TerminateInstances", Scope::Tagged),
    ];
}

impl Resource for Instance {
    type Cloud = Aws;
    type Found = InstanceFound;
    const KIND: &'static str = "instance";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        let mut needs = vec![self.interface.address(), self.volume.address(), self.profile.address(), self.key.address()];
        needs.extend(self.address.iter().map(Ref::address));
        needs.extend(self.rules.iter().map(Ref::address));
        needs.extend(self.routes.iter().map(Ref::address));
        needs
    }

    fn detail(&self) -> String {
        format!("{} in {}, {} with {} GiB", self.types.join(" or "), self.zone, self.image_name, self.root_volume)
    }

    fn diff(&self, found: &InstanceFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        // One that was taken instead of another stays what it is.
        if !self.types.contains(&found.instance_type) {
            changes.push(Change::replace("aws.masters.type", &found.instance_type, self.types.join(" or ")));
        }
        if let Some(image) = &found.image {
            changes.extend(Change::if_differs("aws.image", image, &self.image_tag(), Change::replace));
        }
        if let Some(size) = &found.root_volume {
            changes.extend(Change::if_differs("aws.masters.rootVolume", size, &self.root_volume.to_string(), Change::replace));
        }
        if !up(found) {
            changes.push(Change::in_place("state", &found.state, InstanceStateName::Running));
        }
        let volume = cx.look(&self.volume).map(|volume| volume.id().to_owned());
        if volume.as_ref().is_none_or(|volume| !found.volumes.contains(volume)) {
            changes.push(Change::in_place("etcd volume", "not attached", volume.unwrap_or_else(|| "a new one".to_owned())));
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<InstanceFound> {
        let (interface, key, profile) = (cx.get(&self.interface)?, cx.get(&self.key)?, cx.get(&self.profile)?);
        let id = self.run(cx.cloud, interface.id(), key.key_name(), &profile.profile).await?;
        self.ready(&id, cx).await
    }

    async fn update(&self, found: &InstanceFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<InstanceFound> {
        if !up(found) {
            let what = format!("the instance {} could not be started", found.id);
            let anew = format!("`--replace {}` makes it anew instead; its address and its data stay", self.name);
            cx.cloud
                .until_unblocked(&what, || async {
                    let ask = cx.cloud.ec2.start_instances().instance_ids(&found.id).customize();
                    ask.config_override(capacity::told_at_once::<StartInstancesError>()).send().await.failure().map(|_| ())
                })
                .await
                .map_err(|error| error.hint(anew))?;
        }
        self.ready(&found.id, cx).await
    }

    async fn list(aws: &Aws) -> Result<Vec<InstanceFound>> {
        let role = tags::ec2::by(&format!("tag:{}", tags::ROLE), ROLE);
        let ask = aws.ec2.describe_instances().filters(tags::ec2::ours(aws)).filters(role).filters(live());
        let found: Vec<_> = ask.into_paginator().items().send().try_collect().await.explain("instances could not be listed")?;
        Ok(found.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()).map(seen).collect())
    }

    async fn delete(aws: &Aws, found: &InstanceFound) -> Result<()> {
        let what = format!("the instance {} could not be ended", found.id);
        let ended = aws
            .until_unblocked(&what, || async {
                unless_gone(aws.ec2.terminate_instances().instance_ids(&found.id).send().await.failure()).map_err(protected)
            })
            .await?;
        match ended {
            // Its network interface and its volume are free only once it has ended.
            Some(_) => aws.watch.terminated(aws, &found.id).await,
            None => Ok(()),
        }
    }
}

impl Instance {
    fn image_tag(&self) -> String {
        format!("{}/{}", self.image_name, self.image.architecture)
    }

    fn tags(&self, aws: &Aws, host_key: &str) -> Vec<(String, String)> {
        let mut tags = tags::tags(aws, &self.name, Some(ROLE));
        tags.push((HOST_KEY.to_owned(), host_key.to_owned()));
        tags.push((IMAGE.to_owned(), self.image_tag()));
        tags.push((ROOT_VOLUME.to_owned(), self.root_volume.to_string()));
        tags
    }

    /// Starts it, once AWS knows all that it is made of, as the first of its types that AWS has a machine of, and gives its id.
    async fn run(&self, aws: &Aws, interface: &str, login: &str, profile: &str) -> Result<String> {
        let mut lacking: Option<Error> = None;
        for kind in &self.types {
            let failure = match self.run_as(kind, aws, interface, login, profile).await? {
                Ok(id) => return Ok(id),
                Err(failure) => failure,
            };
            lacking = Some(match lacking {
                None => failure.error(self.not_started(&self.types.join(" or "))),
                Some(error) => error.why(failure.said()),
            });
        }
        Err(lacking.unwrap_or_else(|| Error::new(self.not_started("of no type")).why("this is a mistake in kup")))
    }

    fn not_started(&self, types: &str) -> String {
        format!("the instance {} ({types} in {}) could not be started", self.name, self.zone)
    }

    /// Starts it as one of this type; the inner failure is that AWS has no such machine there now.
    async fn run_as(
        &self,
        kind: &str,
        aws: &Aws,
        interface: &str,
        login: &str,
        profile: &str,
    ) -> Result<std::result::Result<String, Failure>> {
        let key = HostKey::new()?;
        let user_data = base64::engine::general_purpose::STANDARD.encode(key.master()?);
        let place = InstanceNetworkInterfaceSpecification::builder().device_index(0).network_interface_id(interface).build();
        let metadata = InstanceMetadataOptionsRequest::builder()
            .http_endpoint(InstanceMetadataEndpointState::Enabled)
            .http_tokens(HttpTokensState::Required)
            .http_put_response_hop_limit(1)
            .build();
        let made = aws
            .until_unblocked(&self.not_started(kind), || async {
                let ask = aws
                    .ec2
                    .run_instances()
                    .min_count(1)
                    .max_count(1)
                    .image_id(&self.image.id)
                    .instance_type(InstanceType::from(kind))
                    .key_name(login)
                    .iam_instance_profile(IamInstanceProfileSpecification::builder().name(profile).build())
                    .network_interfaces(place.clone())
                    .block_device_mappings(root(&self.image.root_device, self.root_volume))
                    .metadata_options(metadata.clone())
                    .user_data(&user_data)
                    .tag_specifications(tags::ec2::specification_of(ResourceType::Instance, self.tags(aws, &key.public)))
                    .tag_specifications(tags::ec2::specification(aws, ResourceType::Volume, &self.name, Some(ROLE)));
                match ask.customize().config_override(capacity::told_at_once::<RunInstancesError>()).send().await.failure() {
                    Ok(made) => Ok(Ok(made.instances.unwrap_or_default().into_iter().next())),
                    Err(failure) if failure.fault == Fault::Capacity => Ok(Err(failure)),
                    // An interface can't be in two instances, so a second one is never made. Whoever has it may be what an earlier
                    // call made, of which listing did not know yet; or a predecessor that is on its way out.
                    Err(failure) if failure.code == "InvalidNetworkInterface.InUse" => {
                        let having = tags::ec2::by("network-interface.network-interface-id", interface);
                        let ask = aws.ec2.describe_instances().filters(tags::ec2::ours(aws)).filters(having).filters(live());
                        let seen = ask.send().await.failure()?.reservations.unwrap_or_default();
                        let ours = seen.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()).next();
                        ours.map_or(Err(failure), |ours| Ok(Ok(Some(ours))))
                    }
                    // What they are that were only just made; an image that is not found never will be.
                    Err(failure)
                        if ["InvalidNetworkInterfaceID.NotFound", "InvalidKeyPair.NotFound"].contains(&failure.code.as_str()) =>
                    {
                        Err(failure.fresh())
                    }
                    Err(failure) => Err(failure),
                }
            })
            .await?;
        Ok(made.map(|made| made.and_then(|made| made.instance_id).unwrap_or_default()))
    }

    /// Waits until it runs, and gives it its volume.
    async fn ready(&self, id: &str, cx: &Cx<'_, Aws>) -> Result<InstanceFound> {
        let volume = cx.get(&self.volume)?;
        let running = cx.cloud.watch.running(cx.cloud, id).await?;
        let mut found = seen(running);
        // Told to the next one who asks for it, whether or not EC2 has told all of itself of its tags.
        found.name.clone_from(&self.name);
        if !found.volumes.iter().any(|attached| attached == volume.id()) {
            volume::attach(cx.cloud, volume.id(), id, ETCD_DEVICE).await?;
            found.volumes.push(volume.id().to_owned());
        }
        Ok(found)
    }
}

/// What the cloud's own controller calls an instance, as its kubelet tells it.
pub fn provider_id(zone: &str, id: &str) -> String {
    format!("aws:///{zone}/{id}")
}

/// One that somebody protects from being ended stays so, however long one waits.
fn protected(failure: Failure) -> Failure {
    if failure.code == "OperationNotPermitted" { Failure { fault: Fault::Invalid, ..failure } } else { failure }
}

/// Whether it runs or is about to.
fn up(found: &InstanceFound) -> bool {
    [InstanceStateName::Pending.as_str(), InstanceStateName::Running.as_str()].contains(&found.state.as_str())
}

/// Those that have not ended: AWS lists the others for an hour more.
pub fn live() -> Filter {
    tags::ec2::among("instance-state-name", &["pending", "running", "stopping", "stopped"].map(str::to_owned))
}

/// An encrypted root volume.
fn root(device: &str, size: u32) -> BlockDeviceMapping {
    let ebs = EbsBlockDevice::builder()
        .volume_size(volume::size(size))
        .volume_type(VolumeType::Gp3)
        .encrypted(true)
        .delete_on_termination(true);
    BlockDeviceMapping::builder().device_name(device).ebs(ebs.build()).build()
}

fn seen(instance: aws_sdk_ec2::types::Instance) -> InstanceFound {
    let id = instance.instance_id.clone().unwrap_or_default();
    let tag = |key| tags::ec2::value(instance.tags(), key).map(str::to_owned);
    let volumes =
        instance.block_device_mappings().iter().filter_map(|m| m.ebs().and_then(|ebs| ebs.volume_id().map(str::to_owned)));
    InstanceFound {
        name: tags::ec2::name(instance.tags(), &id),
        state: state_of(&instance).as_str().to_owned(),
        zone: instance.placement().and_then(|p| p.availability_zone()).unwrap_or_default().to_owned(),
        vpc: instance.vpc_id().unwrap_or_default().to_owned(),
        subnet: instance.subnet_id().unwrap_or_default().to_owned(),
        instance_type: instance.instance_type().map(InstanceType::as_str).unwrap_or_default().to_owned(),
        host_key: tag(HOST_KEY),
        own_host_key: tag(OWN_HOST_KEY),
        image: tag(IMAGE),
        root_volume: tag(ROOT_VOLUME),
        volumes: volumes.collect(),
        launched: instance.launch_time().map(|at| at.secs()),
        public_address: instance.public_ip_address().filter(|a| !a.is_empty()).map(str::to_owned),
        private_address: instance.private_ip_address().unwrap_or_default().to_owned(),
        id,
    }
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
