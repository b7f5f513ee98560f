//! The clusters on AWS that this machine knows of: what `kup up` noted in the state directory, and contexts of the user's kubeconfig.
//!
//! It decides nothing about a cluster, whose state is in the cloud: it only tells whoever names no provider where to look, so that nobody
//! who does not use AWS asks it anything.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::cluster::spec::ProviderKind;
use crate::error::{Context as _, Result};
use crate::kubeconfig;
use crate::provider::ClusterId;
use crate::state::{cluster_dir, private_dir, state_dir, write_atomic};

/// The file in a cluster's state directory.
const FILE: &str = "login.json";

/// How a cluster was reached last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Its region; none if only a context's name tells of it, which somebody else's may be like.
    pub region: Option<String>,
    /// The profile that was named.
    pub profile: Option<String>,
}

/// Notes where a cluster is. `kup down` removes the note with the cluster's state.
pub fn remember(aws: &Aws) -> Result<()> {
    let id = ClusterId { provider: ProviderKind::Aws, name: aws.cluster.clone() };
    let known = Known { name: String::new(), region: Some(aws.region.clone()), profile: aws.profile.clone() };
    let text = serde_json::to_vec(&known).context("cannot write down where the cluster is")?;
    private_dir(&cluster_dir(&id)?)?;
    write_atomic(&cluster_dir(&id)?.join(FILE), &text, 0o600)
}

/// Those there are, by name. What can't be read is not known.
pub fn on_aws() -> Vec<Known> {
    let prefix = format!("{}_", ProviderKind::Aws.as_str());
    let contexts = kubeconfig::contexts().into_iter().filter_map(|context| Some(context.strip_prefix(&prefix)?.to_owned()));
    let mut all: BTreeMap<String, Known> = contexts.map(|name| (name.clone(), Known { name, ..Known::default() })).collect();
    let noted = state_dir().and_then(|dir| fs::read_dir(dir.join(ProviderKind::Aws.as_str())).context("nothing is noted"));
    for entry in noted.into_iter().flatten().flatten() {
        let read = fs::read(entry.path().join(FILE)).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
        if let (Some(known), Ok(name)) = (read, entry.file_name().into_string()) {
            all.insert(name.clone(), Known { name, ..known });
        }
    }
    all.into_values().collect()
}
