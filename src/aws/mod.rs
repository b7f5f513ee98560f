//! What kup needs to know of AWS: its clients, its errors, its tags, each kind of resource, and what a cluster is made of there.

pub mod capacity;
pub mod census;
pub mod client;
pub mod deadline;
pub mod fault;
pub mod foreign;
pub mod iam;
pub mod image;
pub mod layout;
pub mod leftovers;
pub mod lock;
pub mod node_files;
pub mod node_images;
pub mod node_store;
pub mod once;
pub mod permissions;
pub mod plan_view;
pub mod preflight;
pub mod prices;
pub mod profile;
pub mod quota;
pub mod resource;
pub mod simulate;
pub mod ssh_key;
pub mod tags;
#[cfg(test)]
pub(crate) mod testing;
pub mod user_data;
pub mod watch;

pub use client::Aws;
