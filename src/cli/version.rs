//! `kup version`: kup's own version, and the Kubernetes versions that it builds.

use std::fmt::Write;

use serde_json::json;

use super::Ui;
use crate::cluster::versions::Releases;
use crate::error::Result;

/// kup's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, if the build was told by `KUP_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("KUP_COMMIT");

/// Print kup's version, and the Kubernetes versions that it builds with their components
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// Prints them.
pub async fn run(_args: Args, ui: &Ui) -> Result<()> {
    let releases = Releases::compiled_in()?;
    if ui.json {
        return ui.result(&json!({ "version": VERSION, "commit": COMMIT, "kubernetes": releases }));
    }
    let mut text = format!("kup {VERSION}{}", COMMIT.map_or(String::new(), |commit| format!(" ({commit})")));
    for version in releases.versions() {
        let default = if version == releases.default { " (default)" } else { "" };
        // Writing to a String can't fail.
        let _ = write!(text, "\nKubernetes {version}{default}");
        for (name, component) in releases.releases.get(version).into_iter().flatten().filter(|(name, _)| *name != "kubernetes") {
            let _ = write!(text, "\n  {name} {}", component.version);
        }
    }
    ui.print(text);
    Ok(())
}
