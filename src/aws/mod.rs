//! What kup needs to know of AWS: its clients, its errors, its tags, each kind of resource, and what a cluster is made of there.

pub mod client;
pub mod fault;
pub mod layout;
pub mod permissions;
pub mod resource;
pub mod tags;

pub use client::Aws;
