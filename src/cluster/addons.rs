//! Which add-ons a cluster is to have: the config's block `addons`.
//!
//! Their names and defaults are those of `config-default.yaml`; what they are is known to [`crate::addons`] alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::defaults;

/// Each add-on that can be turned on and off, and whether it is on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Addons(BTreeMap<String, bool>);

impl Addons {
    /// The defaults.
    pub fn defaults() -> Addons {
        #[derive(Deserialize)]
        struct File {
            addons: Addons,
        }
        // The file is part of kup, and a test reads it: it can't be wrong at run time.
        serde_yaml::from_str::<File>(defaults::TEXT).map(|file| file.addons).unwrap_or_default()
    }

    /// Whether an add-on is on.
    pub fn enabled(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or(false)
    }

    /// Turns one on or off.
    pub fn set(&mut self, name: &str, on: bool) {
        self.0.insert(name.to_owned(), on);
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A block with one field for each add-on, so that the loader knows them as it knows all fields.
impl JsonSchema for Addons {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Addons".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let field = |name: &str| {
            let description = format!("Whether the add-on {name} is on; `kup addons list` says what it is.");
            (name.to_owned(), json_schema!({ "type": "boolean", "description": description }).to_value())
        };
        let fields: serde_json::Map<_, _> = Addons::defaults().names().map(field).collect();
        json_schema!({ "type": "object", "additionalProperties": false, "properties": fields })
    }
}
