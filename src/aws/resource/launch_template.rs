//! What the machines of a group of minions are like. Its default version is the one that counts: moving that is the commit of a change.

use aws_sdk_ec2::types::{
    InstanceType, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateHttpTokensState,
    LaunchTemplateIamInstanceProfileSpecificationRequest, LaunchTemplateInstanceMetadataEndpointState,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateInstanceNetworkInterfaceSpecificationRequest,
    LaunchTemplateTagSpecificationRequest, RequestLaunchTemplateData, ResourceType, ResponseLaunchTemplateData, Tag, VolumeType,
};
use base64::Engine as _;

use super::AwsResource;
use super::instance_profile::InstanceProfile;
use super::key_pair::KeyPair;
use super::security_group::SecurityGroup;
use super::volume::size;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::layout::Image;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags::{self, GROUP};
use crate::error::{Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// What a group's machines are like.
#[derive(Debug, Clone)]
pub struct LaunchTemplate {
    /// The group's name.
    pub name: String,
    /// Their type, unless the group names several.
    pub instance_type: String,
    /// What they boot from.
    pub image: Image,
    /// What the config calls that: a newer image of the same name is no change.
    pub image_name: String,
    /// Size of their root volumes in GiB.
    pub root_volume: u32,
    /// Their security group.
    pub group: Ref<SecurityGroup>,
    /// What they may do.
    pub profile: Ref<InstanceProfile>,
    /// Who may log in.
    pub key: Ref<KeyPair>,
    /// What they do at their first boot.
    pub user_data: String,
}

/// What was found to be said of machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    /// The name of the image in the config, and the processor it is for.
    image_name: String,
    instance_type: String,
    root_volume: i32,
    encrypted: bool,
    groups: Vec<String>,
    public: bool,
    profile: String,
    key: String,
    user_data: String,
    tokens: bool,
    hops: i32,
}

/// A launch template as it was found.
#[derive(Debug, Clone)]
pub struct LaunchTemplateFound {
    name: String,
    id: String,
    /// Its name in AWS.
    pub full_name: String,
    /// Its default version.
    pub version: i64,
    /// The image in use.
    pub image: String,
    said: Said,
}

impl Found for LaunchTemplateFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for LaunchTemplate {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeLaunchTemplates", Scope::Any),
        need("ec2:DescribeLaunchTemplateVersions", Scope::Any),
        need("ec2:CreateLaunchTemplate", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateLaunchTemplate", Scope::Creates),
        need("ec2:CreateLaunchTemplateVersion", Scope::Tagged),
        need("ec2:ModifyLaunchTemplate", Scope::Tagged),
        need("ec2:DeleteLaunchTemplate", Scope::Tagged),
    ];
}

impl Resource for LaunchTemplate {
    type Cloud = Aws;
    type Found = LaunchTemplateFound;
    const KIND: &'static str = "launch template";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.group.address(), self.profile.address(), self.key.address()]
    }

    fn detail(&self) -> String {
        format!("{}, {} with {} GiB", self.instance_type, self.image_name, self.root_volume)
    }

    fn diff(&self, found: &LaunchTemplateFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let new = || "a new one".to_owned();
        let group = cx.look(&self.group).map_or_else(new, |group| group.id().to_owned());
        let profile = cx.look(&self.profile).map_or_else(new, |profile| profile.profile.clone());
        let key = cx.look(&self.key).map_or_else(new, |key| key.key_name().to_owned());
        let (is, wanted) = (&found.said, self.said(group, profile, key));
        let mut changes = Vec::new();
        let mut compare = |field: &str, from: &dyn std::fmt::Display, to: &dyn std::fmt::Display| {
            let (from, to) = (from.to_string(), to.to_string());
            changes.extend(Change::if_differs(field, &from, &to, Change::in_place));
        };
        compare("image", &is.image_name, &wanted.image_name);
        compare("type", &is.instance_type, &wanted.instance_type);
        compare("root volume", &is.root_volume, &wanted.root_volume);
        compare("encrypted", &is.encrypted, &wanted.encrypted);
        compare("security groups", &is.groups.join(" "), &wanted.groups.join(" "));
        compare("public address", &is.public, &wanted.public);
        compare("instance profile", &is.profile, &wanted.profile);
        compare("key pair", &is.key, &wanted.key);
        compare("tokens for metadata", &is.tokens, &wanted.tokens);
        compare("hops to metadata", &is.hops, &wanted.hops);
        if is.user_data != wanted.user_data {
            changes.push(Change::in_place(
                "what it does at boot",
                format!("{} bytes", bytes(&is.user_data)),
                format!("{} bytes", self.user_data.len()),
            ));
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<LaunchTemplateFound> {
        let full_name = cx.cloud.unique(&self.name, 128);
        let (said, data) = self.data(cx, &self.image.id)?;
        let made = cx
            .cloud
            .ec2
            .create_launch_template()
            .launch_template_name(&full_name)
            .version_description(&said.image_name)
            .launch_template_data(data)
            .tag_specifications(tags::ec2::specification(cx.cloud, ResourceType::LaunchTemplate, &self.name, Some("minion")))
            .send()
            .await
            .failure();
        let what = || format!("the launch template {full_name} could not be made");
        let template = match made {
            Ok(made) => made.launch_template,
            // Made by an earlier call whose answer never came: its name is the cluster's own.
            Err(failure) if failure.fault == Fault::Exists => {
                let found = Self::list(cx.cloud).await?.into_iter().find(|found| found.full_name == full_name);
                let there = found.ok_or_else(|| {
                    failure.error(what()).hint("remove the launch template of that name, or give another --name")
                })?;
                return self.update(&there, &[], cx).await;
            }
            Err(failure) => return Err(failure.error(what())),
        };
        let id = template.and_then(|template| template.launch_template_id).unwrap_or_default();
        Ok(LaunchTemplateFound { name: self.name.clone(), id, full_name, version: 1, image: self.image.id.clone(), said })
    }

    async fn update(&self, found: &LaunchTemplateFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<LaunchTemplateFound> {
        // Machines of a group are alike: while nobody asks for another image, the one in use stays.
        let image = if found.said.image_name == self.image_tag() { &found.image } else { &self.image.id };
        let (said, data) = self.data(cx, image)?;
        if said == found.said {
            return Ok(found.clone());
        }
        let what = format!("the launch template {} could not be changed", found.full_name);
        let ask = cx.cloud.ec2.create_launch_template_version().launch_template_id(&found.id);
        let made = ask.version_description(&said.image_name).launch_template_data(data).send().await.explain(&what)?;
        let version = made.launch_template_version.and_then(|version| version.version_number);
        let Some(version) = version else { return Err(Error::new(what).why("AWS does not say which version it made")) };
        cx.cloud
            .until_unblocked(&what, || async {
                let ask =
                    cx.cloud.ec2.modify_launch_template().launch_template_id(&found.id).default_version(version.to_string());
                ask.send().await.failure().map_err(Failure::fresh)
            })
            .await?;
        Ok(LaunchTemplateFound { version, image: image.clone(), said, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<LaunchTemplateFound>> {
        let what = "launch templates could not be listed";
        let pages = aws.ec2.describe_launch_templates().filters(tags::ec2::ours(aws)).into_paginator().items().send();
        let templates: Vec<_> = pages.try_collect().await.explain(what)?;
        // Versions can't be asked for by tag, so those of each template are: there are as many as groups.
        let each = templates.into_iter().map(|template| async move {
            let id = template.launch_template_id.clone().unwrap_or_default();
            let ask = aws.ec2.describe_launch_template_versions().launch_template_id(&id).versions("$Default");
            let default = match unless_gone(ask.send().await.failure()).map_err(|failure| failure.error(what))? {
                Some(answer) => answer.launch_template_versions.unwrap_or_default().into_iter().next(),
                None => return Ok(None),
            };
            let data = default.as_ref().and_then(|version| version.launch_template_data());
            let words = default.as_ref().and_then(|version| version.version_description()).unwrap_or_default();
            Ok(Some(LaunchTemplateFound {
                name: tags::ec2::name(template.tags(), &id),
                full_name: template.launch_template_name.unwrap_or_default(),
                version: template.default_version_number.unwrap_or_default(),
                image: data.and_then(|data| data.image_id()).unwrap_or_default().to_owned(),
                said: data.map(|data| said(words, data)).unwrap_or_default(),
                id,
            }))
        });
        let found: Result<Vec<_>> = futures::future::try_join_all(each).await;
        Ok(found?.into_iter().flatten().collect())
    }

    async fn delete(aws: &Aws, found: &LaunchTemplateFound) -> Result<()> {
        let what = format!("the launch template {} could not be removed", found.full_name);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.ec2.delete_launch_template().launch_template_id(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}

impl LaunchTemplate {
    fn image_tag(&self) -> String {
        format!("{}/{}", self.image_name, self.image.architecture)
    }

    fn said(&self, group: String, profile: String, key: String) -> Said {
        Said {
            image_name: self.image_tag(),
            instance_type: self.instance_type.clone(),
            root_volume: size(self.root_volume),
            encrypted: true,
            groups: vec![group],
            public: true,
            profile,
            key,
            user_data: base64::engine::general_purpose::STANDARD.encode(&self.user_data),
            tokens: true,
            hops: 1,
        }
    }

    /// What is wanted, as it is compared and as AWS takes it.
    fn data(&self, cx: &Cx<'_, Aws>, image: &str) -> Result<(Said, RequestLaunchTemplateData)> {
        let (group, profile, key) = (cx.get(&self.group)?, cx.get(&self.profile)?, cx.get(&self.key)?);
        let said = self.said(group.id().to_owned(), profile.profile.clone(), key.key_name().to_owned());
        let mut tags = tags::tags(cx.cloud, &self.name, Some("minion"));
        tags.push((GROUP.to_owned(), self.name.clone()));
        let tags: Vec<Tag> = tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let tagged =
            |kind| LaunchTemplateTagSpecificationRequest::builder().resource_type(kind).set_tags(Some(tags.clone())).build();
        let disk = LaunchTemplateEbsBlockDeviceRequest::builder()
            .volume_size(said.root_volume)
            .volume_type(VolumeType::Gp3)
            .encrypted(said.encrypted)
            .delete_on_termination(true)
            .build();
        let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
            .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::Enabled)
            .http_tokens(LaunchTemplateHttpTokensState::Required)
            .http_put_response_hop_limit(said.hops)
            .build();
        // On the interface, so that the subnet need not be one that gives public addresses by itself.
        let interface = LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
            .device_index(0)
            .associate_public_ip_address(said.public)
            .delete_on_termination(true)
            .set_groups(Some(said.groups.clone()))
            .build();
        let data = RequestLaunchTemplateData::builder()
            .image_id(image)
            .instance_type(InstanceType::from(said.instance_type.as_str()))
            .key_name(&said.key)
            .iam_instance_profile(LaunchTemplateIamInstanceProfileSpecificationRequest::builder().name(&said.profile).build())
            .block_device_mappings(
                LaunchTemplateBlockDeviceMappingRequest::builder().device_name(&self.image.root_device).ebs(disk).build(),
            )
            .network_interfaces(interface)
            .metadata_options(metadata)
            .user_data(&said.user_data)
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .build();
        Ok((said, data))
    }
}

fn said(words: &str, data: &ResponseLaunchTemplateData) -> Said {
    let disk = data.block_device_mappings().first().and_then(|mapping| mapping.ebs());
    let interface = data.network_interfaces().first();
    let metadata = data.metadata_options();
    Said {
        image_name: words.to_owned(),
        instance_type: data.instance_type().map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        root_volume: disk.and_then(|disk| disk.volume_size()).unwrap_or_default(),
        encrypted: disk.and_then(|disk| disk.encrypted()).unwrap_or_default(),
        groups: interface.map(|interface| interface.groups().to_vec()).unwrap_or_default(),
        public: interface.and_then(|interface| interface.associate_public_ip_address()).unwrap_or_default(),
        profile: data.iam_instance_profile().and_then(|profile| profile.name()).unwrap_or_default().to_owned(),
        key: data.key_name().unwrap_or_default().to_owned(),
        user_data: data.user_data().unwrap_or_default().to_owned(),
        tokens: metadata.and_then(|m| m.http_tokens()) == Some(&LaunchTemplateHttpTokensState::Required),
        hops: metadata.and_then(|m| m.http_put_response_hop_limit()).unwrap_or_default(),
    }
}

/// How many bytes there are behind base64.
fn bytes(encoded: &str) -> usize {
    base64::engine::general_purpose::STANDARD.decode(encoded).map(|text| text.len()).unwrap_or_default()
}

#[cfg(test)]
#[path = "launch_template_tests.rs"]
mod tests;
