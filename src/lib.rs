//! kup builds a complete Kubernetes cluster, and removes every trace of it.
//!
//! The words, in the order in which they meet on the way from a config file to a running cluster:
//!
//! - [`cluster`]: what is wanted, with defaults filled in and validated; the immutable input of everything below.
//! - [`provider`]: who makes machines. It hands on [`machine::Machine`]s as they come and knows nothing of Kubernetes.
//! - [`bundle`]: the orchestrator's binaries and images for one version and architecture, each with its sha256.
//! - [`machine`]: hosts that kup runs commands on, over SSH with pinned host keys, and the files they get.
//! - [`pki`]: who gets which certificate.
//! - [`bootstrap`]: the steps that turn machines into a cluster, up to the ready gate.
//! - [`addons`]: what runs on the cluster beside Kubernetes itself.
//! - [`backup`]: etcd's snapshots, where they are kept and for how long; [`restore`] puts one in the place of what a cluster has.
//! - [`kubeconfig`]: how programs reach it.
//! - [`report`]: what work says while it runs; a display draws it, work never prints.
//! - [`picture`]: a run, or a cluster as it stands, drawn.
//! - [`error`]: what failed, why, what is left behind, and what to type next.
//!
//! [`up`] and [`down`] tell the two stories; [`cli`] is what people type. One direction only: cli → up, down → provider, bootstrap →
//! machine, bundle, pki → cluster, report, error.
//!
//! A cluster from no config at all is the default one:
//!
//! ```
//! use kup::cluster::{Source, load};
//!
//! let cluster = load(Source::default())?.cluster;
//! assert_eq!((cluster.name.as_str(), cluster.masters.count, cluster.minions.count), ("kubernetes", 1, 4));
//! # Ok::<(), kup::error::Error>(())
//! ```

pub mod addons;
pub mod aws;
pub mod backup;
pub mod bootstrap;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod down;
pub mod error;
pub mod graph;
pub mod interrupt;
pub mod known;
pub mod kubeconfig;
pub mod lock;
pub mod logs;
pub mod machine;
pub mod picture;
pub mod pki;
pub mod provider;
pub mod replace;
pub mod report;
pub mod restore;
pub mod retire;
pub mod saved;
pub mod standing;
pub mod state;
pub mod status;
pub mod templates;
pub mod times;
pub mod up;
pub mod yaml;
