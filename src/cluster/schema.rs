//! The config's shape as JSON schema: for editors, and for the loader, which knows fields and types by it alone.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::problem::quoted;
use super::registries::host_fault;
use super::validate::names::group_fault;
use super::{Cluster, defaults};
use crate::error::Result;

/// Other words for top-level fields: what users of today's Kubernetes look for.
pub const ALIASES: [(&str, &str); 2] = [("controlPlane", "masters"), ("nodeGroups", "minions")];

/// The schema's own structure: nothing is required, unknown fields are refused, no references.
fn bare() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Cluster>().to_value()
}

/// The JSON schema that `kup config schema` prints, with the default of each field.
pub fn json_schema() -> Result<Value> {
    let mut schema = bare();
    fill(&mut schema, &serde_json::to_value(defaults::cluster()?).unwrap_or(Value::Null));
    if let Some(Value::Object(fields)) = schema.get_mut("properties") {
        for (alias, field) in ALIASES {
            if let Some(mut copy) = fields.get(field).cloned() {
                copy["description"] = format!("Another word for `{field}`.").into();
                fields.insert(alias.to_owned(), copy);
            }
        }
    }
    Ok(schema)
}

/// Writes the defaults into the leaves; with them, nothing is required.
fn fill(schema: &mut Value, defaults: &Value) {
    let Value::Object(object) = schema else { return };
    object.remove("required");
    match object.get_mut("properties") {
        Some(Value::Object(fields)) => fields.iter_mut().for_each(|(name, field)| fill(field, &defaults[name])),
        _ => {
            object.insert("default".into(), defaults.clone());
        }
    }
    // What stands below keys has no defaults, and nothing of it is required either.
    if let Some(inner) = object.get_mut("additionalProperties").and_then(Value::as_object_mut) {
        inner.remove("required");
    }
}

/// What the keys are that users choose in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Hosts, as in `registries`.
    Hosts,
    /// Names of groups, as in `aws.groups`.
    Groups,
}

impl Keys {
    /// Why a word is no such key, and what to write.
    pub fn fault(self, key: &str) -> Option<(String, String)> {
        match self {
            Keys::Hosts => host_fault(key),
            Keys::Groups => group_fault(key),
        }
    }

    /// One of them, in a word.
    pub const fn word(self) -> &'static str {
        match self {
            Keys::Hosts => "host",
            Keys::Groups => "group",
        }
    }

    /// One of them as an example, and a field below it.
    pub const fn example(self) -> (&'static str, &'static str) {
        match self {
            Keys::Hosts => ("registry.example.com", "ca"),
            Keys::Groups => ("web", "count"),
        }
    }
}

/// A field of the config, or the config itself.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    schema: &'a Value,
}

/// The config's fields.
#[derive(Debug, Clone)]
pub struct Schema(Value);

impl Schema {
    /// The shape of [`Cluster`].
    pub fn new() -> Schema {
        Schema(bare())
    }

    /// The config as a whole.
    pub fn root(&self) -> Field<'_> {
        Field { schema: &self.0 }
    }

    /// The paths of all fields that hold a value, in the order of the file; not of those below keys that users choose.
    pub fn leaves(&self) -> Vec<String> {
        fn collect(field: Field<'_>, path: &str, into: &mut Vec<String>) {
            match field.fields() {
                None if field.items().is_some() => {}
                None => into.push(path.to_owned()),
                Some(fields) => {
                    fields.iter().for_each(|(name, schema)| collect(Field { schema }, &join(path, name), into));
                }
            }
        }
        let mut all = Vec::new();
        collect(self.root(), "", &mut all);
        all
    }

    /// The field at a path, aliases resolved, and its path without aliases.
    pub fn find(&self, path: &str) -> Option<(String, Field<'_>)> {
        let mut at = (String::new(), self.root());
        for part in parts(path) {
            at = match part {
                Part::Name(name) => {
                    let name = if at.0.is_empty() { canonical(name) } else { name };
                    (join(&at.0, name), at.1.get(name)?)
                }
                Part::Key(key) => (item(&at.0, key), at.1.items()?),
            };
        }
        Some(at)
    }
}

impl Default for Schema {
    fn default() -> Self {
        Schema::new()
    }
}

/// The word that stands for an alias in this config, or the word itself.
pub fn canonical(word: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, field)| field)
}

/// `a` and `b` as `a.b`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The item of `key` below `path`: `registries[docker.io]`. A key must not have a closing bracket.
pub fn item(path: &str, key: &str) -> String {
    format!("{path}[{key}]")
}

/// One step on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A field's name.
    Name(&'a str),
    /// A key that the user chose, from between brackets: it may have dots.
    Key(&'a str),
}

impl<'a> Part<'a> {
    /// The text itself.
    pub const fn text(self) -> &'a str {
        match self {
            Part::Name(text) | Part::Key(text) => text,
        }
    }
}

/// The steps on a path, in order: `registries[docker.io].ca` has three.
pub fn parts(path: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), path);
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, mut after) = rest.split_at(end);
        parts.push(Part::Name(name));
        while let Some((key, behind)) = after.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            parts.push(Part::Key(key));
            after = behind;
        }
        match after.strip_prefix('.') {
            Some(behind) => rest = behind,
            None => {
                // A bracket that is never closed, or a word right behind one: no field has an empty name.
                parts.extend((!after.is_empty()).then_some(Part::Name("")));
                return parts;
            }
        }
    }
}

/// The names and keys on a path.
pub fn keys(path: &str) -> impl Iterator<Item = &str> {
    parts(path).into_iter().map(Part::text)
}

impl<'a> Field<'a> {
    /// The fields of a block; nothing for a value.
    pub fn fields(self) -> Option<&'a Map<String, Value>> {
        self.schema.get("properties").and_then(Value::as_object)
    }

    /// What stands below each key, if users choose the keys of this block.
    pub fn items(self) -> Option<Field<'a>> {
        self.schema.get("additionalProperties").filter(|schema| schema.is_object()).map(|schema| Field { schema })
    }

    /// What these keys are.
    pub fn keys(self) -> Keys {
        match self.schema.pointer("/propertyNames/title").and_then(Value::as_str) {
            Some("group") => Keys::Groups,
            _ => Keys::Hosts,
        }
    }

    /// Whether the value is a list.
    pub fn is_list(self) -> bool {
        self.is("array")
    }

    /// Whether the value must not be shown.
    pub fn is_secret(self) -> bool {
        self.schema.get("format").and_then(Value::as_str) == Some("password")
    }

    /// A field of this block.
    pub fn get(self, name: &str) -> Option<Field<'a>> {
        self.fields()?.get(name).map(|schema| Field { schema })
    }

    /// The names of a block's fields, in the order of the file.
    pub fn names(self) -> Vec<&'a str> {
        self.fields().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    fn is(self, kind: &str) -> bool {
        match self.schema.get("type") {
            Some(Value::String(one)) => one == kind,
            Some(Value::Array(several)) => several.iter().any(|t| t == kind),
            _ => false,
        }
    }

    /// Whether a value may be text.
    pub fn is_text(self) -> bool {
        self.is("string") || !self.words().is_empty()
    }

    /// Whether any text will do, as far as its type goes.
    pub fn is_free_text(self) -> bool {
        self.is("string") && self.words().is_empty() && self.schema.get("format").is_none()
    }

    /// Whether a value may be null.
    pub fn is_nullable(self) -> bool {
        self.is("null")
    }

    /// The words that are allowed, if only some are.
    pub fn words(self) -> Vec<&'a str> {
        let constant = |s: &'a Value| s.get("const").and_then(Value::as_str);
        let array = |name: &str| self.schema.get(name).and_then(Value::as_array).into_iter().flatten();
        array("oneOf").filter_map(constant).chain(array("enum").filter_map(Value::as_str)).chain(constant(self.schema)).collect()
    }

    /// What is expected here, in words.
    pub fn expected(self) -> String {
        let words = self.words();
        if !words.is_empty() {
            return words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" or ");
        }
        match self.schema.get("format").and_then(Value::as_str) {
            Some("ipv4") => return "an IPv4 address like 10.0.0.10".into(),
            Some("ipv4-range") => return "an IPv4 range like 10.244.0.0/16".into(),
            Some("aws-image") => return "debian-13, debian-12, ubuntu-24.04, al2023 or an id like ami-0123456789abcdef0".into(),
            Some("auto-or-ipv4-range") => return "`auto` or an IPv4 range like 172.29.7.0/24".into(),
            Some("password") => return "text".into(),
            Some("port-range") => return "a range of ports like 30000-32767, lower one first".into(),
            _ => {}
        }
        let bound = |name: &str| self.schema.get(name).and_then(Value::as_u64);
        match (bound("minimum"), bound("maximum")) {
            (Some(low), Some(high)) if self.is("integer") => format!("a whole number from {low} to {high}"),
            _ if self.is("integer") => "a whole number".into(),
            _ if self.is("boolean") => "`true` or `false`".into(),
            _ if self.is("string") => "text".into(),
            _ if self.is_list() => {
                let example = self.schema.pointer("/examples/0").and_then(Value::as_array);
                let words: Vec<&str> = example.into_iter().flatten().filter_map(Value::as_str).collect();
                format!("a list like [{}]", words.join(", "))
            }
            _ if self.items().is_some() => format!("{}s, each with a block of fields below it", self.keys().word()),
            _ if self.fields().is_some() => format!("a block of fields ({})", self.names().join(", ")),
            _ => "another kind of value".into(),
        }
    }
}

/// What a value is, in words that can be shown.
pub fn describe(value: &serde_yaml::Value) -> String {
    use serde_yaml::Value;
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("`{b}`, which YAML takes for a truth value"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => quoted(s),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a block of fields".into(),
        Value::Tagged(_) => "a tagged value".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_with_keys_and_lists_say_what_they_are() {
        let schema = Schema::new();
        let field = |path| schema.find(path).unwrap().1;
        assert_eq!((field("registries").keys(), field("aws.groups").keys()), (Keys::Hosts, Keys::Groups));
        assert!(field("aws.groups").expected().starts_with("groups, each"));
        for list in ["registries[a.b].mirrors", "aws.zones", "aws.vpc.subnets", "aws.access.ssh", "aws.access.api"]
            .into_iter()
            .chain(["aws.groups[a].types", "aws.groups[a].labels", "aws.groups[a].taints"])
        {
            let expected = field(list).expected();
            assert!(field(list).is_list() && expected.len() > "a list like []".len(), "{list}: {expected}");
        }
    }

    #[test]
    fn a_key_on_a_path_may_have_dots() {
        let schema = Schema::new();
        let texts = |path| keys(path).collect::<Vec<_>>();
        assert_eq!(texts("network.pods"), ["network", "pods"]);
        assert_eq!(texts("registries[a.b:5000].ca"), ["registries", "a.b:5000", "ca"]);
        assert_eq!(schema.find("registries[a.b:5000].ca").unwrap().0, "registries[a.b:5000].ca");
        assert_eq!(schema.find("aws.groups[web].count").unwrap().0, "aws.groups[web].count");
        assert_eq!(schema.find("nodeGroups.count").unwrap().0, "minions.count");
        for wrong in [
            "",
            ".",
            "name.",
            ".name",
            "name[",
            "local[engine",
            "local[engine]",
            "registries.a",
            "registries[a]ca",
            "registries[a.ca",
            "registries[a][b]",
        ] {
            assert!(schema.find(wrong).is_none(), "{wrong}");
        }
    }
}
