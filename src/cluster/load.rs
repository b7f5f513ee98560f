//! From what the user wrote to a valid [`Cluster`]: the layers, their types, and where each value came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde_yaml::Value;

use super::problem::{self, Origin, Problem, did_you_mean};
use super::schema::{Schema, describe, item, join, keys};
use super::source::{Setting, Source};
use super::spec::ProviderKind;
use super::versions::Releases;
use super::{Cluster, aws, defaults, file, kube_up, validate};
use crate::error::{Context, Error, Result};

/// A valid cluster, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The cluster.
    pub cluster: Cluster,
    /// Where each value came from, by its path (`network.pods`).
    pub origins: BTreeMap<String, Origin>,
    /// The config file that was read.
    pub file: Option<PathBuf>,
    /// Whether that file was only found in the working directory, not named: worth a note.
    pub implicit: bool,
    /// What is valid, and yet perhaps not what was meant.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Whether a field was set by anything but the defaults.
    pub fn is_set(&self, path: &str) -> bool {
        self.origins.get(path).is_some_and(|origin| *origin != Origin::Default)
    }

    /// Each field with its value and origin, in the order of the file.
    pub fn fields(&self) -> Result<Vec<(String, Value, Origin)>> {
        let value = serde_yaml::to_value(&self.cluster).context("cannot write the config")?;
        let row = |path: String| {
            let origin = self.origins.get(&path).cloned().unwrap_or(Origin::Default);
            (at(&value, &path).cloned().unwrap_or_default(), origin, path)
        };
        // What stands below hosts and groups is known only by what was written.
        let below_keys = self.origins.keys().filter(|path| path.contains('[')).cloned();
        let paths = Schema::new().leaves().into_iter().chain(below_keys);
        Ok(paths.map(row).map(|(value, origin, path)| (path, value, origin)).collect())
    }
}

/// Loads a cluster: flags win over `KUP_*` variables, those over the file, that over kube-up's variables, those over the defaults.
///
/// Errors are of kind Usage and name every problem that was found.
pub fn load(source: Source) -> Result<Loaded> {
    let schema = Schema::new();
    let mut problems = Vec::new();
    let (path, implicit) = match source.named_file() {
        Some(path) => (Some(path), false),
        None => (source.directory.as_ref().map(|d| d.join(defaults::FILE)).filter(|path| path.symlink_metadata().is_ok()), true),
    };
    let mut settings = Vec::new();
    if let Some(path) = &path {
        let (found, wrong) = file::settings(&file::name(path), &file::read(path)?, &schema);
        settings.extend(found);
        problems.extend(wrong);
    }
    settings.extend(source.environment(&schema, &mut problems));
    settings.extend(source.flags(&schema, &mut problems));
    let (lowest, mut notes) = kube_up::settings(&source, &schema, &settings, &mut problems);
    settings.splice(0..0, lowest);

    let base = defaults::value()?;
    let mut merged = base.clone();
    let mut origins: BTreeMap<String, Origin> = schema.leaves().into_iter().map(|path| (path, Origin::Default)).collect();
    let mut bad = BTreeSet::new();
    for setting in settings {
        match type_problem(&base, &schema, &setting) {
            Some(problem) => {
                bad.insert(setting.path);
                problems.push(problem);
            }
            None => {
                put(&mut merged, &setting.path, setting.value);
                // What stands below a key is listed field by field.
                if !setting.path.ends_with(']') {
                    origins.insert(setting.path, setting.origin);
                }
            }
        }
    }
    fill_groups(&mut merged, &schema, &mut origins);
    let mut cluster: Cluster =
        serde_path_to_error::deserialize(merged).map_err(|e| Error::usage(e.path().to_string()).why(e.inner()))?;
    notes.extend(settle(&mut cluster, &mut origins));
    problems.extend(registry_files(&mut cluster, &origins, path.as_deref())?);
    problems.extend(validate::problems(&cluster, &origins, &bad, &Releases::compiled_in()?));
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.origin.place());
        return Err(problem::error(&problems));
    }
    if let Some(key) = cluster.local.ssh_key.take() {
        cluster.local.ssh_key = Some(absolute(&key, "local.sshKey", &origins, path.as_deref())?);
    }
    if cluster.provider == ProviderKind::Aws {
        cluster.aws.ssh_key = absolute(&cluster.aws.ssh_key, "aws.sshKey", &origins, path.as_deref())?;
    }
    notes.extend(validate::notes(&cluster));
    Ok(Loaded { cluster, origins, implicit: implicit && path.is_some(), file: path, notes })
}

/// Groups are like `aws.minions`, unless they say otherwise. From here on all their fields have an origin.
fn fill_groups(merged: &mut Value, schema: &Schema, origins: &mut BTreeMap<String, Origin>) {
    let minions = at(merged, "aws.minions").cloned().unwrap_or_default();
    let named = at(merged, "aws.groups").and_then(Value::as_mapping);
    let names: Vec<String> = named.into_iter().flatten().filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect();
    for group in names.iter().map(|name| item("aws.groups", name)) {
        for (field, from) in [("types", "type"), ("rootVolume", "rootVolume")] {
            let path = join(&group, field);
            if at(merged, &path).is_none() {
                let mut value = minions.get(from).cloned().unwrap_or_default();
                if field == "types" {
                    let others = minions.get("otherTypes").and_then(Value::as_sequence).into_iter().flatten().cloned();
                    value = Value::Sequence(std::iter::once(value).chain(others).collect());
                }
                put(merged, &path, value);
                let origin = origins.get(&join("aws.minions", from)).cloned();
                origins.insert(path, origin.unwrap_or(Origin::Default));
            }
        }
        for field in schema.find(&group).map(|(_, fields)| fields.names()).unwrap_or_default() {
            origins.entry(join(&group, field)).or_insert(Origin::Default);
        }
    }
}

/// What follows from other fields: the number of minions from their groups, the region from the zones. Returns notes.
fn settle(cluster: &mut Cluster, origins: &mut BTreeMap<String, Origin>) -> Vec<String> {
    let mut notes = Vec::new();
    if cluster.provider != ProviderKind::Aws {
        return notes;
    }
    let given = origins.get("minions.count").unwrap_or(&Origin::Default);
    let kube_ups = matches!(given, Origin::Env(name) if kube_up::names().any(|known| known == name));
    if let Some(count) = cluster.aws.minion_count()
        && (kube_ups || *given == Origin::Default)
    {
        if let Origin::Env(name) = given {
            notes.push(kube_up::note(name, "aws.groups says how many minions there are"));
        }
        cluster.minions.count = count;
        origins.insert("minions.count".into(), Origin::Default);
    }
    if let (None, Some(region)) = (&cluster.aws.region, cluster.aws.zones.first().and_then(|zone| aws::region_of(zone))) {
        cluster.aws.region = Some(region.to_owned());
        let zones = origins.get("aws.zones").cloned();
        origins.insert("aws.region".into(), zones.unwrap_or(Origin::Default));
    }
    notes
}

/// Reads the files that registries name, wherever kup is called.
fn registry_files(cluster: &mut Cluster, origins: &BTreeMap<String, Origin>, file: Option<&Path>) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for (host, registry) in &mut cluster.registries {
        let below = |field: &str| join(&item("registries", host), field);
        for (field, named) in [("ca", &mut registry.ca), ("passwordFile", &mut registry.password_file)] {
            if let Some(path) = named {
                *path = absolute(path, &below(field), origins, file)?;
            }
        }
        problems.extend(registry.read_files().into_iter().map(|(field, what, fix)| {
            let path = below(field);
            Problem { origin: origins.get(&path).cloned().unwrap_or(Origin::Default), path, what, fix }
        }));
    }
    Ok(problems)
}

/// Tries one value alone on top of the defaults, so that one wrong type doesn't hide the next.
fn type_problem(base: &Value, schema: &Schema, setting: &Setting) -> Option<Problem> {
    let mut trial = base.clone();
    put(&mut trial, &setting.path, setting.value.clone());
    let error = serde_path_to_error::deserialize::<_, Cluster>(trial).err()?;
    let (what, fix) = match schema.find(&setting.path) {
        None => (error.inner().to_string(), "remove it".to_owned()),
        Some((_, field)) => {
            let or_default = match at(base, &setting.path) {
                Some(default) => format!("or leave it out for the default, {}", plain(default)),
                None => "or leave it out".to_owned(),
            };
            let fix = match &setting.value {
                Value::Number(_) | Value::Bool(_) if field.is_secret() => "put it in quotes".to_owned(),
                Value::Null => format!("write a value, {or_default}"),
                Value::Number(_) | Value::Bool(_) if field.is_free_text() => {
                    format!("put it in quotes if you mean it: \"{}\"", plain(&setting.value))
                }
                Value::String(text) if field.is_list() && text.len() < 60 && !text.contains(char::is_control) => {
                    format!("write [{text}], {or_default}")
                }
                Value::Sequence(_) if field.is_list() => "write words, in quotes where YAML takes them for something else".into(),
                Value::String(text) => match did_you_mean(text, field.words()) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None if field.words().is_empty() => format!("write one, {or_default}"),
                    None => format!("write {}", field.expected()),
                },
                _ => format!("write one, {or_default}"),
            };
            // Nothing of a password is repeated.
            let found = match &setting.value {
                _ if field.is_secret() => "something else".to_owned(),
                Value::Sequence(words) if field.is_list() => {
                    let wrong = words.iter().find(|word| !word.is_string());
                    format!("a list with {}", wrong.map_or("something else".to_owned(), describe))
                }
                value => describe(value),
            };
            (format!("expected {}, found {found}", field.expected()), fix)
        }
    };
    Some(Problem { origin: setting.origin.clone(), path: setting.path.clone(), what, fix })
}

/// A scalar's text.
fn plain(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default().trim_end().to_owned()
}

/// The value at a path.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    keys(path).try_fold(value, |value, name| value.get(name))
}

/// Sets the value at a path, making the blocks on the way.
fn put(root: &mut Value, path: &str, new: Value) {
    let mut place = root;
    for name in keys(path) {
        if !place.is_mapping() {
            *place = Value::Mapping(serde_yaml::Mapping::new());
        }
        place = &mut place[name];
    }
    *place = new;
}

/// A path from the config as one that holds wherever kup is called: `~/` is the home directory, and a path in a file is relative to it.
fn absolute(path: &Path, field: &str, origins: &BTreeMap<String, Origin>, file: Option<&Path>) -> Result<PathBuf> {
    let cannot = || format!("{field}: cannot find out what {} is relative to", path.display());
    if let Ok(below_home) = path.strip_prefix("~") {
        return Ok(etcetera::choose_base_strategy().with_context(cannot)?.home_dir().join(below_home));
    }
    let base = match (origins.get(field), file.and_then(Path::parent)) {
        (Some(Origin::File { .. }), Some(directory)) => directory.join(path),
        _ => path.to_owned(),
    };
    std::path::absolute(base).with_context(cannot)
}
