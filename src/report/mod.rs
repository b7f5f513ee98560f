//! Telling people what is going on: work sends [`Event`]s through a [`Report`]; a display draws them. Work never prints.

pub mod event;

pub use event::{Event, Report, Span};
