//! The defaults: `config/config-default.yaml`, compiled in, with the Kubernetes version of `config/releases.yaml`.

use serde_yaml::Value;

use super::Cluster;
use super::versions::Releases;
use crate::error::{Context, Error, Result};

/// The commented file that `kup config init` writes; the only place with default values.
pub const TEXT: &str = include_str!("../../config/config-default.yaml");

/// The name under which that file is written, and looked for in the working directory.
pub const FILE: &str = "config-default.yaml";

/// The defaults as YAML.
pub fn value() -> Result<Value> {
    let mut value: Value = serde_yaml::from_str(TEXT).context("the defaults compiled into kup can't be read")?;
    let version = Value::String(Releases::compiled_in()?.default);
    match value.get_mut("kubernetes").and_then(Value::as_mapping_mut) {
        Some(kubernetes) => kubernetes.insert("version".into(), version),
        None => return Err(Error::new("the defaults compiled into kup have no kubernetes block")),
    };
    Ok(value)
}

/// The default cluster.
pub fn cluster() -> Result<Cluster> {
    serde_path_to_error::deserialize(value()?).context("the defaults compiled into kup don't fit its config")
}
