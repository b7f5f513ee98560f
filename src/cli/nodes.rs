//! What commands about machines share: which cluster they mean, tables, and handing the terminal over to another program.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use comfy_table::{Table, presets};

use super::Ui;
use super::same::Same;
use super::target::{Target, TargetArgs};
use crate::cluster::spec::{EngineChoice, ProviderKind};
use crate::error::{Error, Kind, Result};
use crate::provider::{AnyProvider, ClusterId, Finder, LocalProvider};

/// The cluster that is meant. Among several, a machine's full name says which.
pub(super) async fn owner(target: &TargetArgs, machine: &str, ui: &Ui) -> Result<Target> {
    let error = match target.require(ui).await {
        Err(e) if e.kind == Kind::Usage && target.name.is_none() && target.provider != Some(ProviderKind::Aws) => e,
        outcome => return outcome,
    };
    let provider = LocalProvider::new(target.engine.unwrap_or(EngineChoice::Auto));
    for name in provider.clusters().await.unwrap_or_default() {
        if provider.discover(&name).await?.machines.iter().any(|m| m.machine.name == machine) {
            ui.means(Same::default().with("name", Some(&name)));
            return Ok(Target { id: ClusterId { provider: ProviderKind::Local, name }, provider: AnyProvider::Local(provider) });
        }
    }
    Err(error)
}

/// A table without lines, as kubectl prints them.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Becomes another program: terminal, signals and exit code are its own. Returns only if that failed.
pub(super) fn become_program(mut command: Command, package: &str, ui: &Ui) -> Result<()> {
    let _held = ui.hold()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let error = command.exec();
    let mut told = Error::new(format!("cannot run {program}")).why(&error);
    if error.kind() == ErrorKind::NotFound {
        told = told.hint(format!("it is in the package {package}: apt install {package}"));
    }
    Err(told)
}
