//! kup builds a complete Kubernetes cluster, and removes every trace of it.

<<<<<<< HEAD
pub mod bundle;
pub mod cli;
pub mod bootstrap;
=======
pub mod cli;
>>>>>>> config
pub mod cluster;
pub mod error;
pub mod kubeconfig;
pub mod machine;
pub mod pki;
pub mod provider;
pub mod report;
pub mod state;
<<<<<<< HEAD
pub mod templates;
=======
pub mod yaml;
>>>>>>> config
