//! A master's volume for etcd. It outlives the machine, and so the cluster's data does.

use aws_sdk_ec2::types::{ResourceType, VolumeType};

use super::AwsResource;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::Result;
use crate::graph::{Change, Cx, Found, Resource};

/// The role of these volumes, by which they differ from the machines' root volumes.
const ROLE: &str = "etcd";

/// An encrypted volume for etcd.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name among volumes: `etcd-1`.
    pub name: String,
    /// Its zone: a volume can only be attached to machines there.
    pub zone: String,
    /// Its size in GiB.
    pub size: u32,
}

/// A volume as it was found.
#[derive(Debug, Clone)]
pub struct VolumeFound {
    name: String,
    id: String,
    /// Its zone.
    pub zone: String,
    /// Its size in GiB.
    pub size: u32,
    /// Its type: `gp3`.
    pub volume_type: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The id of the instance that has it.
    pub attached: Option<String>,
}

impl Found for VolumeFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for Volume {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeVolumes", Scope::Any),
        need("ec2:CreateVolume", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateVolume", Scope::Creates),
        need("ec2:ModifyVolume", Scope::Tagged),
        need("ec2:DetachVolume", Scope::Tagged),
        need("ec2:DeleteVolume", Scope::Tagged),
    ];
}

impl Resource for Volume {
    type Cloud = Aws;
    type Found = VolumeFound;
    const KIND: &'static str = "volume";

    fn name(&self) -> &str {
        &self.name
    }

    fn detail(&self) -> String {
        format!("{} GiB gp3 in {}, encrypted", self.size, self.zone)
    }

    fn diff(&self, found: &VolumeFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        // It can't move, shrink or be encrypted afterwards, and making it anew would lose the cluster's data.
        changes.extend(Change::if_differs("zone", &found.zone, &self.zone, Change::refuse));
        changes.extend(Change::if_differs("encrypted", &found.encrypted, &true, Change::refuse));
        let resize: fn(String, String, String) -> Change = if self.size > found.size { Change::in_place } else { Change::refuse };
        changes.extend(Change::if_differs("aws.etcdVolume", &found.size, &self.size, resize));
        changes.extend(Change::if_differs("type", &found.volume_type, &VolumeType::Gp3.as_str().to_owned(), Change::in_place));
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<VolumeFound> {
        let made = cx
            .cloud
            .ec2
            .create_volume()
            .availability_zone(&self.zone)
            .size(size(self.size))
            .volume_type(VolumeType::Gp3)
            .encrypted(true)
            .tag_specifications(tags::ec2::specification(cx.cloud, ResourceType::Volume, &self.name, Some(ROLE)))
            .send()
            .await
            .explain(format!("the volume {} of {} GiB could not be made in {}", self.name, self.size, self.zone))?;
        Ok(VolumeFound {
            name: self.name.clone(),
            id: made.volume_id.unwrap_or_default(),
            zone: self.zone.clone(),
            size: self.size,
            volume_type: VolumeType::Gp3.as_str().to_owned(),
            encrypted: true,
            attached: None,
        })
    }

    async fn update(&self, found: &VolumeFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<VolumeFound> {
        let ask = cx.cloud.ec2.modify_volume().volume_id(&found.id).size(size(self.size)).volume_type(VolumeType::Gp3);
        ask.send().await.explain(format!("the volume {} could not be made {} GiB large", found.id, self.size))?;
        Ok(VolumeFound { size: self.size, volume_type: VolumeType::Gp3.as_str().to_owned(), ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<VolumeFound>> {
        let role = tags::ec2::by(&format!("tag:{}", tags::ROLE), ROLE);
        let pages = aws.ec2.describe_volumes().filters(tags::ec2::ours(aws)).filters(role).into_paginator().items().send();
        let volumes: Vec<_> = pages.try_collect().await.explain("volumes could not be listed")?;
        let found = |volume: aws_sdk_ec2::types::Volume| {
            let id = volume.volume_id.clone().unwrap_or_default();
            VolumeFound {
                name: tags::ec2::name(volume.tags(), &id),
                attached: volume.attachments().first().and_then(|a| a.instance_id().map(str::to_owned)),
                zone: volume.availability_zone.unwrap_or_default(),
                size: volume.size.and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
                volume_type: volume.volume_type.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
                encrypted: volume.encrypted.unwrap_or_default(),
                id,
            }
        };
        Ok(volumes.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &VolumeFound) -> Result<()> {
        let what = format!("the volume {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            match unless_gone(aws.ec2.delete_volume().volume_id(&found.id).send().await.failure()) {
                // The cluster's machines are gone by now: somebody has attached it to another one.
                Err(failure) if failure.fault == Fault::Blocked => {
                    let detached = aws.ec2.detach_volume().volume_id(&found.id).send().await.failure();
                    unless_gone(detached).or_else(|other| if other.fault == Fault::Blocked { Ok(None) } else { Err(other) })?;
                    Err(failure)
                }
                outcome => outcome.map(|_| ()),
            }
        })
        .await
    }
}

/// As the API takes it; the config allows no more than 16 TiB.
pub(super) fn size(gib: u32) -> i32 {
    i32::try_from(gib).unwrap_or(i32::MAX)
}

/// Puts a volume into an instance, which runs, and waits for it where another one only just had it.
pub(super) async fn attach(aws: &Aws, volume: &str, instance: &str, device: &str) -> Result<()> {
    let seen = aws.watch.available(aws, volume).await?;
    if seen.attachments().iter().any(|a| a.instance_id() == Some(instance)) {
        return Ok(());
    }
    let what = format!("the volume {volume} could not be attached to {instance}");
    aws.until_unblocked(&what, || async {
        let ask = aws.ec2.attach_volume().volume_id(volume).instance_id(instance).device(device);
        match ask.send().await.failure().map_err(Failure::fresh) {
            // In use by this very instance is what a call whose answer was lost has done.
            Err(failure) if failure.fault == Fault::Blocked => {
                let now = aws.ec2.describe_volumes().filters(tags::ec2::by("volume-id", volume)).send().await.failure()?;
                let ours = now.volumes().iter().flat_map(|v| v.attachments()).any(|a| a.instance_id() == Some(instance));
                if ours { Ok(()) } else { Err(failure) }
            }
            outcome => outcome.map(|_| ()),
        }
    })
    .await
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
