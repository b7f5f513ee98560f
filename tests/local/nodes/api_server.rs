//! Who may do what at the API, and what is written down of it.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{BIN, everywhere};
use crate::ensure;
use crate::support::api::text;
use crate::support::checks::World;
use crate::support::{Check, eventually};

/// Without a login: health, and nothing else.
pub async fn strangers_see_health_only(w: &World<'_>) -> Check {
    let ca = reqwest::Certificate::from_pem(w.cluster.login()?.ca_pem.as_bytes())?;
    let stranger = reqwest::Client::builder().tls_certs_only([ca]).timeout(Duration::from_secs(10)).build()?;
    for master in w.cluster.masters() {
        let ask = async |path: &str| -> Check<u16> {
            Ok(stranger.get(format!("https://{}:6443{path}", master.address)).send().await?.status().as_u16())
        };
        for path in ["/livez", "/readyz", "/healthz"] {
            let status = ask(path).await?;
            ensure!(status == 200, "{path} answers {status} without a login");
        }
        for path in [
            "/",
            "/api",
            "/version",
            "/metrics",
            "/openapi/v2",
            "/api/v1/namespaces",
            "/api/v1/secrets",
            "/openid/v1/jwks",
            "/readyz/ping",
            "/debug/pprof/",
        ] {
            let status = ask(path).await?;
            ensure!(status == 401, "{path} answers {status} without a login");
        }
    }
    Ok(())
}

/// The user's own group may do all, and can be unbound: it isn't system:masters. Nothing on the nodes is in that group either.
pub async fn administrator_has_a_group_of_its_own(w: &World<'_>) -> Check {
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let me =
        w.cluster.api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await?["status"]["userInfo"].clone();
    let groups: BTreeSet<String> = me["groups"].as_array().into_iter().flatten().map(text).collect();
    ensure!(
        groups.contains("kup:cluster-admins") && !groups.contains("system:masters"),
        "the administrator's groups are {groups:?}"
    );
    let subjects = "find /etc /var/lib/kubelet/pki \\( -name '*.crt' -o -name '*.pem' \\) -path '*pki*' -exec openssl x509 -noout -subject -in {} \\;";
    for (node, seen) in everywhere(w, subjects).await? {
        ensure!(seen.contains("system:node"), "no certificate was found on {}: {seen}", node.name);
        ensure!(!seen.contains("system:masters"), "a certificate on {} is of system:masters:\n{seen}", node.name);
    }
    Ok(())
}

/// A node's certificate is good for that node only.
pub async fn nodes_are_restricted_to_themselves(w: &World<'_>) -> Check {
    let minions: Vec<_> = w.cluster.minions().collect();
    let (me, other) = (minions[0], &minions[1].name);
    w.apply("{ apiVersion: v1, kind: Secret, metadata: { name: foreign }, stringData: { word: x } }").await?;
    let kubectl =
        async |what: &str| w.cluster.on(me, &format!("{BIN}/kubectl --kubeconfig /etc/kup/node.kubeconfig {what} 2>&1")).await;
    let own = &me.name;
    // What it may do shows that the rest is refused for what it is.
    kubectl(&format!("label node {own} story.test/own=1")).await?.ok("a node labels itself")?;
    let refused = [
        format!("label node {other} story.test/foreign=1"),
        format!("annotate node {other} story.test/foreign=1"),
        format!("patch node {other} --subresource=status -p '{{\"status\":{{\"phase\":\"x\"}}}}'"),
        format!("label node {own} node-restriction.kubernetes.io/x=1"),
        format!("label node {own} node-role.kubernetes.io/control-plane="),
        format!("taint node {own} story.test/x=1:NoSchedule"),
        format!("delete node {other}"),
        format!("-n {} get secret foreign", w.namespace),
        "-n kube-system get secrets".to_owned(),
        "get clusterroles".to_owned(),
    ];
    for what in refused {
        let output = kubectl(&what).await?;
        ensure!(output.code != Some(0) && output.stdout.contains("orbidden"), "{own}'s certificate: kubectl {what}: {output:?}");
    }
    // It may renew itself.
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": format!("system:node:{own}"), "groups": ["system:nodes", "system:authenticated"],
        "resourceAttributes": { "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "subresource": "selfnodeclient", "verb": "create" } } });
    let answer = w.cluster.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
    ensure!(answer["status"]["allowed"] == true, "a node may not renew its certificate: {}", answer["status"]);
    Ok(())
}

/// Tokens are signed with RSA, as clouds' identity services want it, by an issuer that names itself.
pub async fn tokens_are_signed_with_rsa(w: &World<'_>) -> Check {
    let request =
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 600 } });
    let token = text(&w.cluster.api.post(&w.path("serviceaccounts/default/token"), &request).await?["status"]["token"]);
    let part = |n: usize| -> Check<Value> {
        let part = token.split('.').nth(n).ok_or("the token has no such part")?;
        Ok(serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part)?)?)
    };
    let (header, claims) = (part(0)?, part(1)?);
    ensure!(header["alg"] == "RS256", "the token's header is {header}");
    ensure!(claims["iss"] == "https://kubernetes.default.svc.cluster.local", "the token's issuer is {}", claims["iss"]);
    let keys = w.cluster.api.get("/openid/v1/jwks").await?;
    let key = &keys["keys"][0];
    let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text(&key["n"]))?;
    ensure!(key["kty"] == "RSA" && modulus.len() == 256, "the key is {} of {} bytes", key["kty"], modulus.len());
    Ok(())
}

/// What is done is written down, with who did it; what is secret isn't.
pub async fn audit_log_tells_who_did_what(w: &World<'_>) -> Check {
    let word = "audited-word-that-must-not-be-there";
    w.apply(&format!("{{ apiVersion: v1, kind: Secret, metadata: {{ name: audited }}, stringData: {{ word: {word} }} }}"))
        .await?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(word);
    let pattern = format!("\"namespace\":\"{}\",\"name\":\"audited\"", w.namespace);
    let script = format!(
        "stat -c 'mode %a' /var/log/kubernetes/audit.log; grep -F '{pattern}' /var/log/kubernetes/audit.log | tail -1; grep -c -e {word} -e {encoded} /var/log/kubernetes/audit.log"
    );
    // Lines are written in batches, at least every 30 s.
    let seen = eventually("the Secret's line in the audit log", async || {
        let mut seen = String::new();
        for master in w.cluster.masters() {
            seen.push_str(&w.cluster.on(master, &script).await?.stdout);
        }
        Ok(if seen.contains(&pattern) { Ok(seen) } else { Err(seen) })
    })
    .await?;
    let line: Value = serde_json::from_str(seen.lines().find(|l| l.starts_with('{')).ok_or("no line")?)?;
    ensure!(line["user"]["username"] == "kup-admin" && line["verb"] == "patch", "the line says {line}");
    ensure!(line["requestObject"].is_null(), "the log holds the Secret: {line}");
    ensure!(
        seen.lines().all(|l| l.starts_with('{') || l == "mode 600" || l == "0"),
        "the log's mode, or lines with the Secret's word: {seen}"
    );
    let flags = w
        .cluster
        .read(w.cluster.master(), "tr '\\0' '\\n' < /proc/$(systemctl show -p MainPID --value kube-apiserver)/cmdline")
        .await?;
    for flag in ["--audit-log-maxage=", "--audit-log-maxbackup=", "--audit-log-maxsize="] {
        ensure!(flags.lines().any(|l| l.starts_with(flag)), "the audit log is never rotated: no {flag} in\n{flags}");
    }
    Ok(())
}

/// Profiling is off everywhere, also for those who may do everything; the controller manager isn't throttled by itself.
pub async fn control_plane_runs_as_configured(w: &World<'_>) -> Check {
    let refused = w.cluster.kubectl(&["get", "--raw", "/debug/pprof/"]).await?;
    ensure!(refused.code != Some(0) && refused.stderr.contains("NotFound"), "the API server's profiler answers: {refused:?}");
    let login = w.cluster.login()?;
    for master in w.cluster.masters() {
        // The login goes in by standard input, into a file that only root reads and that goes at once.
        let script = |url: &str| {
            format!(
                "umask 077; d=$(mktemp -d); trap 'rm -rf $d' EXIT; cat > $d/crt <<'END'\n{}END\ncat > $d/key <<'END'\n{}END\n\
                 curl -sS --max-time 10 --cacert {PKI}/cluster-ca.crt --cert $d/crt --key $d/key -w '\\n%{{http_code}}' {url}",
                login.cert_pem, login.key_pem
            )
        };
        for (unit, port) in [("kube-controller-manager", 10257), ("kube-scheduler", 10259)] {
            let ask = async |path: &str| w.cluster.read(master, &script(&format!("https://127.0.0.1:{port}{path}"))).await;
            let health = ask("/healthz").await?;
            ensure!(health == "ok\n200", "{unit}: /healthz says {health:?}");
            let profiler = ask("/debug/pprof/").await?;
            ensure!(profiler.ends_with("\n404"), "{unit}: the profiler answers {profiler:?}");
            let stranger = w
                .cluster
                .read(master, &format!("curl -sk -o /dev/null -w '%{{http_code}}' https://127.0.0.1:{port}/metrics"))
                .await?;
            ensure!(stranger == "403" || stranger == "401", "{unit}: a stranger reads its metrics: {stranger}");
        }
        let config = w.cluster.read(master, &script("https://127.0.0.1:10257/configz")).await?;
        let config: Value = serde_json::from_str(config.rsplit_once('\n').ok_or("no answer")?.0)?;
        let client = &config["kubecontrollermanager.config.k8s.io"]["Generic"]["ClientConnection"];
        ensure!(client["qps"] == 300 && client["burst"] == 600, "the controller manager's client is {client}");
    }
    Ok(())
}

const PKI: &str = "/etc/kup/pki";
