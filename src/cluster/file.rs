//! Reading a config file: bounded, and each value with its place. Unknown fields and blocks in the wrong place are found here.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_yaml::Value;

use super::problem::{Origin, Problem, did_you_mean, quoted};
use super::schema::{Field, Keys, Schema, canonical, describe, item, join};
use super::source::Setting;
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::yaml::{self, Entry, Kind, Mark, Node};

/// The largest config file that is read, in bytes: some two hundred times the commented default.
const LARGEST: u64 = 1 << 20;

/// The name that stands for standard input.
const STDIN: &str = "-";

/// Reads a config file's text; `-` is standard input. Errors are of kind Usage.
pub(super) fn read(path: &Path) -> Result<String> {
    let name = name(path);
    let cannot = || format!("cannot read the config {name}");
    let usage = |e: Error| e.kind(ErrorKind::Usage);
    let mut bytes = Vec::new();
    let limit = LARGEST + 1;
    if path == Path::new(STDIN) {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).with_context(cannot).map_err(usage)?;
    } else {
        let hint =
            |e: Error| usage(e).hint("check the path given by -f or KUP_FILE; `kup config init` writes a config to start from");
        let meta = fs::metadata(path).with_context(cannot).map_err(hint)?;
        if meta.is_dir() {
            return Err(Error::usage(cannot())
                .why("it is a directory")
                .hint(format!("name a file in it: -f {}", path.join(super::defaults::FILE).display())));
        }
        if !meta.is_file() {
            return Err(Error::usage(cannot())
                .why("it is not a regular file")
                .hint("use `-f -` to read the config from standard input"));
        }
        fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)).with_context(cannot).map_err(hint)?;
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(cannot())
            .why(format!("it is larger than {} MiB, which no config is", LARGEST >> 20))
            .hint("check that it is the file that you meant"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Error::usage(format!("{name}:{line}: not UTF-8 text"))
            .hint("save the file as UTF-8; `file` and `iconv` help to find and change its encoding")
    })
}

/// A file's name as messages show it.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".into() } else { path.display().to_string() }
}

/// The settings in a file's text, and what is wrong with its shape.
pub(super) fn settings(file: &str, text: &str, schema: &Schema) -> (Vec<Setting>, Vec<Problem>) {
    let mut walk = Walk { file, schema, settings: Vec::new(), problems: Vec::new() };
    // Windows editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match yaml::parse(text) {
        Err(faults) => {
            for fault in faults {
                let problem =
                    Problem { origin: walk.at(fault.mark), path: fault.path.join("."), what: fault.what, fix: fault.fix };
                walk.problems.push(problem);
            }
        }
        Ok(root) => match serde_yaml::from_str::<Value>(text) {
            Ok(value) => walk.block("", schema.root(), root.mark, &root, &value),
            Err(e) => {
                let mark = e.location().map_or(root.mark, |l| Mark { line: l.line(), column: l.column() });
                walk.problem(mark, "", format!("this is no valid YAML: {e}"), "check this line and the one above".into());
            }
        },
    }
    (walk.settings, walk.problems)
}

struct Walk<'a> {
    file: &'a str,
    schema: &'a Schema,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn at(&self, mark: Mark) -> Origin {
        Origin::File { file: self.file.to_owned(), mark }
    }

    fn problem(&mut self, mark: Mark, path: &str, what: String, fix: String) {
        self.problems.push(Problem { origin: self.at(mark), path: path.to_owned(), what, fix });
    }

    fn block(&mut self, path: &str, field: Field<'_>, mark: Mark, node: &Node, value: &Value) {
        let Kind::Map(entries) = &node.kind else {
            // A block with all its lines commented out is no mistake.
            if !node.is_null() {
                let example =
                    field.names().first().map_or(String::new(), |name| format!(", for example `{name}: …` on a line of its own"));
                let below = if path.is_empty() { String::new() } else { format!(" below `{path}:`, indented by two spaces") };
                let what = format!("expected {}, found {}", field.expected(), describe(value));
                self.problem(mark, path, what, format!("write its fields{below}{example}"));
            }
            return;
        };
        if let Some(inner) = field.items() {
            for entry in entries {
                match field.keys().fault(&entry.key) {
                    Some((what, fix)) => self.problem(entry.mark, path, what, fix),
                    None => {
                        let (path, mark) = (item(path, &entry.key), entry.value.mark);
                        let value = value.get(entry.key.as_str()).unwrap_or(&Value::Null);
                        self.block(&path, inner, mark, &entry.value, value);
                        // A group with nothing below it is there all the same, as the defaults say.
                        let empty =
                            entry.value.is_null() || matches!(&entry.value.kind, Kind::Map(entries) if entries.is_empty());
                        if empty && field.keys() == Keys::Groups {
                            let value = Value::Mapping(serde_yaml::Mapping::new());
                            self.settings.push(Setting { path, value, origin: self.at(entry.mark) });
                        }
                    }
                }
            }
            return;
        }
        for entry in entries {
            let name = if path.is_empty() { canonical(&entry.key) } else { &entry.key };
            let full = join(path, name);
            let Some(inner) = field.get(name) else {
                self.unknown(path, field, entry);
                continue;
            };
            if name != entry.key
                && let Some(other) = node.entry(name)
            {
                let what = format!("another word for `{name}`, which is on line {}", other.mark.line);
                self.problem(entry.mark, &entry.key, what, "keep one of the two".into());
                continue;
            }
            let value = value.get(entry.key.as_str()).unwrap_or(&Value::Null);
            if inner.fields().is_some() || inner.items().is_some() {
                self.block(&full, inner, entry.value.mark, &entry.value, value);
            } else {
                // An empty value has no place of its own.
                let mark = if entry.value.is_null() { entry.mark } else { entry.value.mark };
                self.settings.push(Setting { path: full, value: value.clone(), origin: self.at(mark) });
            }
        }
    }

    fn unknown(&mut self, path: &str, field: Field<'_>, entry: &Entry) {
        let fix = unknown_fix(self.schema, path, field, &entry.key);
        // The key is from outside, so it may not enter the path unescaped.
        let place = if path.is_empty() { "the config".to_owned() } else { format!("`{path}`") };
        self.problem(entry.mark, path, format!("{place} has no field {}", quoted(&entry.key)), fix);
    }
}

/// What to write instead of an unknown field.
pub(super) fn unknown_fix(schema: &Schema, path: &str, field: Field<'_>, word: &str) -> String {
    if field.items().is_some() {
        let (key, below) = field.keys().example();
        return format!("write the {} in brackets: {}", field.keys().word(), join(&item(path, key), below));
    }
    if let Some(meant) = did_you_mean(word, field.names()) {
        return format!("did you mean `{}`?", join(path, meant));
    }
    let leaves = schema.leaves();
    let last = |leaf: &str| leaf.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some(leaf) = leaves.iter().find(|leaf| last(leaf) == word || *leaf == word) {
        return format!("did you mean `{leaf}`? Each part of it stands on a line of its own, indented below the one before");
    }
    format!("remove it, or use one of: {}", field.names().join(", "))
}
