//! The `kup` program: parse, run, exit code. All else is in the library.

use std::io::Write as _;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use kup::cli::{Cli, drive};

/// The stack that work runs on, in bytes. All of a command is one future, and those of AWS's SDK nest so deep that they may need more than a
/// main thread has, which is whatever `ulimit -s` says. What is not used of it takes no memory.
const STACK: usize = 64 << 20;

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let conduct = command.conduct();
    let work = move || drive(&global, conduct, async move |ui| command.run(ui).await);
    match thread::Builder::new().name("kup".to_owned()).stack_size(STACK).spawn(work) {
        Ok(running) => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(why) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: cannot start a thread\n  because: {why}\n  next: raise the limit: ulimit -u, ulimit -v"
            );
            ExitCode::FAILURE
        }
    }
}
