//! Turning machines into a cluster, over SSH, all machines at once.
//!
//! [`STEPS`] is the order a reader may think in; each step says what it really needs, and [`engine`] runs every step on every
//! machine as soon as that is there. Nothing waits for a stage to end that it doesn't need.

pub mod api;
pub mod context;
pub mod diagnose;
pub mod engine;
pub mod units;

mod access;
mod addons;
mod balancer;
mod bundle;
mod cloud;
mod connect;
mod control_plane;
mod controllers;
pub mod etcd;
mod files;
pub mod joining;
mod kubelet;
mod leaked;
mod network;
mod proxy;
pub mod ready;
mod runtime;
mod volume;

pub use context::{Context, Host};
pub use engine::{After, On, Run, Step, run};
pub use joining::Minions;

/// The steps, in order. `kup up --until NAME` stops after one of them.
pub const STEPS: &[Step] = &[
    connect::STEP,
    bundle::STEP,
    files::STEP,
    runtime::STEP,
    etcd::STEP,
    control_plane::STEP,
    balancer::STEP,
    controllers::STEP,
    access::STEP,
    cloud::STEP,
    kubelet::STEP,
    network::STEP,
    proxy::STEP,
    joining::STEP,
    addons::STEP,
    ready::STEP,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Role;

    /// Whoever puts something before it leaves out the last.
    #[test]
    fn the_gate_is_the_last_step() {
        assert_eq!(STEPS.last().map(|step| step.name), Some(ready::STEP.name));
    }

    #[test]
    fn every_step_needs_only_earlier_ones() {
        for (i, step) in STEPS.iter().enumerate() {
            for after in step.after {
                let earlier = STEPS.iter().take(i).find(|s| s.name == after.step());
                let earlier = earlier.unwrap_or_else(|| panic!("{} needs {}, which is not before it", step.name, after.step()));
                if let After::Same(_) = after {
                    for role in [Role::Master, Role::Minion, Role::Balancer].into_iter().filter(|r| step.on.includes(*r)) {
                        assert!(earlier.on.includes(role), "{} does not run on every machine of {}", earlier.name, step.name);
                    }
                    assert!(step.on != On::Cluster, "{} runs once, so it shares no machine with {}", step.name, earlier.name);
                }
            }
        }
    }
}
