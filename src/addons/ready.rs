//! When an add-on is ready, as the API tells it.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment as Object;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use kube::api::Api;

use super::Addon;
use crate::bootstrap::api::{ApiClient, REQUEST};
use crate::error::{Context as _, Error, Result};

/// Pause between looks at what can't be watched all at once.
const POLL: Duration = Duration::from_millis(100);

/// Something that must hold for an add-on to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// All replicas of that Deployment (namespace, name) are of its last version and ready.
    Deployment(&'static str, &'static str),
    /// That APIService is available: its group answers for every client.
    ApiGroup(&'static str),
}

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does its work.
    Ready,
    /// Not yet, or no more, and why.
    Waiting(String),
    /// It is not on the cluster.
    Absent,
}

impl Condition {
    /// Asks the API.
    pub async fn look(self, client: &Client) -> Result<State> {
        match self {
            Condition::Deployment(namespace, name) => {
                let found = Api::<Object>::namespaced(client.clone(), namespace).get_opt(name).await;
                found.map(|o| o.map_or(State::Absent, |o| deployment(&o)))
            }
            Condition::ApiGroup(name) => {
                Api::<APIService>::all(client.clone()).get_opt(name).await.map(|o| o.map_or(State::Absent, |o| api_group(&o)))
            }
        }
        .with_context(|| format!("cannot look at {}", self.title()))
    }

    /// The object that has it, for people.
    fn title(self) -> String {
        match self {
            Condition::Deployment(_, name) => format!("the Deployment {name}"),
            Condition::ApiGroup(name) => format!("the APIService {name}"),
        }
    }

    /// What to type for more.
    fn hint(self) -> String {
        match self {
            Condition::Deployment(namespace, name) => {
                format!(
                    "`kup kubectl -- -n {namespace} describe deployment {name}` says more; so does `kup kubectl -- -n {namespace} get events`"
                )
            }
            Condition::ApiGroup(name) => format!("`kup kubectl -- describe apiservice {name}` says more"),
        }
    }
}

fn deployment(object: &Object) -> State {
    let status = object.status.clone().unwrap_or_default();
    let wanted = object.spec.replicas.unwrap_or(1);
    // `ready_replicas` counts pods of an older version too: none of those may be left.
    let settled = status.observed_generation == object.metadata.generation
        && status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted;
    let ready = status.ready_replicas.unwrap_or(0);
    if settled && ready >= wanted {
        return State::Ready;
    }
    let conditions = status.conditions.unwrap_or_default();
    let reasons: Vec<String> = conditions
        .into_iter()
        .filter(|c| c.status.as_deref() != Some("True"))
        .filter_map(|c| c.message)
        .filter(|m| !m.is_empty())
        .collect();
    let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    State::Waiting(format!("{ready} of {wanted} replicas are ready{why}"))
}

fn api_group(object: &APIService) -> State {
    let conditions = object.status.as_ref().and_then(|s| s.conditions.as_ref());
    match conditions.into_iter().flatten().find(|c| c.type_ == "Available") {
        Some(c) if c.status == "True" => State::Ready,
        Some(c) => State::Waiting(c.message.clone().or_else(|| c.reason.clone()).unwrap_or_else(|| "it is not available".into())),
        None => State::Waiting("nobody has looked at it yet".into()),
    }
}

impl Addon {
    /// How it is: ready, or the first of its conditions that doesn't hold.
    pub async fn state(&self, client: &Client) -> Result<State> {
        Ok(self.unmet(client).await?.map_or(State::Ready, |(_, state)| state))
    }

    async fn unmet(&self, client: &Client) -> Result<Option<(Condition, State)>> {
        for condition in self.ready {
            match condition.look(client).await? {
                State::Ready => {}
                state => return Ok(Some((*condition, state))),
            }
        }
        Ok(None)
    }
}

/// Waits until an add-on is ready; `waiting` is told what for. An API that doesn't answer for a moment is waited for too.
///
/// # Errors
/// After `until`, with what its conditions said last.
pub async fn wait(api: &ApiClient, addon: &Addon, until: Instant, waiting: impl Fn(String)) -> Result<()> {
    let client = api.client();
    let mut told = String::new();
    loop {
        // A server that restarts, or has fallen silent, answers again in a moment.
        let more = || "`kup status` shows every part".to_owned();
        let (words, hint) = match tokio::time::timeout(REQUEST, addon.unmet(&client)).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some((condition, State::Waiting(why))))) => (format!("{}: {why}", condition.title()), condition.hint()),
            Ok(Ok(Some((condition, _)))) => (format!("{} is not there", condition.title()), condition.hint()),
            Ok(Err(e)) => (format!("{}: {}", e.what, e.why.join(": ")), more()),
            Err(_) => (format!("{} did not answer within {} s", api.server, REQUEST.as_secs()), more()),
        };
        if Instant::now() >= until {
            return Err(Error::new(format!("the add-on {} is not ready", addon.name)).why(words).hint(hint));
        }
        if words != told {
            waiting(words.clone());
            told = words;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: serde_json::Value) -> State {
        let object = serde_json::json!({ "metadata": { "generation": 2 }, "spec": {
            "replicas": 2, "selector": {}, "template": {},
        }, "status": status });
        deployment(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn pods_of_an_older_version_do_not_count() {
        let status = |generation: u8, updated: u8, all: u8, ready: u8| {
            serde_json::json!({
                "observedGeneration": generation, "updatedReplicas": updated, "replicas": all, "readyReplicas": ready,
            })
        };
        assert_eq!(of(status(2, 2, 2, 2)), State::Ready);
        for not_yet in [status(1, 2, 2, 2), status(2, 1, 2, 2), status(2, 2, 3, 3), status(2, 2, 2, 1)] {
            assert!(matches!(of(not_yet.clone()), State::Waiting(_)), "{not_yet}");
        }
    }

    #[test]
    fn reasons_are_the_api_s_own_words() {
        let bad = serde_json::json!({ "conditions": [
            { "type": "Available", "status": "False", "message": "Deployment does not have minimum availability." },
            { "type": "Progressing", "status": "True", "message": "making progress" },
        ] });
        let expected = "0 of 2 replicas are ready: Deployment does not have minimum availability.";
        assert_eq!(of(bad), State::Waiting(expected.into()));
        let group = |status: &str| {
            let conditions = serde_json::json!([{ "type": "Available", "status": status, "message": "no endpoints" }]);
            api_group(
                &serde_json::from_value(serde_json::json!({ "metadata": {}, "status": { "conditions": conditions } })).unwrap(),
            )
        };
        assert_eq!((group("True"), group("False")), (State::Ready, State::Waiting("no endpoints".into())));
    }
}
