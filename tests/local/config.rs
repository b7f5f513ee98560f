//! What pods are given: settings, secrets, scratch space, and a namespace to be in.

use serde_json::json;

use super::yaml::{then_wait, tools, tools_pod, web_pod, web_service};
use crate::ensure;
use crate::support::api::text;
use crate::support::checks::{Call, World};
use crate::support::{Check, eventually};

/// ConfigMap and Secret as files and variables; emptyDir on disk and in memory.
pub async fn config_map_secret_and_empty_dir(w: &World<'_>) -> Check {
    w.apply(
        "{ apiVersion: v1, kind: ConfigMap, metadata: { name: settings }, data: { colour: blue, app.conf: \"level = 7\\n\" } }",
    )
    .await?;
    w.apply("{ apiVersion: v1, kind: Secret, metadata: { name: login }, stringData: { password: \"s3cret pass\" } }").await?;
    let command = then_wait(
        "set -e; n=$(cat /disk/starts 2>/dev/null || echo 0); echo $((n + 1)) > /disk/starts; \
         echo \"$COLOUR|$PASSWORD|$(cat /settings/app.conf)|$(cat /login/password)|$(stat -fc %T /memory)|$(stat -fc %T /login)|$(cat /disk/starts)\"",
    );
    let mounts = "{ name: settings, mountPath: /settings }, { name: login, mountPath: /login, readOnly: true }, { name: disk, mountPath: /disk }, { name: memory, mountPath: /memory },";
    let env = "env: [{ name: COLOUR, valueFrom: { configMapKeyRef: { name: settings, key: colour } } }, { name: PASSWORD, valueFrom: { secretKeyRef: { name: login, key: password } } }]";
    let volumes = "{ name: settings, configMap: { name: settings } }, { name: login, secret: { secretName: login } }, { name: disk, emptyDir: {} }, { name: memory, emptyDir: { medium: Memory, sizeLimit: 8Mi } },";
    w.apply(&tools_pod("reader", &[tools("reader", &command, mounts, env)], volumes, "")).await?;
    w.pod("reader").await?;
    let log = async || w.cluster.api.text(&w.path("pods/reader/log")).await;
    let says = async |expected: &str| -> Check {
        eventually(&format!("the pod to say {expected:?}"), async || {
            let seen = log().await?;
            Ok(if seen.trim() == expected { Ok(()) } else { Err(seen) })
        })
        .await
    };
    says("blue|s3cret pass|level = 7|s3cret pass|tmpfs|tmpfs|1").await?;
    // emptyDir outlives its container, not its pod.
    w.cluster.kubectl(&["-n", &w.namespace, "exec", "reader", "--", "sh", "-c", "kill 1"]).await?;
    w.pod_until("reader", "started again", |p| p["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)).await?;
    says("blue|s3cret pass|level = 7|s3cret pass|tmpfs|tmpfs|2").await
}

/// The same names in two namespaces are two things; a namespace goes with everything in it.
pub async fn namespaces_keep_apart(w: &World<'_>) -> Check {
    let spaces = [format!("{}-red", w.namespace), format!("{}-blue", w.namespace)];
    for space in &spaces {
        w.cluster.api.namespace(space).await?;
        w.apply_in(space, &web_pod("web", "app: web", &format!("hostname: {space},"))).await?;
        w.apply_in(space, &web_service("web", "app: web", "")).await?;
    }
    w.apply(&web_pod("asker", "app: asker", "")).await?;
    w.pod("asker").await?;
    for space in &spaces {
        let path = format!("/api/v1/namespaces/{space}/pods/web");
        eventually(&format!("web in {space}"), async || {
            let pod = w.cluster.api.get(&path).await?;
            Ok(if crate::support::api::is_ready(&pod) { Ok(()) } else { Err(crate::support::api::describe_pod(&pod)) })
        })
        .await?;
        let seen = w.reaches("asker", &Call::http(&format!("web.{space}"), 80)).await?;
        ensure!(seen == [space.clone()], "web.{space} answers {seen:?}");
    }
    match w.dial("asker", &Call::http("web", 80)).await {
        Err(e) if e.to_string().contains("lookup web") => {}
        found => return Err(format!("the short name web is found from another namespace: {found:?}").into()),
    }

    w.cluster.api.delete(&format!("/api/v1/namespaces/{}", spaces[0])).await?;
    eventually("the namespace to be gone", async || {
        let there = w.cluster.api.exists(&format!("/api/v1/namespaces/{}", spaces[0])).await?;
        Ok(if there {
            Err(w.cluster.api.get(&format!("/api/v1/namespaces/{}", spaces[0])).await?["status"].to_string())
        } else {
            Ok(())
        })
    })
    .await?;
    let other = w.cluster.api.get(&format!("/api/v1/namespaces/{}/pods/web", spaces[1])).await?;
    ensure!(text(&other["status"]["phase"]) == "Running", "the other namespace's pod is {}", other["status"]);
    w.cluster.api.delete(&format!("/api/v1/namespaces/{}", spaces[1])).await?;
    Ok(())
}

/// A quota and a role hold inside their namespace only.
pub async fn a_service_account_may_what_its_role_says(w: &World<'_>) -> Check {
    w.apply("{ apiVersion: v1, kind: ServiceAccount, metadata: { name: reader } }").await?;
    w.apply("{ apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: { name: reader }, rules: [{ apiGroups: [\"\"], resources: [pods], verbs: [list] }] }").await?;
    w.apply(
        "{ apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: { name: reader }, subjects: [{ kind: ServiceAccount, name: reader }], \
         roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader } }",
    )
    .await?;
    let may = async |verb: &str, resource: &str, namespace: &str| -> Check<bool> {
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": format!("system:serviceaccount:{}:reader", w.namespace),
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": { "verb": verb, "resource": resource, "namespace": namespace } } });
        let answer = w.cluster.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
        Ok(answer["status"]["allowed"] == true)
    };
    eventually("the role to hold", async || {
        Ok(may("list", "pods", &w.namespace).await?.then_some(()).ok_or("not yet".to_owned()))
    })
    .await?;
    ensure!(!may("delete", "pods", &w.namespace).await?, "the reader may delete pods");
    ensure!(!may("list", "secrets", &w.namespace).await?, "the reader may list secrets");
    ensure!(!may("list", "pods", "kube-system").await?, "the reader may list another namespace's pods");
    Ok(())
}
