//! A picture that a command draws: where it goes.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::state::write_atomic;

/// A file to draw into, whose name ends in `.svg`. It replaces an older picture of that name.
#[derive(Debug, Clone)]
pub struct Picture(PathBuf);

impl FromStr for Picture {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Picture, String> {
        // Anything else could be a file that nobody wants replaced.
        if Path::new(text).extension().is_some_and(|e| e.eq_ignore_ascii_case("svg")) {
            Ok(Picture(PathBuf::from(text)))
        } else {
            Err("kup draws SVG: the file's name has to end in .svg".into())
        }
    }
}

impl Picture {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Fails now, before a long run, if the picture could not be written after it.
    pub fn check(&self) -> Result<()> {
        let dir = self.0.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let wrong = if !dir.is_dir() {
            format!("there is no directory {}", dir.display())
        } else if self.0.is_dir() {
            "it is a directory".to_owned()
        } else if let Err(e) = tempfile::tempfile_in(dir) {
            e.to_string()
        } else {
            return Ok(());
        };
        Err(Error::usage(format!("cannot write {}", self.0.display())).why(wrong))
    }

    /// Writes it; whoever may read the directory may read the picture.
    pub fn write(&self, svg: &str) -> Result<()> {
        write_atomic(&self.0, svg.as_bytes(), 0o644)
    }
}
