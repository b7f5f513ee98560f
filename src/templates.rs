//! Everything below `templates/`, compiled in and rendered strictly: a variable that is not given is an error, never an empty string.
//! What several scripts share is in `templates/shell/`, and included by its path.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::error::{Context, Error, Result};

static TEMPLATES: include_dir::Dir<'_> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The text of a template as it stands, for files without variables.
pub fn text(path: &str) -> Result<&'static str> {
    TEMPLATES
        .get_file(path)
        .and_then(|f| f.contents_utf8())
        .ok_or_else(|| Error::new(format!("the template {path} is not part of this build of kup")))
}

/// A template with its variables filled in.
pub fn render(path: &str, values: impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(
        SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .build()
            .with_context(|| format!("cannot set up the template {path}"))?,
    );
    for shared in TEMPLATES.get_dir("shell").into_iter().flat_map(include_dir::Dir::files) {
        if let (Some(name), Some(text)) = (shared.path().to_str(), shared.contents_utf8()) {
            environment.add_template(name, text).with_context(|| format!("cannot read the template {name}"))?;
        }
    }
    environment.render_str(text(path)?, Serde(values)).with_context(|| format!("cannot fill in the template {path}"))
}

/// The folder of an add-on's templates, as (path, text) ordered by path.
fn addon_files(name: &str) -> Result<Vec<(&'static str, &'static str)>> {
    let dir = TEMPLATES
        .get_dir(format!("addons/{name}"))
        .ok_or_else(|| Error::new(format!("the add-on {name} is not part of this build of kup")))?;
    let mut files: Vec<_> = dir.files().filter_map(|f| f.path().to_str().zip(f.contents_utf8())).collect();
    files.sort_unstable();
    Ok(files)
}

/// The texts of all files in an add-on's folder, as they stand.
pub fn addon_texts(name: &str) -> Result<Vec<&'static str>> {
    Ok(addon_files(name)?.into_iter().map(|(_, text)| text).collect())
}

/// The YAML documents of all files in an add-on's folder, by file name, filled in.
pub fn addon(name: &str, values: impl Serialize) -> Result<Vec<String>> {
    addon_files(name)?.into_iter().map(|(path, _)| render(path, &values)).collect()
}

/// The names of all folders of add-ons, sorted.
pub fn addon_names() -> Vec<&'static str> {
    let folders = TEMPLATES.get_dir("addons").into_iter().flat_map(include_dir::Dir::dirs).filter(|d| d.files().next().is_some());
    let mut names: Vec<_> = folders.filter_map(|d| d.path().file_name()?.to_str()).collect();
    names.sort_unstable();
    names
}
