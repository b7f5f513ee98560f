//! What a cluster is made of on AWS: config and surroundings → desired resources. Pure.

use std::net::Ipv4Addr;

use crate::graph::Graph;
use super::Aws;

/// What of the world decides about the layout, beside the config: found out by the preflight, and by what stands already.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Surroundings {
    /// Twelve digits.
    pub account: String,
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The zones to build in, as configured or chosen.
    pub zones: Vec<String>,
    /// The image that machines boot from.
    pub image: Image,
    /// This machine's own address, as AWS sees it; asked for only if the config names no ranges.
    pub caller: Option<Ipv4Addr>,
    /// The public half of the SSH key, as one line in OpenSSH's form.
    pub ssh_public: String,
}

/// An image for machines.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The device name of its root volume.
    pub root_device: String,
    /// Its user with sudo: `admin` on Debian, `ubuntu`, `ec2-user`.
    pub user: String,
}

/// The desired resources.
pub fn layout() -> Graph<Aws> {
    Graph::new()
}
