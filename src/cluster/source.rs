//! Where values may come from besides the file: flags, `KUP_*` variables, and those of kube-up.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde_yaml::Value;

use super::file::unknown_fix;
use super::problem::{Origin, Problem, quoted};
use super::schema::{Field, Part, Schema, item, join, parts};
use super::spec::{EngineChoice, ProviderKind};

/// The variable that names the config file.
pub const FILE_VARIABLE: &str = "KUP_FILE";

/// Which variable and which flag set which field.
const NAMED: [(&str, &str, &str); 8] = [
    ("KUP_NAME", "--name", "name"),
    ("KUP_PROVIDER", "--provider", "provider"),
    ("KUP_KUBERNETES_VERSION", "--kubernetes-version", "kubernetes.version"),
    ("KUP_MASTERS", "--masters", "masters.count"),
    ("KUP_MINIONS", "--minions", "minions.count"),
    ("KUP_REGION", "--region", "aws.region"),
    ("KUP_PROFILE", "--profile", "aws.profile"),
    ("KUP_ENGINE", "--engine", "local.engine"),
];

/// What the flags said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `--name`
    pub name: Option<String>,
    /// `--provider`
    pub provider: Option<ProviderKind>,
    /// `--kubernetes-version`
    pub kubernetes_version: Option<String>,
    /// `--masters`
    pub masters: Option<u16>,
    /// `--minions`
    pub minions: Option<u16>,
    /// `--region`
    pub region: Option<String>,
    /// `--profile`
    pub profile: Option<String>,
    /// `--engine`
    pub engine: Option<EngineChoice>,
    /// `--set path=value`, any number of times; later ones win, also over the flags above.
    pub sets: Vec<String>,
}

/// All that [`super::load()`] looks at. The default value is nothing at all: it loads the default cluster.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The config file; `-` is standard input.
    pub file: Option<PathBuf>,
    /// The flags.
    pub overrides: Overrides,
    /// The directory whose `config-default.yaml` is used if no file is named.
    pub directory: Option<PathBuf>,
    /// The environment.
    pub variables: BTreeMap<OsString, OsString>,
}

impl Source {
    /// A file and flags, with this process's environment and working directory.
    pub fn new(file: Option<PathBuf>, overrides: Overrides) -> Source {
        Source { file, overrides, directory: Some(PathBuf::new()), variables: std::env::vars_os().collect() }
    }

    /// The file that was named, by flag or variable.
    pub(super) fn named_file(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| self.variable(FILE_VARIABLE).map(PathBuf::from))
    }

    /// A variable; an empty one counts as unset.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(&OsString::from(name)).filter(|value| !value.is_empty())
    }

    /// The `KUP_*` variables.
    pub(super) fn environment(&self, schema: &Schema, problems: &mut Vec<Problem>) -> Vec<Setting> {
        let setting = |(variable, _, path): &(&str, &str, &str)| {
            let text = self.text(variable, path, problems)?;
            let (path, field) = schema.find(path)?;
            Some(Setting { path, value: typed(field, text), origin: Origin::Env((*variable).to_owned()) })
        };
        NAMED.iter().filter_map(setting).collect()
    }

    /// The text of the variable for a field, if it is set.
    pub(super) fn text(&self, variable: &str, path: &str, problems: &mut Vec<Problem>) -> Option<&str> {
        let value = self.variable(variable)?;
        if value.to_str().is_none() {
            let origin = Origin::Env(variable.to_owned());
            let what = format!("{} is not UTF-8 text", quoted(&value.to_string_lossy()));
            problems.push(Problem { origin, path: path.into(), what, fix: format!("set it again, or `unset {variable}`") });
        }
        value.to_str()
    }

    /// The flags, `--set` last.
    pub(super) fn flags(&self, schema: &Schema, problems: &mut Vec<Problem>) -> Vec<Setting> {
        let o = &self.overrides;
        let engine = o.engine.map(|e| serde_yaml::to_value(e).unwrap_or_default());
        let text = |s: &Option<String>| s.clone().map(Value::String);
        let values = [
            text(&o.name),
            o.provider.map(|p| Value::String(p.as_str().into())),
            text(&o.kubernetes_version),
            o.masters.map(Value::from),
            o.minions.map(Value::from),
            text(&o.region),
            text(&o.profile),
            engine,
        ];
        let mut settings = Vec::new();
        for ((_, flag, path), value) in NAMED.iter().zip(values) {
            settings.extend(value.map(|value| Setting { path: (*path).into(), value, origin: Origin::Flag((*flag).into()) }));
        }
        for set in &o.sets {
            match assignment(set, schema) {
                Ok(setting) => settings.push(setting),
                Err(problem) => problems.push(problem),
            }
        }
        settings
    }
}

/// One field, its value, and where that was said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) path: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// `network.pods=10.1.0.0/16`.
fn assignment(text: &str, schema: &Schema) -> Result<Setting, Problem> {
    let wrong =
        |path: &str, what: String, fix: String| Problem { origin: Origin::Flag("--set".into()), path: path.into(), what, fix };
    let Some((path, value)) = text.split_once('=') else {
        return Err(wrong("", format!("{} has no `=`", quoted(text)), "write it like --set network.pods=10.1.0.0/16".into()));
    };
    let path = path.trim();
    if let Some((what, fix)) = key_fault(path, schema) {
        return Err(wrong("", what, fix));
    }
    match schema.find(path) {
        Some((path, field)) if field.is_secret() => {
            let what = "a password can't be given by a flag: everybody on this machine may read a program's flags".to_owned();
            Err(wrong(&path, what, "write it to a file, and give passwordFile with that file's path".into()))
        }
        Some((path, field)) if field.items().is_some() => {
            let (word, (key, below)) = (field.keys().word(), field.keys().example());
            let fix = format!("set a field of one {word}: --set '{}=…'", join(&item(&path, key), below));
            Err(wrong(&path, format!("these are {word}s, which can't be set as a whole"), fix))
        }
        Some((path, field)) => match field.fields() {
            None => Ok(Setting {
                path,
                value: typed(field, value),
                origin: Origin::Flag(format!("--set {}", quoted(text).trim_matches('`'))),
            }),
            Some(_) => {
                let fix =
                    field.names().iter().map(|name| format!("--set {}=…", join(&path, name))).collect::<Vec<_>>().join(" or ");
                Err(wrong(
                    &path,
                    "this is a block of fields, which can't be set as a whole".into(),
                    format!("set one of its fields: {fix}"),
                ))
            }
        },
        None => {
            // The deepest part that exists says which words were possible.
            let mut parent = (String::new(), schema.root());
            let mut word = "";
            for part in parts(path) {
                word = part.text();
                let next = match part {
                    Part::Name(name) => join(&parent.0, name),
                    Part::Key(key) => item(&parent.0, key),
                };
                match schema.find(&next) {
                    Some(found) if found.1.fields().is_some() || found.1.items().is_some() => parent = found,
                    _ => break,
                }
            }
            Err(wrong("", format!("there is no field {}", quoted(path)), unknown_fix(schema, &parent.0, parent.1, word)))
        }
    }
}

/// What is wrong with a key that the user chose on a path, and the fix.
fn key_fault(path: &str, schema: &Schema) -> Option<(String, String)> {
    let (mut place, mut field) = (String::new(), schema.root());
    for part in parts(path) {
        place = match part {
            Part::Name(name) => join(&place, name),
            Part::Key(key) if field.items().is_some() => match field.keys().fault(key) {
                Some(fault) => return Some(fault),
                None => item(&place, key),
            },
            Part::Key(_) => return None,
        };
        (place, field) = schema.find(&place)?;
    }
    None
}

/// A text from a flag or a variable as the field's own type, where it is one; else as text, for the type check to name.
pub(super) fn typed(field: Field<'_>, text: &str) -> Value {
    match text {
        // A list needs no brackets where its words have no comma.
        _ if field.is_list() && !text.trim_start().starts_with(['[', '{', '"']) => {
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(Value::from).collect::<Vec<_>>().into()
        }
        "" | "null" if field.is_nullable() => Value::Null,
        _ if field.is_text() => Value::String(text.to_owned()),
        _ => match serde_yaml::from_str(text.trim()) {
            Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Sequence(_))) => value,
            _ => Value::String(text.to_owned()),
        },
    }
}
