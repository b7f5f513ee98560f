//! `kup man`: manual pages.

use std::path::PathBuf;

use super::Ui;
use crate::error::{Context, Result};

/// Print kup's manual page, or write those of all its commands
///
/// To read it at once: `kup man | man -l -`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Write a page for each command into this directory instead (made if absent)
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Prints or writes the pages of kup's whole command line.
pub async fn run(args: Args, kup: clap::Command, ui: &Ui) -> Result<()> {
    match args.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(kup).render(&mut page).context("cannot write the manual page")?;
            ui.print(String::from_utf8(page).context("the manual page is not text")?.trim_end());
            Ok(())
        }
        Some(dir) => {
            let what = || format!("cannot write the manual pages to {}", dir.display());
            std::fs::create_dir_all(&dir).with_context(what)?;
            clap_mangen::generate_to(kup, &dir).with_context(what)?;
            ui.report.note(format!("wrote the manual pages to {}", dir.display()));
            Ok(())
        }
    }
}
