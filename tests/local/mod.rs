//! The checks on a local cluster: the tutorials' story, clause by clause, and the settings of its nodes.

#![allow(unreachable_pub, missing_docs)]

pub mod config;
pub mod failure;
pub mod kubectl;
pub mod limits;
pub mod nodes;
pub mod pods;
pub mod probes;
pub mod rollouts;
pub mod scheduling;
pub mod services;
pub mod yaml;
