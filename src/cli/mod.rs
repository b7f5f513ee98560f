//! The command line: one file per command, with its `Args` (their doc comments are the help) and its `run`.
//!
//! To add a command: a file, a variant of [`Command`] and a line in [`Command::run`]; if it makes or removes things, also one in
//! [`Command::conduct`].

pub mod addons;
pub mod bundle;
pub mod completion;
pub mod config;
pub mod config_args;
pub mod down;
pub mod drive;
pub mod etcd;
pub mod gc;
pub mod get;
pub mod graph;
pub mod iam;
pub mod image;
pub mod kubeconfig;
pub mod kubectl;
pub mod logs;
pub mod man;
mod nodes;
pub mod picture;
pub mod plan;
pub mod same;
pub mod ssh;
pub mod status;
pub mod target;
pub mod ui;
pub mod up;
pub mod version;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

pub use drive::{Conduct, drive};
pub use ui::Ui;

use crate::error::Result;

/// Build a complete Kubernetes cluster, and remove every trace of it.
#[derive(Debug, Parser)]
#[command(name = "kup", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not healthy or changes pending, 4 credentials, 130 interrupted (and resumable)"
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How to print results: text for people, json for programs
    ///
    /// With json, commands that change things write one object per line to standard output: every event, and the outcome last.
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text", hide_default_value = true)]
    pub output: Output,
    /// Show no progress, only warnings, results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show each machine's part of every step, also of finished ones
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// When to colour; auto looks at the terminal and at NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub color: Color,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What kup can do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // The doc comment of each variant's `Args` is the command's help.
pub enum Command {
    Up(up::Args),
    Down(down::Args),
    Plan(plan::Args),
    Status(status::Args),
    Get(get::Args),
    Gc(gc::Args),
    Graph(graph::Args),
    Ssh(ssh::Args),
    Logs(logs::Args),
    Kubectl(kubectl::Args),
    Kubeconfig(kubeconfig::Args),
    Addons(addons::Args),
    Etcd(etcd::Args),
    Image(image::Args),
    Iam(iam::Args),
    Bundle(bundle::Args),
    Config(config::Args),
    Version(version::Args),
    Completion(completion::Args),
    Man(man::Args),
}

impl Command {
    /// How this command behaves towards the outside while it runs.
    pub fn conduct(&self) -> Conduct {
        match self {
            Command::Up(_) => Conduct { stream: true, interrupted: Some("`kup up` resumes, `kup down` removes") },
            Command::Down(_) => Conduct { stream: true, interrupted: Some("`kup down` goes on") },
            Command::Addons(args) => args.conduct(),
            Command::Etcd(args) => args.conduct(),
            Command::Bundle(args) => args.conduct(),
            _ => Conduct::default(),
        }
    }

    /// Runs it.
    pub async fn run(self, ui: &Ui) -> Result<()> {
        match self {
            Command::Up(args) => up::run(args, ui).await,
            Command::Down(args) => down::run(args, ui).await,
            Command::Plan(args) => plan::run(args, ui).await,
            Command::Status(args) => status::run(args, ui).await,
            Command::Get(args) => get::run(args, ui).await,
            Command::Gc(args) => gc::run(args, ui).await,
            Command::Graph(args) => graph::run(args, ui).await,
            Command::Ssh(args) => ssh::run(args, ui).await,
            Command::Logs(args) => logs::run(args, ui).await,
            Command::Kubectl(args) => kubectl::run(args, ui).await,
            Command::Kubeconfig(args) => kubeconfig::run(args, ui).await,
            Command::Addons(args) => addons::run(args, ui).await,
            Command::Etcd(args) => etcd::run(args, ui).await,
            Command::Image(args) => image::run(args, ui).await,
            Command::Iam(args) => iam::run(args, ui).await,
            Command::Bundle(args) => bundle::run(args, ui).await,
            Command::Config(args) => config::run(args, ui).await,
            Command::Version(args) => version::run(args, ui).await,
            Command::Completion(args) => completion::run(args, Cli::command(), ui).await,
            Command::Man(args) => man::run(args, Cli::command(), ui).await,
        }
    }
}
