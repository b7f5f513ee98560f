//! What kup keeps of a cluster beside its PKI: the config it was last brought up with, in the cluster's state directory.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::cluster::spec::ProviderKind;
use crate::cluster::{Cluster, defaults};
use crate::error::{Context, Error, Result};
use crate::machine::ssh::LoginKey;
use crate::pki::Pki;
use crate::provider::{ClusterId, local};
use crate::state::{cluster_dir, private_dir, write_atomic};

/// Where the config of a cluster's last `up` is.
pub fn config_path(id: &ClusterId) -> Result<PathBuf> {
    Ok(cluster_dir(id)?.join("cluster.yaml"))
}

/// Remembers the config, passwords of registries included: the next `up` may name no file.
pub fn save(id: &ClusterId, cluster: &Cluster) -> Result<()> {
    private_dir(&cluster_dir(id)?)?;
    let what = "cannot write the cluster's config";
    let text = serde_yaml::to_string(&cluster.with_secrets().context(what)?).context(what)?;
    write_atomic(&config_path(id)?, text.as_bytes(), 0o600)
}

/// The config of the last `up`, if there was one.
pub fn load(id: &ClusterId) -> Result<Option<Cluster>> {
    let path = config_path(id)?;
    match fs::read_to_string(&path) {
        Ok(text) => defaults::kept(&text).map(Some).with_context(|| format!("{} is damaged", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The config of the last `up`.
///
/// # Errors
/// A cluster that was never brought up from here has none; the error says what can be done.
pub fn require(id: &ClusterId) -> Result<Cluster> {
    load(id)?.ok_or_else(|| {
        Error::new(format!("nothing is known here of a cluster {} of the provider {}", id.name, id.provider.as_str()))
            .why(format!("there is no {}", config_path(id).map(|p| p.display().to_string()).unwrap_or_default()))
            .hint("`kup get clusters` lists the clusters there are; `kup up` makes one")
    })
}

/// The cluster's PKI, made if absent.
pub fn pki(id: &ClusterId) -> Result<Pki> {
    Pki::open(&cluster_dir(id)?.join("pki"))
}

/// The private key by which kup logs in to the cluster's machines.
pub fn login_key_path(id: &ClusterId, cluster: &Cluster) -> Result<PathBuf> {
    match id.provider {
        ProviderKind::Aws => Ok(cluster.aws.ssh_key.clone()),
        ProviderKind::Local => local::user_key(&id.name, cluster.local.ssh_key.as_deref()),
    }
}

/// The same, read.
pub fn login_key(id: &ClusterId, cluster: &Cluster) -> Result<LoginKey> {
    let path = login_key_path(id, cluster)?;
    let pem = fs::read_to_string(&path).with_context(|| format!("cannot read the SSH key {}", path.display()))?;
    Ok(LoginKey::new(pem))
}
