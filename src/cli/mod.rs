//! The command line: one file per command.

use crate::report::Report;

pub mod image;

/// What a command talks to people with.
pub struct Ui {
    /// Progress, drawn on stderr.
    pub report: Report,
    /// Whether data is printed as JSON.
    pub json: bool,
}

impl Ui {
    /// Prints data to stdout.
    #[allow(clippy::print_stdout)]
    pub fn print(&self, data: impl std::fmt::Display) {
        println!("{data}");
    }
}
