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
mod bundle;
mod connect;
mod control_plane;
mod controllers;
mod dns;
mod etcd;
mod files;
mod kubelet;
mod leaked;
mod network;
mod proxy;
pub mod ready;
mod runtime;

pub use context::{Context, Host};
pub use engine::{After, On, Run, Step, run};

/// The steps, in order. `kup up --until NAME` stops after one of them.
pub const STEPS: &[Step] = &[
    connect::STEP,
    bundle::STEP,
    files::STEP,
    runtime::STEP,
    etcd::STEP,
    control_plane::STEP,
    controllers::STEP,
    access::STEP,
    kubelet::STEP,
    network::STEP,
    proxy::STEP,
    dns::STEP,
    ready::STEP,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_needs_only_earlier_ones() {
        for (i, step) in STEPS.iter().enumerate() {
            for after in step.after {
                let earlier = STEPS.iter().take(i).find(|s| s.name == after.step());
                let earlier = earlier.unwrap_or_else(|| panic!("{} needs {}, which is not before it", step.name, after.step()));
                if let After::Same(_) = after {
                    assert!(
                        step.on != On::Cluster,
                        "{} runs once, so it has no machine to share with {}",
                        step.name,
                        earlier.name
                    );
                    assert!(
                        earlier.on == On::Machines || earlier.on == step.on,
                        "{} does not run on every machine of {}",
                        earlier.name,
                        step.name
                    );
                }
            }
        }
    }
}
