//! How the add-ons that the config has are, DNS aside, of which more is told.

use serde::Serialize;

use super::{Problem, Severity};
use crate::addons::ADDONS;
use crate::addons::ready::State;
use crate::bootstrap::api::ApiClient;
use crate::cluster::Cluster;
use crate::error::Result;

/// An add-on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Addon {
    /// Its name.
    pub name: &'static str,
    /// Whether it is on the cluster at all.
    pub present: bool,
    /// Whether it does its work.
    pub ready: bool,
    /// Why not.
    pub why: Option<String>,
}

/// Asks for those that the cluster is to have.
pub(super) async fn ask(cluster: &Cluster, client: &ApiClient) -> Result<Vec<Addon>> {
    let wanted = ADDONS.iter().filter(|a| !a.required && a.enabled(cluster));
    let asked = wanted.map(|addon| async {
        let (present, ready, why) = match addon.state(&client.client()).await? {
            State::Ready => (true, true, None),
            State::Waiting(why) => (true, false, Some(why)),
            State::Absent => (false, false, None),
        };
        Ok(Addon { name: addon.name, present, ready, why })
    });
    futures::future::try_join_all(asked).await
}

/// What is not well with one. One that isn't there at all harms nobody.
pub(super) fn problem(addon: &Addon, up: &str) -> Option<Problem> {
    let name = addon.name;
    let (severity, what, next) = match (addon.present, addon.ready) {
        (_, true) => return None,
        (true, _) => (Severity::Failing, format!("the add-on {name} is not ready"), "`kup addons list` asks again".to_owned()),
        (false, _) => (
            Severity::Warning,
            format!("the add-on {name} is on in the config, but not there"),
            format!("`{up}` applies it, `kup addons disable {name}` turns it off"),
        ),
    };
    Some(Problem { severity, machine: None, what, why: addon.why.clone(), next: Some(next) })
}
