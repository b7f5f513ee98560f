//! Named checks that run side by side on one cluster, each in a namespace of its own; all failures are told at the end.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::api::{describe_pod, is_ready, name, text};
use super::cluster::{Cluster, Node};
use super::{Check, eventually};

/// Upstream's test image, from the bundle.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.66.1";
/// How many checks run at a time: machines of two cores start no more pods at once anyway.
const AT_ONCE: usize = 12;

/// All checks of a test and what came of them.
pub struct Checks {
    pub cluster: Cluster,
    /// Run only those whose name contains this (`KUP_TEST_ONLY`).
    only: Option<String>,
    slots: Semaphore,
    results: Mutex<Vec<(String, Duration, Option<String>)>>,
}

impl Checks {
    pub fn new(cluster: Cluster) -> Checks {
        Checks { cluster, only: std::env::var("KUP_TEST_ONLY").ok(), slots: Semaphore::new(AT_ONCE), results: Mutex::default() }
    }

    /// On a new cluster, with [`AGNHOST`] on all of its nodes. A cluster that does not come up ends the test.
    pub async fn on_new(name: &str, config: &str) -> Checks {
        let made = async {
            let cluster = Cluster::up(name, config).await?;
            let agnhost = cluster.bundle.join("images/agnhost.tar");
            cluster.kup(&["image", "load", &agnhost.to_string_lossy(), "--name", name]).await?.ok("kup image load")?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Checks::new(cluster))
        };
        made.await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs one check. `pin` keeps its pods on one node.
    pub async fn check(&self, name: &str, pin: Option<&str>, work: impl AsyncFnOnce(&World<'_>) -> Check) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        let Ok(_slot) = self.slots.acquire().await else { return };
        let started = Instant::now();
        let short = name.rsplit("::").next().unwrap_or(name);
        let world = World { cluster: &self.cluster, namespace: short.replace('_', "-"), pin: pin.map(str::to_owned) };
        let result = match self.cluster.api.namespace(&world.namespace).await {
            Ok(()) => work(&world).await,
            Err(e) => Err(e),
        };
        let failure = match result {
            Ok(()) => None,
            Err(e) => {
                let seen = self.cluster.api.describe(&world.namespace).await.unwrap_or_else(|e| e.to_string());
                Some(format!("{e}\n{seen}"))
            }
        };
        let took = started.elapsed();
        eprintln!("{} {name} ({:.1} s)", if failure.is_none() { "ok    " } else { "FAILED" }, took.as_secs_f64());
        // Its pods would take the others' time. What can't be removed goes with the cluster.
        if failure.is_none() {
            let _ = self.cluster.api.delete(&format!("/api/v1/namespaces/{}", world.namespace)).await;
        }
        if let Ok(mut results) = self.results.lock() {
            results.push((name.to_owned(), took, failure));
        }
    }

    /// Every failure, as one text; `None` if there is none.
    pub fn failures(&self) -> Option<String> {
        let results = self.results.lock().ok()?;
        let failed: Vec<String> =
            results.iter().filter_map(|(name, _, failure)| failure.as_ref().map(|f| format!("{name}: {f}"))).collect();
        (!failed.is_empty()).then(|| format!("{} of {} checks failed\n\n{}", failed.len(), results.len(), failed.join("\n")))
    }
}

/// Runs checks side by side, each under its path as its name: `side_by_side!(checks, pin; pods::a, pods::b)`.
#[macro_export]
macro_rules! side_by_side {
    ($checks:expr, $pin:expr; $($check:path),+ $(,)?) => {
        futures::join!($(($checks).check(stringify!($check), $pin, $check)),+)
    };
}

/// What a check works in.
pub struct World<'a> {
    pub cluster: &'a Cluster,
    pub namespace: String,
    pin: Option<String>,
}

impl World<'_> {
    /// The path of a namespaced collection of the core API, below this check's namespace.
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// The same of `apps/v1`.
    pub fn apps(&self, rest: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// Applies the documents of a YAML text, in which `AGNHOST` stands for the image.
    pub async fn apply(&self, yaml: &str) -> Check {
        self.apply_in(&self.namespace, yaml).await
    }

    /// As [`World::apply`], into another namespace.
    pub async fn apply_in(&self, namespace: &str, yaml: &str) -> Check {
        for mut object in parse(yaml)? {
            if let Some(node) = &self.pin {
                pin(&mut object, node);
            }
            self.cluster.api.apply(namespace, &object).await?;
        }
        Ok(())
    }

    /// All pods with these labels.
    pub async fn pods(&self, selector: &str) -> Check<Vec<Value>> {
        self.cluster.api.list(&self.path(&format!("pods?labelSelector={selector}"))).await
    }

    /// Waits until exactly `count` pods with these labels are there and all are Ready; ordered by name.
    pub async fn ready(&self, selector: &str, count: usize) -> Check<Vec<Value>> {
        eventually(&format!("{count} ready pods of {selector}"), async || {
            let mut pods = self.pods(selector).await?;
            if pods.len() == count && pods.iter().all(is_ready) {
                pods.sort_by_key(name);
                return Ok(Ok(pods));
            }
            Ok(Err(pods.iter().map(describe_pod).collect::<Vec<_>>().join("\n")))
        })
        .await
    }

    /// Waits until a pod is Ready.
    pub async fn pod(&self, name: &str) -> Check<Value> {
        eventually(&format!("pod {name} to be ready"), async || {
            let pod = self.cluster.api.get(&self.path(&format!("pods/{name}"))).await?;
            Ok(if is_ready(&pod) { Ok(pod) } else { Err(describe_pod(&pod)) })
        })
        .await
    }

    /// Waits until a pod's status is as wanted.
    pub async fn pod_until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Check<Value> {
        eventually(&format!("pod {name}: {what}"), async || {
            let pod = self.cluster.api.get(&self.path(&format!("pods/{name}"))).await?;
            Ok(if wanted(&pod) { Ok(pod) } else { Err(describe_pod(&pod)) })
        })
        .await
    }

    /// What a pod's web server says to a path, asked through the API server.
    pub async fn web(&self, pod: &str, path: &str) -> Check<String> {
        self.cluster.api.text(&self.path(&format!("pods/{pod}:8080/proxy/{path}"))).await
    }

    /// What `pod` (an agnhost netexec) gets when it calls an address `tries` times.
    pub async fn dial(&self, pod: &str, call: &Call<'_>) -> Check<Dialled> {
        let Call { protocol, host, port, request, tries } = call;
        let path = format!("dial?host={host}&port={port}&protocol={protocol}&request={request}&tries={tries}");
        let answer: Value = serde_json::from_str(&self.web(pod, &path).await?)?;
        let strings = |v: &Value| v.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        Ok(Dialled { responses: strings(&answer["responses"]), errors: strings(&answer["errors"]) })
    }

    /// Calls until every answer is there and none is an error: rules of a Service that has just changed take a moment.
    pub async fn reaches(&self, pod: &str, call: &Call<'_>) -> Check<Vec<String>> {
        eventually(&format!("{pod} to reach {}:{} by {}", call.host, call.port, call.protocol), async || {
            let dialled = self.dial(pod, call).await?;
            Ok(if dialled.errors.is_empty() && dialled.responses.len() == call.tries {
                Ok(dialled.responses)
            } else {
                Err(format!("{dialled:?}"))
            })
        })
        .await
    }

    /// A minion for pods: where they are pinned to, or the n-th.
    pub fn minion(&self, n: usize) -> Check<Node> {
        let minions: Vec<_> = self.cluster.minions().filter(|m| self.pin.as_ref().is_none_or(|pin| *pin == m.name)).collect();
        let minion = minions.get(n % minions.len().max(1)).ok_or("there is no minion")?;
        Ok((*minion).clone())
    }
}

/// A call from one pod to somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub protocol: &'a str,
    pub host: &'a str,
    pub port: u16,
    pub request: &'a str,
    pub tries: usize,
}

impl<'a> Call<'a> {
    /// One HTTP request for the name of the pod that answers.
    pub fn http(host: &'a str, port: u16) -> Call<'a> {
        Call { protocol: "http", host, port, request: "hostname", tries: 1 }
    }

    /// One UDP datagram, likewise.
    pub fn udp(host: &'a str, port: u16) -> Call<'a> {
        Call { protocol: "udp", ..Call::http(host, port) }
    }

    pub fn request(self, request: &'a str) -> Call<'a> {
        Call { request, ..self }
    }

    pub fn times(self, tries: usize) -> Call<'a> {
        Call { tries, ..self }
    }
}

/// What came of calls.
#[derive(Debug)]
pub struct Dialled {
    pub responses: Vec<String>,
    pub errors: Vec<String>,
}

/// The objects of a YAML text.
pub fn parse(yaml: &str) -> Check<Vec<Value>> {
    use serde::Deserialize as _;
    let yaml = yaml.replace("AGNHOST", AGNHOST);
    let objects = serde_yaml::Deserializer::from_str(&yaml).map(Value::deserialize).collect::<Result<Vec<_>, _>>();
    Ok(objects.map_err(|e| format!("{e} in:\n{yaml}"))?.into_iter().filter(|v| !v.is_null()).collect())
}

fn pin(object: &mut Value, node: &str) {
    let spec = if object["kind"] == "Pod" { object.pointer_mut("/spec") } else { object.pointer_mut("/spec/template/spec") };
    if let Some(spec) = spec.filter(|s| s["containers"].is_array() && s["nodeSelector"].is_null()) {
        spec["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    }
}
