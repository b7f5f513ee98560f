//! The modules of `scripts/bundle/`, compiled in: they pin every source that a bundle is built from. Most only wrap an upstream module;
//! kup's own programs have their source there too.

use std::path::Path;

use include_dir::{Dir, File, include_dir};

use crate::error::{Context, Error, Result};

static MODULES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scripts/bundle");

fn text(module: &str, file: &str) -> Result<&'static str> {
    MODULES
        .get_file(Path::new(module).join(file))
        .and_then(File::contents_utf8)
        .ok_or_else(|| Error::new(format!("this kup has no scripts/bundle/{module}/{file}")))
}

/// The text of a module's `go.mod`.
pub fn go_mod(module: &str) -> Result<&'static str> {
    text(module, "go.mod")
}

/// The text of a module's `go.sum`.
pub fn go_sum(module: &str) -> Result<&'static str> {
    text(module, "go.sum")
}

fn folder(module: &str) -> Result<&'static Dir<'static>> {
    MODULES.get_dir(module).ok_or_else(|| Error::new(format!("this kup has no scripts/bundle/{module}")))
}

/// Whether a module has source of its own, instead of only naming another's.
pub fn has_source(module: &str) -> bool {
    folder(module).is_ok_and(|dir| dir.files().any(is_source))
}

fn is_source(file: &File<'_>) -> bool {
    file.path().extension().is_some_and(|e| e == "go") && !is_test(file)
}

/// Tests are no part of a program: a change to them builds nothing anew.
fn is_test(file: &File<'_>) -> bool {
    file.path().to_str().is_some_and(|path| path.ends_with("_test.go"))
}

/// Whether a module has tests of its own.
pub fn has_tests(module: &str) -> bool {
    folder(module).is_ok_and(|dir| dir.files().any(is_test))
}

/// All that a module says, as one text: whatever changes its build changes this.
pub fn all(module: &str) -> Result<String> {
    let mut texts = vec![go_mod(module)?, go_sum(module)?];
    let mut sources: Vec<&File<'_>> = folder(module)?.files().filter(|f| is_source(f)).collect();
    sources.sort_by_key(|f| f.path());
    texts.extend(sources.into_iter().filter_map(File::contents_utf8));
    Ok(texts.join("\0"))
}

/// Writes a module's files into `dir`, which is made if need be.
pub fn write(module: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    for file in folder(module)?.files() {
        let path = dir.join(file.path().file_name().unwrap_or_default());
        std::fs::write(&path, file.contents()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The required module that provides `package`, as `path@version`; a program of kup's own is its module's.
pub fn providing(module: &str, package: &str) -> Result<String> {
    if go_mod(module)?.lines().any(|line| line.strip_prefix("module ") == Some(package)) {
        return Ok(format!("scripts/bundle/{module}"));
    }
    let requirements = go_mod(module)?.lines().map(|line| line.trim().trim_start_matches("require ")).filter_map(|line| {
        let mut words = line.split_whitespace();
        let (path, version) = (words.next()?, words.next()?);
        let inside = package.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (inside && version.starts_with('v')).then_some((path, version))
    });
    requirements
        .max_by_key(|(path, _)| path.len())
        .map(|(path, version)| format!("{path}@{version}"))
        .ok_or_else(|| Error::new(format!("scripts/bundle/{module}/go.mod requires no module that provides {package}")))
}

/// The Go version that a module's `go` line asks for, as numbers.
pub fn go_line(module: &str) -> Result<Vec<u32>> {
    let line = go_mod(module)?.lines().find_map(|l| l.strip_prefix("go ")).unwrap_or_default();
    Ok(numbers(line))
}

/// `1.26.8` as `[1, 26, 8]`; anything after the numbers (`rc1`) is left out.
pub fn numbers(version: &str) -> Vec<u32> {
    version.trim().split('.').map_while(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}
