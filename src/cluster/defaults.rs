//! The defaults: `config/config-default.yaml`, compiled in, with the Kubernetes version of `config/releases.yaml`.

use serde_yaml::Value;

use super::versions::Releases;
use super::{Cluster, validate};
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

/// Reads a cluster's config that a kup kept. Fields that this kup has and that one had not are as by default. That kup may have known
/// other versions, or other limits: only what becomes a word of a script or of a unit is held to this one's rules.
///
/// # Errors
/// It is no config, or has such words.
pub fn kept(text: &str) -> Result<Cluster> {
    let what = "the config kept of the cluster can't be read";
    let mut kept: Value = serde_yaml::from_str(text).context(what)?;
    fill(&mut kept, &value()?);
    let cluster: Cluster = serde_path_to_error::deserialize(kept).context(what)?;
    match validate::words(&cluster).first() {
        None => Ok(cluster),
        Some(problem) => Err(Error::new(what).why(format!("{}: {}", problem.path, problem.what))),
    }
}

/// Adds to a block what only the other one has, and so in the blocks below.
fn fill(block: &mut Value, defaults: &Value) {
    let (Some(block), Some(defaults)) = (block.as_mapping_mut(), defaults.as_mapping()) else { return };
    for (key, default) in defaults {
        match block.get_mut(key) {
            Some(inner) => fill(inner, default),
            None => drop(block.insert(key.clone(), default.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kup without the AWS provider kept is read, and what it says stands.
    #[test]
    fn fields_newer_than_a_kept_config_are_as_by_default() {
        let mut old: Value = serde_yaml::to_value(cluster().unwrap()).unwrap();
        let fields = old.as_mapping_mut().unwrap();
        fields.remove("aws").unwrap();
        fields.get_mut("addons").unwrap().as_mapping_mut().unwrap().clear();
        fields.insert("name".into(), "older".into());
        let read = kept(&serde_yaml::to_string(&old).unwrap()).unwrap();
        assert_eq!(read, Cluster { name: "older".into(), ..cluster().unwrap() });
        assert!(kept("name: [").is_err());
        for (field, odd) in [
            ("name", "name: 'a$(id)'"),
            ("network.domain", "network: {domain: \"a'b\"}"),
            ("kubernetes.version", "kubernetes: {version: '1;id'}"),
            ("aws.region", "{provider: aws, aws: {region: 'a b'}}"),
            ("aws.groups[web].labels", "{provider: aws, aws: {groups: {web: {labels: ['a=$(id)']}}}}"),
        ] {
            assert!(kept(odd).unwrap_err().to_string().contains(field), "{odd}");
        }
        assert!(kept("kubernetes: {version: 1.30.9}").is_ok(), "a version that this kup no longer knows");
        let error = kept("masters: {count: many}").unwrap_err();
        assert!(format!("{error:?}").contains("masters.count"), "{error:?}");
    }
}
