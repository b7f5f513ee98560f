//! Telling people what is going on: work sends [`Event`]s through a [`Report`]; a [`Display`] draws them. Work never prints.

pub mod chain;
pub mod display;
pub mod event;
pub mod json;
pub mod plain;
pub mod screen;
pub mod terminal;
pub mod tree;

pub use display::Display;
pub use event::{Event, Report, Span};
