//! The kinds of things that a cluster is made of on AWS: one file each, and their table.
//!
//! To add a kind: its file, its row in [`ROWS`], and its use in [`super::layout`].

pub mod given;
pub mod network;
pub mod subnet;
pub mod vpc;

use super::Aws;
use super::permissions::Need;
use crate::graph::{Kind, Resource, kind};

/// A kind of thing on AWS.
pub trait AwsResource: Resource<Cloud = Aws> {
    /// Which calls its code makes, and which IAM actions they need.
    const NEEDS: &'static [Need];
}

/// A row of the table of kinds.
pub struct Row {
    /// What removal needs.
    pub kind: Kind<Aws>,
    /// What IAM has to allow.
    pub needs: &'static [Need],
}

/// The row of the kind `R`, whose things may need those of the kinds named.
const fn row<R: AwsResource>(after: &'static [&'static str]) -> Row {
    Row { kind: kind::<R>(after), needs: R::NEEDS }
}

/// What listing, making and removing need of all kinds.
pub fn kinds() -> Vec<Kind<Aws>> {
    ROWS.iter().map(|row| row.kind).collect()
}

/// All kinds.
pub const ROWS: &[Row] = &[
    row::<vpc::Vpc>(&[]),
    row::<given::GivenVpc>(&[]),
    row::<subnet::Subnet>(&["vpc"]),
    row::<given::GivenSubnet>(&["given vpc"]),
];
