//! Parses the command line, runs the command, and turns its outcome into an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use kup::cli::{Ui, completion, config, man, version};
use kup::report::{Event, Report};

/// Builds a complete Kubernetes cluster, and removes every trace of it
#[derive(Parser)]
#[command(name = "kup", version)]
struct Cli {
    /// How data is printed
    #[arg(short, long, global = true, default_value = "text")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    Config(config::Args),
    Completion(completion::Args),
    Man(man::Args),
    Version(version::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let (report, mut events) = Report::channel();
    let ui = Ui { report, json: cli.output == Output::Json };
    let outcome = match cli.command {
        Command::Config(args) => config::run(args, &ui).await,
        Command::Completion(args) => completion::run(args, Cli::command(), &ui).await,
        Command::Man(args) => man::run(args, Cli::command(), &ui).await,
        Command::Version(args) => version::run(args, &ui).await,
    };
    drop(ui);
    let mut err = std::io::stderr().lock();
    while let Some(event) = events.recv().await {
        if let Event::Note { text } | Event::Warning { text } = event {
            // There is nowhere else to say that stderr can't be written.
            let _ = writeln!(err, "{text}");
        }
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(err, "error: {e}");
            ExitCode::from(e.kind.exit_code())
        }
    }
}
