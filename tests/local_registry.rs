//! Images are pulled from registries of the user's: with their own authority, a login, and as a mirror of another. The config's
//! registries reach running nodes by `kup up`, and leave them again, while nothing restarts.
//!
//! Needs root and a container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod registry_server;
mod support;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use registry_server::{Login, Registry, Seen, image};
use serde_json::{Value, json};
use support::api::{describe_pod, is_ready, text};
use support::cluster::Cluster;
use support::{Check, eventually, within};

const NAME: &str = "kup-test-registry";
const NAMESPACE: &str = "pulls";
const CERTS: &str = "/etc/containerd/certs.d";
/// Passwords with what quotes, TOML, YAML and shells could stumble over.
const PASSWORD: &str = "kT7 \"x\\y'$z#é<&>-of-the-first";
const OTHER: &str = "vq93-of-the-other-registry";

struct World {
    cluster: Cluster,
    /// Each unit's run on the node, and the pods' sandboxes: what must outlive every change of registries.
    runs: String,
}

impl World {
    /// `kup up` with these registries.
    async fn up(&self, registries: &str) -> Check {
        let file = self.cluster.scratch("config.yaml");
        std::fs::write(&file, format!("masters: {{ count: 1 }}\nminions: {{ count: 0 }}\nregistries:\n{registries}"))?;
        let output = self.cluster.kup(&["up", "--name", NAME, "-y", "-f", &file.to_string_lossy()]).await?;
        output.ok("kup up with other registries")?;
        Ok(())
    }

    async fn start(&self, pod: &str, image: &str) -> Check {
        let container = json!({
            "name": "web", "image": image, "imagePullPolicy": "Always", "args": ["netexec"],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 }
        });
        let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [container] });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod }, "spec": spec });
        self.cluster.api.post(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), &pod).await?;
        Ok(())
    }

    async fn get(&self, pod: &str) -> Check<Value> {
        self.cluster.api.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}")).await
    }

    async fn runs(&self, pod: &str) -> Check {
        eventually(&format!("pod {pod} to run"), async || {
            let pod = self.get(pod).await?;
            Ok(if is_ready(&pod) { Ok(()) } else { Err(describe_pod(&pod)) })
        })
        .await
    }

    /// Waits until a pod's image can't be pulled for a reason that has all of these words.
    async fn is_refused(&self, pod: &str, words: &[&str]) -> Check {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/events?fieldSelector=involvedObject.name={pod},reason=Failed");
        eventually(&format!("pod {pod} to say {words:?}"), async || {
            let said: Vec<String> = self.cluster.api.list(&path).await?.iter().map(|e| text(&e["message"])).collect();
            let found = said.iter().any(|message| words.iter().all(|word| message.contains(word)));
            Ok(if found { Ok(()) } else { Err(format!("{said:?}\n{}", describe_pod(&self.get(pod).await?))) })
        })
        .await
    }

    /// Waits until the kubelet has given up on a pod's image for a while.
    async fn backs_off(&self, pod: &str) -> Check {
        within(Duration::from_secs(60), &format!("pod {pod} to wait for its image"), async || {
            let pod = self.get(pod).await?;
            let reason = text(&pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]);
            Ok(if reason == "ImagePullBackOff" { Ok(()) } else { Err(describe_pod(&pod)) })
        })
        .await
    }

    async fn on_node(&self, script: &str) -> Check<String> {
        self.cluster.read(self.cluster.master(), script).await
    }

    async fn nothing_restarted(&self) -> Check {
        let now = units(&self.cluster).await?;
        ensure!(now == self.runs, "registries changed, and so did runs of units:\n{}\n{now}", self.runs);
        Ok(())
    }
}

async fn units(cluster: &Cluster) -> Check<String> {
    let script = "systemctl show -p Id -p InvocationID --value containerd kubelet kube-proxy flanneld etcd kube-apiserver";
    cluster.read(cluster.master(), script).await
}

/// Requests in one line each, as failures show them.
fn shown(seen: &[Seen]) -> String {
    seen.iter().map(|s| format!("\n  {} ns {:?}: {}", s.what, s.namespace, s.status)).collect()
}

fn passed(seen: &[Seen], what: &str, namespace: Option<&str>) -> bool {
    seen.iter().any(|s| s.what.contains(what) && s.namespace.as_deref() == namespace && s.status == 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_from_registries_with_their_own_authority_login_and_mirrors() -> Check {
    let cluster = Cluster::up(NAME, "masters: { count: 1 }\nminions: { count: 0 }\n").await?;
    cluster.api.namespace(NAMESPACE).await?;
    let runs = units(&cluster).await?;
    let w = World { cluster, runs };

    // Both listen on this host's address in the cluster's own network, and nowhere else.
    let gateway: Ipv4Addr =
        w.on_node("ip -4 route show default | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p'").await?.trim().parse()?;
    let agnhost = image(&w.cluster.bundle.join("images/agnhost.tar"))?;
    let first = Registry::serve(gateway, agnhost.clone(), Login::Basic, "puller", PASSWORD).await?;
    let other = Registry::serve(gateway, agnhost, Login::Token, "other", OTHER).await?;
    std::fs::write(w.cluster.scratch("first.pem"), &first.ca_pem)?;
    std::fs::write(w.cluster.scratch("other.pem"), &other.ca_pem)?;
    std::fs::write(w.cluster.scratch("password"), format!("{PASSWORD}\n"))?;
    std::fs::write(w.cluster.scratch("wrong"), "not-the-password-of-anybody")?;
    let (a, b) = (first.address, other.address);
    let at_a = |tag: &str| format!("{a}/e2e/agnhost:{tag}");
    let at_b = |tag: &str| format!("{b}/e2e/agnhost:{tag}");
    // Somebody else's registry on the same node, which kup must leave alone.
    w.on_node(&format!("mkdir -p {CERTS}/theirs.example.com && echo '# ours' > {CERTS}/theirs.example.com/hosts.toml")).await?;

    // Without its authority nobody talks to it, let alone sends a login.
    w.up(&format!("  \"{a}\": {{ username: puller, passwordFile: password }}\n")).await?;
    w.start("no-authority", &at_a("1")).await?;
    w.is_refused("no-authority", &["x509"]).await?;
    ensure!(first.seen().is_empty(), "a registry with an unknown certificate was sent requests");

    // With a wrong password both say so.
    w.up(&format!(
        "  \"{a}\": {{ ca: first.pem, username: puller, passwordFile: wrong }}\n  \"{b}\": {{ ca: other.pem, username: other, password: wrong-password }}\n"
    ))
    .await?;
    w.start("wrong-password", &at_a("2")).await?;
    w.start("wrong-token", &at_b("2")).await?;
    // containerd has no number for the first: the login that is refused is the only one it has.
    let (no_login, no_token) = (w.is_refused("wrong-password", &["authorization failed"]), w.is_refused("wrong-token", &["401"]));
    tokio::try_join!(no_login, no_token, w.backs_off("wrong-token"))?;
    let seen = [first.seen(), other.seen()].concat();
    ensure!(!seen.is_empty() && seen.iter().all(|s| s.status == 401), "what was asked with a wrong password:{}", shown(&seen));

    // With all that is right: directly, by a token, and in another registry's place.
    w.up(&format!(
        "  registry.example.com:\n    mirrors: [https://{a}]\n\
         \x20 \"{a}\":\n    ca: first.pem\n    username: puller\n    passwordFile: password\n\
         \x20 \"{b}\": {{ ca: other.pem, username: other, password: {OTHER} }}\n"
    ))
    .await?;
    w.start("right", &at_a("3")).await?;
    w.start("token", &at_b("3")).await?;
    w.start("mirrored", "registry.example.com/some/where/agnhost:3").await?;
    tokio::try_join!(w.runs("right"), w.runs("token"), w.runs("mirrored"))?;
    let (seen, seen_by_other) = (first.seen(), other.seen());
    for (seen, what, namespace) in [
        (&seen, "/v2/e2e/agnhost/manifests/3", None),
        (&seen, "/v2/some/where/agnhost/manifests/3", Some("registry.example.com")),
        (&seen_by_other, "GET /token", None),
        (&seen_by_other, "/v2/e2e/agnhost/manifests/3", None),
    ] {
        ensure!(passed(seen, what, namespace), "{what} (for {namespace:?}) was not asked for, or refused:{}", shown(seen));
    }
    let blobs = [seen, seen_by_other].concat();
    ensure!(
        passed(&blobs, "/blobs/sha256:", None) || passed(&blobs, "/blobs/sha256:", Some("registry.example.com")),
        "no layer came from here:{}",
        shown(&blobs)
    );
    w.nothing_restarted().await?;
    secrets_are_kept(&w).await?;

    // Whoever names no file means the cluster as it was last made: nothing changes.
    let listing = format!("find {CERTS} -type f -exec stat -c '%n %i %a' {{}} + | sort");
    let before = w.on_node(&listing).await?;
    let again = w.cluster.kup(&["up", "--name", NAME]).await?.ok("kup up without a file")?;
    ensure!(again.contains("is ready, as before"), "{again}");
    ensure!(w.on_node(&listing).await? == before, "kup up without a file changed what nodes know of registries:\n{before}");

    // What the config names no longer, the node knows no longer: neither a login nor an authority is left of it.
    w.up(&format!("  \"{b}\": {{ username: other, password: {OTHER} }}\n")).await?;
    let left = w.on_node(&format!("cd {CERTS}; find . -type f | sort | tr '\\n' ' '")).await?;
    let (ip, port) = (b.ip(), b.port());
    ensure!(left.trim() == format!("./{ip}_{port}_/hosts.toml ./theirs.example.com/hosts.toml"), "what is left: {left}");
    w.start("no-more", &at_b("4")).await?;
    w.is_refused("no-more", &["x509"]).await?;
    w.nothing_restarted().await?;
    Ok(())
}

/// Passwords stand in the files that need them, for root alone, and nowhere else.
async fn secrets_are_kept(w: &World) -> Check {
    use base64::Engine as _;
    let modes = w.on_node(&format!("stat -c '%a %U %n' {CERTS}/1*/hosts.toml {CERTS}/registry.example.com/hosts.toml")).await?;
    ensure!(modes.lines().count() == 3 && modes.lines().all(|l| l.starts_with("600 root ")), "{modes}");
    let sent = |user: &str, password: &str| base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let secrets = [PASSWORD.to_owned(), OTHER.to_owned(), sent("puller", PASSWORD), sent("other", OTHER)];

    let patterns = secrets.join("\n");
    let found = w
        .on_node(&format!(
            "umask 077; d=$(mktemp -d); trap 'rm -rf $d' EXIT; cat > $d/patterns <<'END'\n{patterns}\nEND\n\
             grep -rlIFf $d/patterns /etc /run /var/log /var/tmp /tmp --exclude=patterns | sort; \
             for p in /proc/[0-9]*; do ! grep -qaFf $d/patterns $p/cmdline $p/environ 2>/dev/null || echo $p; done; \
             journalctl -q --no-pager | grep -cFf $d/patterns | sed 's/^/journal /'"
        ))
        .await?;
    let elsewhere: Vec<&str> = found.lines().filter(|l| !l.starts_with(CERTS) && *l != "journal 0").collect();
    ensure!(found.contains(CERTS) && found.contains("journal 0") && elsewhere.is_empty(), "secrets are found in:\n{found}");

    // On this host: in the cluster's own state, for its user alone, and in no view of it.
    let state = w.cluster.scratch("state/kup/local").join(NAME).join("cluster.yaml");
    let saved = std::fs::read_to_string(&state)?;
    ensure!(saved.contains(OTHER) && std::fs::metadata(&state)?.permissions().mode() & 0o777 == 0o600, "{saved}");
    let (config, archive) = (w.cluster.scratch("config.yaml"), w.cluster.scratch("logs.tar.gz"));
    let mut said = String::new();
    for args in [&["config", "view", "-f"][..], &["config", "view", "-o", "json", "-f"], &["config", "view", "--origin", "-f"]] {
        for file in [&config, &state] {
            said += &w.cluster.kup(&[args, &[&file.to_string_lossy()]].concat()).await?.ok("kup config view")?;
        }
    }
    ensure!(said.contains("[hidden]") && said.contains("passwordFile"), "{said}");
    // Somebody's program logs them: the archive says that it did, not what.
    w.on_node(&format!("logger -p user.warning <<'END'\nmarker-of-the-leak\n{patterns}\nEND\njournalctl --sync")).await?;
    w.cluster.kup(&["logs", "--name", NAME, "--archive", &archive.to_string_lossy()]).await?.ok("kup logs --archive")?;
    let mut unpacked = String::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&archive)?)).entries()? {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry?, &mut bytes)?;
        unpacked += &String::from_utf8_lossy(&bytes);
    }
    ensure!(unpacked.contains("marker-of-the-leak"), "the archive says nothing of what was logged");
    for secret in secrets {
        ensure!(!said.contains(&secret), "kup config view shows a secret:\n{said}");
        ensure!(!unpacked.contains(&secret), "kup logs --archive holds a secret");
    }
    Ok(())
}
