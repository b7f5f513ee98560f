//! The `kup` program: parse, run, exit code. All else is in the library.

use std::process::ExitCode;

use clap::Parser;
use kup::cli::{Cli, drive};

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let conduct = command.conduct();
    drive(&global, conduct, async move |ui| command.run(ui).await)
}
