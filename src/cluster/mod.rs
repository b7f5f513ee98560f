//! The cluster as the user wants it: what was written, defaults filled in, validated. Immutable input of everything below.
//!
//! [`load()`] lays flags over `KUP_*` variables over the config file over kube-up's variables over the defaults, remembers where each
//! value came from, and returns either a valid [`Cluster`] or every problem at once, each with its place and its fix.

pub mod addons;
pub mod aws;
pub mod defaults;
mod file;
pub mod kube_up;
pub mod labels;
pub mod load;
pub mod problem;
pub mod registries;
pub mod schema;
pub mod source;
pub mod spec;
pub mod validate;
pub mod versions;

pub use addons::Addons;
pub use load::{Loaded, load};
pub use problem::Origin;
pub use source::{Overrides, Source};
pub use spec::Cluster;
