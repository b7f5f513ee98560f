//! kup builds a complete Kubernetes cluster, and removes every trace of it.

pub mod cli;
pub mod cluster;
pub mod error;
pub mod lock;
pub mod machine;
pub mod provider;
pub mod report;
pub mod state;
