//! The cluster's own public key infrastructure: three authorities, the service-account key, and the certificates under them.
//!
//! Kept in the cluster's state directory (`pki/`, 0700), or in its bucket. What is there and still fits is used again, so that a second `up`
//! renders the same files; what is missing, has other names in it, or ends soon is issued anew.

pub mod authority;
pub mod files;
pub mod layout;
pub mod store;

pub use authority::{Authority, Leaf, Pair, Usage};
pub use store::{Pki, mark};
