//! The cluster as the user wants it: what was written, defaults filled in, validated. Immutable input of everything below.

pub mod spec;

pub use spec::Cluster;
