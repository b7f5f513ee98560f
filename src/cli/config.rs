//! `kup config`: write, check, show and describe the config.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use super::Ui;
use super::config_args::ConfigArgs;
use crate::cluster::{defaults, schema};
use crate::error::{Context, Error, Result};

/// Write, check, show and describe the config
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Write a commented config with all defaults, ready to edit
    Init(InitArgs),
    /// Check a config without touching anything
    Validate(ConfigArgs),
    /// Print the config's JSON schema, for editors
    Schema,
    /// Print the config as it counts: file, flags, variables and defaults together
    View(ViewArgs),
}

#[derive(Debug, Clone, ClapArgs)]
struct InitArgs {
    /// Where to write it
    #[arg(default_value = defaults::FILE, value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, ClapArgs)]
struct ViewArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Show where each value comes from
    #[arg(long)]
    origin: bool,
}

/// Runs one of them.
pub async fn run(command: Args, ui: &Ui) -> Result<()> {
    match command.command {
        Command::Init(args) => init(&args, ui),
        Command::Validate(args) => validate(&args, ui),
        Command::Schema => {
            let schema = schema::json_schema()?;
            ui.print(serde_json::to_string_pretty(&schema).context("cannot write the schema")?);
            Ok(())
        }
        Command::View(args) => view(&args, ui),
    }
}

fn init(args: &InitArgs, ui: &Ui) -> Result<()> {
    let file = &args.file;
    let what = || format!("cannot write {}", file.display());
    if args.force && file.exists() {
        if file.is_dir() {
            return Err(Error::usage(what())
                .why("it is a directory")
                .hint(format!("name a file in it: kup config init {}", file.join(defaults::FILE).display())));
        }
        crate::state::write_atomic(&resolved(file)?, defaults::TEXT.as_bytes(), 0o644)?;
    } else {
        let mut new = match OpenOptions::new().write(true).create_new(true).open(file) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let hint = "name another file, or replace it with --force (what is in it will be gone)";
                return Err(Error::usage(what()).why("it exists already").hint(hint));
            }
            other => other.with_context(what)?,
        };
        new.write_all(defaults::TEXT.as_bytes()).and_then(|()| new.sync_all()).with_context(what)?;
    }
    ui.report.note(format!("wrote {}", file.display()));
    let picked_up = file == Path::new(defaults::FILE);
    ui.report.note(if picked_up {
        "next: edit it, then type `kup up`".to_owned()
    } else {
        format!("next: edit it, then type `kup up -f {}`", file.display())
    });
    Ok(())
}

/// The file that a symbolic link leads to: replacing a file must not replace the link.
fn resolved(file: &Path) -> Result<PathBuf> {
    file.canonicalize().with_context(|| format!("cannot write {}", file.display()))
}

fn validate(args: &ConfigArgs, ui: &Ui) -> Result<()> {
    let loaded = args.load(&ui.report)?;
    let cluster = &loaded.cluster;
    let source = loaded.file.as_ref().map_or("the default config".to_owned(), |f| f.display().to_string());
    if ui.json {
        return ui.result(&json!({ "valid": true, "file": loaded.file, "name": cluster.name }));
    }
    let count = |n: u16, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    ui.print(format_args!(
        "{source} is valid: cluster {} ({}), {}, {}, Kubernetes {}",
        cluster.name,
        cluster.provider.as_str(),
        count(cluster.masters.count, "master"),
        count(cluster.minions.count, "minion"),
        cluster.kubernetes.version
    ));
    Ok(())
}

fn view(args: &ViewArgs, ui: &Ui) -> Result<()> {
    let loaded = args.config.load(&ui.report)?;
    let what = "cannot write the config";
    if !args.origin {
        if ui.json {
            return ui.result(&loaded.cluster);
        }
        ui.print(serde_yaml::to_string(&loaded.cluster).context(what)?.trim_end());
        return Ok(());
    }
    let fields = loaded.fields()?;
    if ui.json {
        let row = |(path, value, origin): &(_, _, crate::cluster::Origin)| json!({ "path": path, "value": value, "origin": origin.to_string() });
        return ui.result(&fields.iter().map(row).collect::<Vec<_>>());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["PATH", "VALUE", "ORIGIN"]);
    for (path, value, origin) in fields {
        let value = serde_yaml::to_string(&value).context(what)?;
        table.add_row([path, value.trim_end().to_owned(), origin.to_string()]);
    }
    ui.print(table.trim_fmt());
    Ok(())
}
