//! `kup completion`: the script that a shell needs to complete kup's words.

use super::Ui;
use crate::error::{Context, Result};

/// Print the completion script of a shell
///
/// Bash: `source <(kup completion bash)` in ~/.bashrc. Zsh: `kup completion zsh > "${fpath[1]}/_kup"`.
/// Fish: `kup completion fish > ~/.config/fish/completions/kup.fish`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script for kup's whole command line.
pub async fn run(args: Args, mut kup: clap::Command, ui: &Ui) -> Result<()> {
    let name = kup.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut kup, name, &mut script);
    ui.print(String::from_utf8(script).context("the completion script is not text")?.trim_end());
    Ok(())
}
