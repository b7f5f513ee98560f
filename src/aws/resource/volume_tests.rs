#![allow(clippy::unwrap_used)]

use aws_sdk_ec2::operation::attach_volume::{AttachVolumeError, AttachVolumeOutput};
use aws_sdk_ec2::operation::delete_volume::{DeleteVolumeError, DeleteVolumeOutput};
use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
use aws_sdk_ec2::operation::detach_volume::DetachVolumeOutput;
use aws_sdk_ec2::types::{Volume as Seen, VolumeAttachment, VolumeState};
use aws_smithy_mocks::{Rule, mock};

use super::*;
use crate::aws::testing::{aws, coded, mocked};

fn wanted() -> Volume {
    Volume { name: "etcd-1".into(), zone: "us-west-2a".into(), size: 20 }
}

fn there() -> VolumeFound {
    VolumeFound {
        name: "etcd-1".into(),
        id: "vol-1".into(),
        zone: "us-west-2a".into(),
        size: 20,
        volume_type: "gp3".into(),
        encrypted: true,
        attached: None,
    }
}

fn told(found: &VolumeFound) -> Vec<String> {
    let changes = crate::graph::resource::testing::diff(&wanted(), found, &aws());
    changes.iter().map(|c| format!("{}: {} → {} ({:?})", c.field, c.from, c.to, c.effect)).collect()
}

#[test]
fn it_grows_and_does_not_shrink_or_move() {
    assert_eq!(told(&there()), [""; 0]);
    assert_eq!(told(&VolumeFound { size: 10, ..there() }), ["aws.etcdVolume: 10 → 20 (InPlace)"]);
    assert_eq!(told(&VolumeFound { size: 30, ..there() }), ["aws.etcdVolume: 30 → 20 (Refuse)"]);
    assert_eq!(told(&VolumeFound { zone: "us-west-2b".into(), ..there() }), ["zone: us-west-2b → us-west-2a (Refuse)"]);
    assert_eq!(told(&VolumeFound { volume_type: "gp2".into(), ..there() }), ["type: gp2 → gp3 (InPlace)"]);
}

fn seen(state: VolumeState, instance: Option<&'static str>) -> Rule {
    mock!(aws_sdk_ec2::Client::describe_volumes).then_output(move || {
        let attached = instance.map(|id| VolumeAttachment::builder().instance_id(id).build());
        let volume =
            Seen::builder().volume_id("vol-1").state(state.clone()).set_attachments(Some(attached.into_iter().collect()));
        DescribeVolumesOutput::builder().volumes(volume.build()).build()
    })
}

fn refused() -> Rule {
    mock!(aws_sdk_ec2::Client::attach_volume)
        .then_error(|| AttachVolumeError::generic(coded("VolumeInUse", "vol-1 is already attached to an instance")))
}

#[tokio::test]
async fn a_volume_is_waited_for_until_its_last_machine_lets_it_go() {
    let (creating, available) = (seen(VolumeState::Creating, None), seen(VolumeState::Available, None));
    let (refused, others) = (refused(), seen(VolumeState::InUse, Some("i-0")));
    let attached = mock!(aws_sdk_ec2::Client::attach_volume).then_output(|| AttachVolumeOutput::builder().build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&creating, &available, &refused, &others, &attached]);
    attach(&aws, "vol-1", "i-1", "/dev/sdf").await.unwrap();
    assert_eq!(attached.num_calls(), 1);
}

#[tokio::test]
async fn a_volume_that_was_attached_by_a_lost_call_is_attached() {
    let (available, refused, ours) = (seen(VolumeState::Available, None), refused(), seen(VolumeState::InUse, Some("i-1")));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&available, &refused, &ours]);
    attach(&aws, "vol-1", "i-1", "/dev/sdf").await.unwrap();
}

#[tokio::test]
async fn a_volume_that_somebody_uses_is_taken_back_and_removed() {
    let used = mock!(aws_sdk_ec2::Client::delete_volume)
        .then_error(|| DeleteVolumeError::generic(coded("VolumeInUse", "Volume vol-1 is currently attached to i-9")));
    let detached = mock!(aws_sdk_ec2::Client::detach_volume).then_output(|| DetachVolumeOutput::builder().build());
    let removed = mock!(aws_sdk_ec2::Client::delete_volume).then_output(|| DeleteVolumeOutput::builder().build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&used, &detached, &removed]);
    Volume::delete(&aws, &there()).await.unwrap();
    assert_eq!(removed.num_calls(), 1);
}
