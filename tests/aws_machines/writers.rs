//! Who writes while bad things happen: a pod of the cluster and a user's kubectl outside, each one ConfigMap after the other. What the API
//! said it had taken is kept, to be looked for afterwards, and how long it took nothing is what its absence lasted.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::ensure;
use crate::support::api::{Api, name};
use crate::support::checks::AGNHOST;
use crate::support::{Check, eventually};
use crate::world::World;

const NAMESPACE: &str = "counted";
const POD: &str = "writer";
/// What a client waits for an answer before it asks again, in seconds.
const PATIENCE: u64 = 2;
/// Between one write and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// What was acknowledged: a ConfigMap's name and when, in milliseconds since 1970.
type Acknowledged = Vec<(String, u64)>;

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The two, at work until this is dropped.
pub struct Writers<'a> {
    api: &'a Api,
    outside: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Writers<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

impl Writers<'_> {
    /// Starts both. The pod runs on `node`, which has to outlive what happens.
    pub async fn start<'a>(world: &World, api: &'a Api, node: &str) -> Check<Writers<'a>> {
        api.namespace(NAMESPACE).await?;
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": POD },
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] }],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": POD },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": POD },
            "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE }],
        });
        api.apply(NAMESPACE, &role).await?;
        api.apply(NAMESPACE, &binding).await?;
        api.apply(NAMESPACE, &pod(node)).await?;
        let kubectl = kubectl(world).await?;
        let (outside, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(write(kubectl, Arc::clone(&outside), Arc::clone(&stop)));
        let writers = Writers { api, outside, stop, task };
        eventually("both writers to write", async || {
            let (inside, outside) = (writers.inside().await?, writers.outside());
            Ok(if inside.is_empty() || outside.is_empty() { Err(api.describe(NAMESPACE).await?) } else { Ok(()) })
        })
        .await?;
        Ok(writers)
    }

    /// What the pod was told is written, as it says itself.
    async fn inside(&self) -> Check<Acknowledged> {
        let log = self.api.text(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}/log")).await?;
        let line = |line: &str| {
            let (name, at) = line.split_once(' ')?;
            Some((name.to_owned(), at.parse().ok()?))
        };
        Ok(log.lines().filter_map(line).collect())
    }

    fn outside(&self) -> Acknowledged {
        self.outside.lock().map(|all| all.clone()).unwrap_or_default()
    }

    /// Waits until both have written something again, and tells for how long at most neither inside nor outside could since then, in
    /// milliseconds.
    pub async fn away_since(&self, then: u64) -> Check<(u64, u64)> {
        // Nor may a write that was on its way when it happened be taken for one that came through afterwards.
        let after = now() + PATIENCE * 1000;
        eventually("both writers to go on", async || {
            let (inside, outside) = (self.inside().await?, self.outside());
            let on = |all: &Acknowledged| all.last().is_some_and(|(_, at)| *at > after);
            Ok(if on(&inside) && on(&outside) {
                Ok((longest(&inside, then), longest(&outside, then)))
            } else {
                Err(String::new())
            })
        })
        .await
    }

    /// All that was acknowledged is there. Gives how much that is.
    pub async fn none_is_lost(&self) -> Check<usize> {
        // A connection to a master that is gone may be what is asked by first.
        let (told, there) = eventually("what was written to be read", async || {
            let told: Vec<String> = self.inside().await?.into_iter().chain(self.outside()).map(|(name, _)| name).collect();
            let there = self.api.list(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps")).await?;
            Ok(Ok((told, there.iter().map(name).collect::<BTreeSet<String>>())))
        })
        .await?;
        let lost: Vec<&String> = told.iter().filter(|name| !there.contains(*name)).collect();
        ensure!(lost.is_empty(), "of {} acknowledged writes, {} are lost: {lost:?}", told.len(), lost.len());
        Ok(told.len())
    }
}

/// The longest time without a write, from the last one before `then` on.
fn longest(all: &Acknowledged, then: u64) -> u64 {
    all.windows(2).filter(|pair| pair[1].1 > then).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or(0)
}

/// A pod that has curl and a shell from its node, and its own account's token.
fn pod(node: &str) -> serde_json::Value {
    let script = format!(
        r#"cd /var/run/secrets/kubernetes.io/serviceaccount
n=0
while :; do
  n=$((n + 1))
  code=$(curl -s -o /dev/null -w '%{{http_code}}' --max-time {PATIENCE} --cacert ca.crt -H "Authorization: Bearer $(cat token)" -H 'Content-Type: application/json' \
    -d '{{"metadata":{{"name":"inside-'$n'"}}}}' "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/{NAMESPACE}/configmaps")
  if [ "$code" = 201 ]; then echo "inside-$n $(date +%s%3N)"; fi
  sleep {}
done"#,
        PAUSE.as_secs_f64()
    );
    let mount = |path: &str, below: Option<&str>| json!({ "name": "usr", "mountPath": path, "readOnly": true, "subPath": below });
    let container = json!({
        "name": POD, "image": AGNHOST, "command": ["/bin/sh", "-c", script],
        "volumeMounts": [mount("/usr", None), mount("/bin", Some("bin")), mount("/lib", Some("lib")), mount("/lib64", Some("lib64"))],
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": POD },
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{ "name": "usr", "hostPath": { "path": "/usr" } }],
        },
    })
}

/// The bundle's kubectl, as the user types it.
async fn kubectl(world: &World) -> Check<impl Fn(&[&str]) -> tokio::process::Command + use<>> {
    let program = world.kup(&["bundle", "path", "kubectl"]).await?.ok("kup bundle path kubectl")?.trim().to_owned();
    let kubeconfig = world.kubeconfig();
    Ok(move |args: &[&str]| {
        let mut command = tokio::process::Command::new(&program);
        command.env_clear().env("KUBECONFIG", &kubeconfig).args(args);
        command
    })
}

async fn write(
    kubectl: impl Fn(&[&str]) -> tokio::process::Command,
    acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
) {
    let limit = format!("--request-timeout={PATIENCE}s");
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("outside-{n}");
        let mut command = kubectl(&["create", "configmap", &name, "-n", NAMESPACE, &limit]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if command.status().await.is_ok_and(|status| status.success())
            && let Ok(mut all) = acknowledged.lock()
        {
            all.push((name, now()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
