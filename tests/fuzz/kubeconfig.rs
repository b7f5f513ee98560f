//! Kubeconfigs of users: one that is not understood is left byte for byte as it was, and named; in all others nothing but kup's own entries
//! changes, and what was merged can be removed again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kup::kubeconfig::{Access, Files};
use proptest::sample::select;
use serde_yaml::{Mapping, Value};

use crate::engine::{self, Outcome};
use crate::holds;
use crate::mutation::{Change, Style, any_change, changed, hostile, style};

const OURS: &str = "local_demo";
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// Kubeconfigs as kubectl, its plugins and people write them.
static CORPUS: [&str; 4] = [
    "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: LS0t\n    server: https://10.0.0.1:6443\n  name: other\n- cluster: {server: \"https://[::1]:6443\", insecure-skip-tls-verify: on}\n  name: \"on\"\ncontexts:\n- context:\n    cluster: other\n    namespace: 1_000\n    user: other\n  name: other\ncurrent-context: other\npreferences: {colors: true}\nusers:\n- name: other\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      args: [--region, us-west-2, eks, get-token, \"0o17\"]\n      command: aws\n      env:\n      - {name: AWS_PROFILE, value: \"12:30:45\"}\n      interactiveMode: IfAvailable\n",
    "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    server: https://172.29.0.11:6443\n  name: local_demo\ncontexts:\n- context:\n    cluster: local_demo\n    namespace: kube-system\n    user: local_demo\n  name: local_demo\ncurrent-context: local_demo\nusers:\n- name: local_demo\n  user:\n    token: abc\n- name: other\n  user: {username: \"yes\", password: \"1e3\"}\nextensions: [{name: x, extension: {a: [1, 2.5, null, ~, -0, .inf, 0x1f]}}]\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"Config\", \"clusters\": [{\"name\": \"a\", \"cluster\": {\"server\": \"https://a\\u00e9\"}}], \"contexts\": null, \"users\": [], \"current-context\": \"\"}",
    "# a comment\nusers:\n- user: &x\n    token: a\n  name: a\n- {name: b, user: *x}\ncurrent-context: >-\n  folded\n  text\nclusters: []\n",
];

/// Kubeconfigs that were not left as they were, or not understood rightly.
const REGRESSIONS: [&str; 10] = [
    "",
    "local_demo",
    "current-context: local_demo\ncontexts:\n- name: local_demo\n- name: local_demo\n",
    "\u{feff}apiVersion: v1\nkind: Config\n",
    "clusters:\n- name: ~\n  cluster: {}\n",
    "contexts:\n- name: local_demo\n  context: [1]\nusers: ~\nclusters:\n",
    "? a\n: b\n",
    // Two lines are one name to some readers, and nothing to others.
    "{\"a\": 1, \"|\nkind\": \"local_demo\"}\n",
    // Nothing to some readers, an empty line to others.
    "users:\n- name: a\n  user:\n    token:\n    - |2\n\n",
    // An end of a line to readers of YAML 1.1, a character to others.
    "clusters:\n- cluster: {a: \u{2028} b}\n  name: other\n",
];

fn access() -> Access {
    Access {
        context: OURS.into(),
        server: "https://172.29.0.11:6443".into(),
        ca_pem: "CERTIFICATE".into(),
        cert_pem: "CERTIFICATE".into(),
        key_pem: "KEY".into(),
    }
}

/// All of it that is not kup's, by the eyes of another reader.
fn foreign(value: &Value) -> Value {
    let mut root = match value {
        Value::Mapping(root) => root.clone(),
        _ => Mapping::new(),
    };
    for list in LISTS {
        let ours = |item: &Value| item.get("name").and_then(Value::as_str) == Some(OURS);
        let rest: Vec<Value> =
            root.get(list).and_then(Value::as_sequence).into_iter().flatten().filter(|i| !ours(i)).cloned().collect();
        if rest.is_empty() {
            root.remove(list);
        } else {
            root.insert(list.into(), rest.into());
        }
    }
    for own in ["current-context", "apiVersion", "kind"] {
        root.remove(own);
    }
    Value::Mapping(root)
}

fn parsed(bytes: &[u8]) -> Result<Value, String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_yaml::from_slice(bytes).map_err(|e| format!("another reader does not read it: {e}"))
}

fn case(path: &Path, bytes: &[u8]) -> Outcome {
    let shown = || format!("of\n{}", String::from_utf8_lossy(bytes).chars().take(3000).collect::<String>());
    merged_and_removed(path, bytes).map_err(|why| format!("{why}\n{}", shown()))?;
    // What is removed at once, as by `kup down` in another shell.
    fs::write(path, bytes).map_err(|e| e.to_string())?;
    let removed = files(path).unmerge(OURS);
    let after = fs::read(path).map_err(|e| e.to_string())?;
    match removed {
        Err(error) => holds!(after == bytes && names(&error, path), "not as it was, or not named: {error}\n{}", shown()),
        Ok(None) => holds!(after == bytes, "changed, though nothing was removed\n{}", shown()),
        Ok(Some(_)) => {
            let now = parsed(&after).map_err(|why| format!("{why}\n{}", shown()))?;
            holds!(parsed(bytes).is_ok_and(|before| foreign(&before) == foreign(&now)), "other entries changed\n{}", shown());
            holds!(gone(&now), "it is still there\n{}", shown());
        }
    }
    let left: Vec<_> = fs::read_dir(path.parent().unwrap_or(path)).map_err(|e| e.to_string())?.flatten().collect();
    holds!(left.len() == 1, "more files than the kubeconfig: {left:?}");
    Ok(())
}

fn files(path: &Path) -> Files {
    Files::new(vec![path.to_owned()]).patience(Duration::ZERO)
}

fn names(error: &kup::error::Error, path: &Path) -> bool {
    let text = error.to_string();
    text.contains(&path.display().to_string()) && !error.hints.is_empty() && !engine::is_obeyed(&text)
}

fn gone(value: &Value) -> bool {
    LISTS.iter().all(|list| {
        let items = value.get(*list).and_then(Value::as_sequence).into_iter().flatten();
        items.filter_map(|item| item.get("name").and_then(Value::as_str)).all(|name| name != OURS)
    }) && value.get("current-context").and_then(Value::as_str) != Some(OURS)
}

fn merged_and_removed(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes).map_err(|e| e.to_string())?;
    let outcome = files(path).merge(&access());
    let merged = fs::read(path).map_err(|e| e.to_string())?;
    if let Err(error) = outcome {
        holds!(merged == bytes, "refused, and changed all the same: {error}");
        holds!(names(&error, path), "it is not named, or no way out: {error}");
        return Ok(());
    }
    let (before, now) = (parsed(bytes)?, parsed(&merged)?);
    holds!(foreign(&before) == foreign(&now), "other entries changed:\n{}", String::from_utf8_lossy(&merged));
    holds!(now.get("current-context").and_then(Value::as_str) == Some(OURS), "it is not current");
    for (list, field) in [("clusters", "cluster"), ("contexts", "context"), ("users", "user")] {
        let items = now.get(list).and_then(Value::as_sequence).into_iter().flatten();
        let ours: Vec<&Value> = items.filter(|item| item.get("name").and_then(Value::as_str) == Some(OURS)).collect();
        holds!(
            ours.len() == 1 && ours[0].get(field).is_some_and(Value::is_mapping),
            "{} entries of {list}: {ours:?}",
            ours.len()
        );
    }
    files(path).merge(&access()).map_err(|e| format!("a second time it is refused: {e}"))?;
    holds!(fs::read(path).map_err(|e| e.to_string())? == merged, "a second time changes it");
    files(path).unmerge(OURS).map_err(|e| format!("what was merged can't be removed: {e}"))?;
    let after = parsed(&fs::read(path).map_err(|e| e.to_string())?)?;
    holds!(foreign(&before) == foreign(&after) && gone(&after), "not as before: {after:?}");
    Ok(())
}

#[test]
fn what_was_wrong_once_is_right() {
    let dir = tempfile::tempdir().unwrap();
    for text in REGRESSIONS.into_iter().chain(CORPUS) {
        case(&dir.path().join("config"), text.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn any_kubeconfig_is_left_as_it_was_or_keeps_what_is_not_kups() {
    let dir = tempfile::tempdir().unwrap();
    let cases = (select(&CORPUS[..]), proptest::collection::vec(any_change(), 1..5), style());
    engine::run("kubeconfig", 250, cases, |(text, changes, style): (&str, Vec<Change>, Style)| {
        case(&dir.path().join("config"), &changed(text, &changes, style))
    });
}

#[test]
fn what_kup_writes_is_read_by_others_whatever_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let cases = (hostile(), hostile(), hostile());
    engine::run("kubeconfig's words", 100, cases, |(context, server, pem): (String, String, String)| {
        let access =
            Access { context: context.clone(), server: server.clone(), ca_pem: pem.clone(), cert_pem: pem.clone(), key_pem: pem };
        let path = dir.path().join("config");
        fs::write(&path, CORPUS[0]).map_err(|e| e.to_string())?;
        files(&path).merge(&access).map_err(|e| e.to_string())?;
        let now = parsed(&fs::read(&path).map_err(|e| e.to_string())?)?;
        let mut items = now.get("clusters").and_then(Value::as_sequence).into_iter().flatten();
        let ours = items.rfind(|item| item.get("name").and_then(Value::as_str) == Some(&context));
        let said = ours.and_then(|item| item.get("cluster")?.get("server")).and_then(Value::as_str);
        holds!(said == Some(&server), "it says {said:?}");
        Ok(())
    });
}
