//! kup builds a complete Kubernetes cluster, and removes every trace of it.

pub mod bootstrap;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod error;
pub mod kubeconfig;
pub mod machine;
pub mod pki;
pub mod provider;
pub mod report;
pub mod state;
pub mod templates;
pub mod yaml;
