//! The checks of the add-ons.

#![allow(unreachable_pub, missing_docs, dead_code)]

pub mod metrics;
pub mod storage;
pub mod switch;
#[path = "../local/yaml.rs"]
pub mod yaml;
