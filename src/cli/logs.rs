//! `kup logs`: what machines have to say, on the screen or in an archive.

use std::path::PathBuf;

use serde_json::json;

use super::Ui;
use super::nodes::owner;
use super::status::{self, render};
use super::target::TargetArgs;
use crate::error::{Context, Error, Result};
use crate::logs::{self, Extent, Since, Tail, UnitName, archive};
use crate::standing::Standing;

/// Print the journals of a cluster's units, or gather everything that explains its behaviour into an archive
///
/// Printed are the last 50 lines of each machine, all machines by time; --tail and --since say how much instead. The archive holds journals, containers' logs, configuration, `kup status` and the API's objects; keys, tokens and Secrets are left out.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Machines, like master-1 [default: all]
    nodes: Vec<String>,
    /// Write everything into this file (.tar.gz) instead of printing journals
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    archive: Option<PathBuf>,
    /// With --archive: replace the file if there is one
    #[arg(long, requires = "archive")]
    force: bool,
    /// How far back to look, like 30m, 2h or 7d [default: as far as there is]
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// How many lines of each machine, the last ones, or `all` [default: 50; with --since all]
    #[arg(long, value_name = "LINES", conflicts_with = "archive")]
    tail: Option<Tail>,
    /// Only this unit, like kubelet (`kup status --wide` names them); may be repeated
    #[arg(short, long, value_name = "UNIT", conflicts_with = "archive")]
    unit: Vec<UnitName>,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let target = match args.nodes.first() {
        Some(node) => owner(&args.target, node, ui).await?,
        None => args.target.require(ui).await?,
    };
    if let Some(file) = args.archive.as_ref().filter(|f| !args.force && f.symlink_metadata().is_ok()) {
        return Err(Error::usage(format!("cannot write {}", file.display()))
            .why("it exists already")
            .hint("name another file, or replace it with --force"));
    }
    let standing = Standing::of(&target.id, &target.provider).await?;
    let machines = standing.chosen(&args.nodes)?;
    if let Some(file) = &args.archive {
        let status = status::of(&standing, ui).await;
        let extra = vec![
            ("status.txt".to_owned(), render(&status, true, false).into_bytes()),
            ("status.json".to_owned(), serde_json::to_vec_pretty(&status).context("cannot write the status as JSON")?),
        ];
        let written =
            archive::write(file, &standing, &target.provider, &machines, args.since.as_ref(), extra, &ui.report).await?;
        for missing in &written.missing {
            ui.report.warn(format!("not in the archive: {missing}"));
        }
        if ui.json {
            return ui
                .result(&json!({ "archive": file, "files": written.files, "bytes": written.bytes, "missing": written.missing }));
        }
        ui.print(format!(
            "{}: {} files, {} KiB. Keys, tokens and Secrets are left out.",
            file.display(),
            written.files,
            written.bytes.div_ceil(1024)
        ));
        return Ok(());
    }
    let extent = Extent::of(args.since, args.tail);
    let journals = logs::journals(&standing, &target.provider, &machines, &args.unit, &extent).await;
    journals.known(&machines)?;
    for (machine, why) in &journals.silent {
        for line in why.lines() {
            ui.print(format!("{}/console: {line}", standing.short(machine)));
        }
    }
    for line in &journals.lines {
        if ui.reader_gone() {
            return Ok(());
        }
        if ui.json {
            ui.print(json!({ "time": line.time(), "machine": line.machine, "unit": line.unit, "message": line.message }));
        } else {
            ui.print(format!("{} {}/{}: {}", line.time(), standing.short(&line.machine), line.unit, line.message));
        }
    }
    if journals.lines.is_empty() && journals.silent.is_empty() {
        let since = extent.since.as_ref().map(|since| format!(" in the last {since}; --since looks further back"));
        ui.report.note(format!("nothing was said{}", since.unwrap_or_default()));
    }
    if let (true, Some(lines)) = (journals.cut, extent.tail) {
        ui.report.note(format!("these are the last {lines} lines of each machine; --tail and --since show more"));
    }
    match journals.silent.as_slice() {
        [] => Ok(()),
        silent => {
            let names: Vec<&str> = silent.iter().map(|(machine, _)| standing.short(machine)).collect();
            Err(Error::new(format!("{} could not be asked for its journals", names.join(", ")))
                .hint("`kup status` shows every part"))
        }
    }
}
