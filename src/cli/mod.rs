//! The command line: one file per command, each with its arguments (doc comments are the help) and `run`.

pub mod completion;
pub mod config;
pub mod config_args;
pub mod kubeconfig;
pub mod man;
pub mod version;

use crate::report::Report;

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
