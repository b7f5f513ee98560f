//! The cluster's API as the tests use it: plain JSON, so that what is asserted is what the server said.

use kube::Client;
use serde_json::{Value, json};

use super::{Check, eventually};

/// A client of the API.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    pub fn new(client: Client) -> Api {
        Api { client }
    }

    async fn request(&self, method: &str, path: &str, content: Option<&str>, body: &Value) -> Check<Value> {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(content) = content {
            request = request.header("Content-Type", content);
        }
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        self.client.request(request.body(body)?).await.map_err(|e| format!("{method} {path}: {e}").into())
    }

    pub async fn get(&self, path: &str) -> Check<Value> {
        self.request("GET", path, None, &Value::Null).await
    }

    /// The text of a path, for what isn't JSON.
    pub async fn text(&self, path: &str) -> Check<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        self.client.request_text(request).await.map_err(|e| format!("GET {path}: {e}").into())
    }

    /// The code and message with which the server refused to make this, or `None` if it made it.
    pub async fn refusal(&self, path: &str, object: &Value) -> Check<Option<(u16, String)>> {
        let request = http::Request::post(path).header("Content-Type", "application/json").body(serde_json::to_vec(object)?)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) => Ok(Some((status.code, status.message))),
            Err(e) => Err(e.into()),
        }
    }

    pub async fn post(&self, path: &str, object: &Value) -> Check<Value> {
        self.request("POST", path, Some("application/json"), object).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Check<Value> {
        self.request("PATCH", path, Some("application/merge-patch+json"), patch).await
    }

    pub async fn delete(&self, path: &str) -> Check<Value> {
        self.request("DELETE", path, None, &Value::Null).await
    }

    /// Whether the object is there.
    pub async fn exists(&self, path: &str) -> Check<bool> {
        match self.client.request::<Value>(http::Request::get(path).body(Vec::new())?).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The items of a list.
    pub async fn list(&self, path: &str) -> Check<Vec<Value>> {
        Ok(self.get(path).await?["items"].as_array().cloned().unwrap_or_default())
    }

    /// Server-side apply of one object into a namespace.
    pub async fn apply(&self, namespace: &str, object: &Value) -> Check<Value> {
        let path = format!("{}/{}", collection(namespace, object)?, text(&object["metadata"]["name"]));
        self.request("PATCH", &format!("{path}?fieldManager=story&force=true"), Some("application/apply-patch+yaml"), object)
            .await
    }

    /// Makes a namespace that pods can be made in.
    pub async fn namespace(&self, name: &str) -> Check {
        self.post("/api/v1/namespaces", &json!({ "metadata": { "name": name } })).await?;
        eventually("the namespace's service account", async || {
            let there = self.exists(&format!("/api/v1/namespaces/{name}/serviceaccounts/default")).await?;
            Ok(there.then_some(()).ok_or_else(|| "it is not there".to_owned()))
        })
        .await
    }

    /// What a reader wants to know of a namespace when something in it went wrong: its pods and its last events.
    pub async fn describe(&self, namespace: &str) -> Check<String> {
        let mut out = String::new();
        for pod in self.list(&format!("/api/v1/namespaces/{namespace}/pods")).await? {
            out.push_str(&format!("  {}\n", describe_pod(&pod)));
        }
        let mut events = self.list(&format!("/api/v1/namespaces/{namespace}/events")).await?;
        events.sort_by_key(|e| text(&e["lastTimestamp"]));
        for event in events.iter().rev().take(12).rev() {
            let object = &event["involvedObject"];
            out.push_str(&format!(
                "  {} {}: {}: {}\n",
                text(&object["kind"]),
                text(&object["name"]),
                text(&event["reason"]),
                text(&event["message"])
            ));
        }
        Ok(out)
    }
}

/// The path of the collection that an object belongs to. Of the kinds used here every one's plural is regular.
fn collection(namespace: &str, object: &Value) -> Check<String> {
    let version = object["apiVersion"].as_str().ok_or("the manifest has no apiVersion")?;
    let kind = object["kind"].as_str().ok_or("the manifest has no kind")?.to_lowercase();
    let root = if version.contains('/') { "apis" } else { "api" };
    Ok(format!("/{root}/{version}/namespaces/{namespace}/{kind}s"))
}

/// A JSON string's text; empty if it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A pod in one line: where it is, what it does, and why not.
pub fn describe_pod(pod: &Value) -> String {
    let status = &pod["status"];
    let reasons: Vec<String> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| c["status"] != "True")
        .map(|c| format!("{} {} {}", text(&c["type"]), text(&c["reason"]), text(&c["message"])))
        .collect();
    let states: Vec<String> = status["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| format!("{} restarts {} state {} last {}", text(&c["name"]), c["restartCount"], c["state"], c["lastState"]))
        .collect();
    format!(
        "pod {} on {:?} phase {} ip {}{}: {}; {}",
        text(&pod["metadata"]["name"]),
        text(&pod["spec"]["nodeName"]),
        text(&status["phase"]),
        text(&status["podIP"]),
        if pod["metadata"]["deletionTimestamp"].is_string() { " (being deleted)" } else { "" },
        states.join(", "),
        reasons.join(", "),
    )
}

/// Whether a pod is Ready and not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// An object's name.
pub fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}
