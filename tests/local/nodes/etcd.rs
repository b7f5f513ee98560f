//! etcd: reached with its own certificates only, and holding Secrets encrypted.

use std::time::Duration;

use super::BIN;
use crate::ensure;
use crate::support::Check;
use crate::support::api::text;
use crate::support::checks::World;

const PKI: &str = "/etc/kup/pki";

fn etcdctl(arguments: &str) -> String {
    format!(
        "{BIN}/etcdctl --endpoints https://127.0.0.1:2379 --cacert {PKI}/etcd-ca.crt --cert {PKI}/apiserver-etcd-client.crt \
         --key {PKI}/apiserver-etcd-client.key {arguments}"
    )
}

/// With a certificate of its own authority it is healthy; without, or with one of the cluster's authority, it says nothing.
pub async fn etcd_asks_for_its_own_certificates(w: &World<'_>) -> Check {
    let login = w.cluster.login()?;
    let identity = format!("{}{}", login.cert_pem, login.key_pem);
    let client = || reqwest::Client::builder().tls_danger_accept_invalid_certs(true).timeout(Duration::from_secs(10));
    let stranger = client().build()?;
    let admin = client().identity(reqwest::Identity::from_pem(identity.as_bytes())?).build()?;
    for master in w.cluster.masters() {
        let health = w.cluster.read(master, &format!("{} 2>&1", etcdctl("endpoint health"))).await?;
        ensure!(health.contains("is healthy"), "{}: {health}", master.name);
        for port in [2379, 2380] {
            for (who, client) in [("a stranger", &stranger), ("the cluster's administrator", &admin)] {
                let answer = client.get(format!("https://{}:{port}/health", master.address)).send().await;
                ensure!(answer.is_err(), "{}: port {port} answers {who}: {answer:?}", master.name);
            }
            let plain = stranger.get(format!("http://{}:{port}/health", master.address)).send().await;
            ensure!(
                !plain.as_ref().is_ok_and(|a| a.status().is_success()),
                "{}: port {port} answers without TLS: {plain:?}",
                master.name
            );
        }
        // Its metrics are for the machine itself.
        let own = w.cluster.read(master, "curl -sS --max-time 10 http://127.0.0.1:2381/health; curl -sS http://127.0.0.1:2381/metrics | grep ^etcd_server_quota").await?;
        ensure!(own.contains("\"health\":\"true\""), "{}: {own}", master.name);
        ensure!(
            own.contains("etcd_server_quota_backend_bytes 8.589934592e+09"),
            "{}: the quota is not 8 GiB: {own}",
            master.name
        );
        let outside = stranger.get(format!("http://{}:2381/metrics", master.address)).send().await;
        ensure!(outside.is_err(), "{}: etcd's metrics answer from outside", master.name);
        // What etcd itself says of its checks when it starts.
        let said =
            w.cluster.read(master, "journalctl -b -q -u etcd -o cat | grep -m1 '\"msg\":\"starting an etcd server\"'").await?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        ensure!(
            said["corrupt-check-time-interval"] == "4h0m0s",
            "{}: corruption is looked for every {}",
            master.name,
            said["corrupt-check-time-interval"]
        );
        ensure!(
            text(&said["feature-gates"]).contains("InitialCorruptCheck=true"),
            "{}: no check for corruption at the start: {said}",
            master.name
        );
    }
    Ok(())
}

/// A Secret's text isn't in etcd; a ConfigMap's is (which shows that the test would see it).
pub async fn secrets_are_encrypted_in_etcd(w: &World<'_>) -> Check {
    let plain = "plain-text-that-must-not-be-there";
    w.apply(&format!("{{ apiVersion: v1, kind: Secret, metadata: {{ name: hidden }}, stringData: {{ word: {plain} }} }}"))
        .await?;
    w.apply(&format!("{{ apiVersion: v1, kind: ConfigMap, metadata: {{ name: open }}, data: {{ word: {plain} }} }}")).await?;
    let get = async |key: String| {
        w.cluster.read(w.cluster.master(), &etcdctl(&format!("get {key} --print-value-only | base64 -w0"))).await
    };
    let raw = async |kind: &str, name: &str| -> Check<String> {
        use base64::Engine as _;
        let value = get(format!("/registry/{kind}/{}/{name}", w.namespace)).await?;
        Ok(String::from_utf8_lossy(&base64::engine::general_purpose::STANDARD.decode(value.trim())?).into_owned())
    };
    let (open, hidden) = (raw("configmaps", "open").await?, raw("secrets", "hidden").await?);
    ensure!(open.contains(plain), "the ConfigMap is not where it was looked for: {open:?}");
    ensure!(
        hidden.starts_with("k8s:enc:secretbox:v1:key1:"),
        "the Secret begins with {:?}",
        hidden.chars().take(40).collect::<String>()
    );
    ensure!(!hidden.contains(plain), "the Secret stands in etcd as it is");
    Ok(())
}
