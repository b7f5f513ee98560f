#![allow(clippy::unwrap_used)]

use super::*;
use crate::aws::testing::aws;

fn wanted() -> LaunchTemplate {
    let image =
        Image { id: "ami-new".into(), architecture: "x86_64".into(), root_device: "/dev/xvda".into(), user: "admin".into() };
    LaunchTemplate {
        name: "minions".into(),
        instance_type: "t3.small".into(),
        image,
        image_name: "debian-13".into(),
        root_volume: 32,
        group: Ref::to("minion"),
        profile: Ref::to("minion"),
        key: Ref::to("ssh"),
        user_data: "#!/bin/sh\n".into(),
    }
}

fn there() -> LaunchTemplateFound {
    LaunchTemplateFound {
        name: "minions".into(),
        id: "lt-1".into(),
        full_name: "kubernetes-minions-1a2b3c4d".into(),
        version: 1,
        image: "ami-old".into(),
        said: wanted().said("sg-1".into(), "kup-minion".into(), "kup-ssh".into()),
    }
}

fn told(wanted: &LaunchTemplate, found: &LaunchTemplateFound) -> Vec<String> {
    let changes = crate::graph::resource::testing::diff(wanted, found, &aws());
    // What it refers to is not known here, and so differs always.
    let known = changes.iter().filter(|c| !["security groups", "instance profile", "key pair"].contains(&c.field.as_str()));
    known.map(|c| format!("{}: {} → {}", c.field, c.from, c.to)).collect()
}

#[test]
fn a_newer_image_of_the_same_name_is_no_change() {
    assert_eq!(told(&wanted(), &there()), [""; 0]);
    let other = LaunchTemplate { image_name: "debian-12".into(), ..wanted() };
    assert_eq!(told(&other, &there()), ["image: debian-13/x86_64 → debian-12/x86_64"]);
}

#[test]
fn what_differs_is_told() {
    let other =
        LaunchTemplate { instance_type: "t3.large".into(), root_volume: 64, user_data: "#!/bin/sh\necho\n".into(), ..wanted() };
    assert_eq!(
        told(&other, &there()),
        ["type: t3.small → t3.large", "root volume: 32 → 64", "what it does at boot: 10 bytes → 15 bytes"]
    );
}

#[test]
fn what_was_made_looser_is_made_strict_again() {
    let mut loose = there();
    (loose.said.tokens, loose.said.hops, loose.said.encrypted) = (false, 2, false);
    assert_eq!(
        told(&wanted(), &loose),
        ["encrypted: false → true", "tokens for metadata: false → true", "hops to metadata: 2 → 1"]
    );
}
