//! Things that are made somewhere else, and the order in which they are made and removed.
//!
//! A [`Resource`] is one wanted thing; it reaches another only through a [`Ref`] that it declared, so that order is computed, work is
//! parallel, and removal is the same graph backwards. [`Plan`] is wanted × found, pure; [`apply`] does what a plan says, and
//! nothing else; [`drift`] says what one plan does more than another; [`sweep`] removes what was found, with no config at hand.
//!
//! Generic over the cloud, so that all of it is tested with one that lives in memory.

pub mod apply;
pub mod drift;
pub mod plan;
pub mod resource;
pub mod sweep;

pub use apply::{apply, apply_telling};
pub use plan::{Item, Plan, Verb};
pub use resource::{Address, Change, Cx, Effect, Entry, Found, Graph, Kind, Known, Ref, Resource, kind};
pub use sweep::{Cloud, Left, sweep};

#[cfg(test)]
mod tests;
