//! kup builds a complete Kubernetes cluster, and removes every trace of it.

pub mod bootstrap;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod down;
pub mod error;
pub mod kubeconfig;
pub mod lock;
pub mod logs;
pub mod machine;
pub mod pki;
pub mod provider;
pub mod report;
pub mod retire;
pub mod saved;
pub mod standing;
pub mod state;
pub mod status;
pub mod templates;
pub mod up;
pub mod yaml;
