//! The user's kubeconfig: merged and unmerged as kubectl would, with everything foreign untouched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kup::kubeconfig::{Access, Files, render};
use proptest::prelude::*;
use serde_yaml::Value;

const FOREIGN: &str = r#"apiVersion: v1
kind: Config
preferences: {colors: true}
current-context: other
clusters:
  - name: other
    cluster: {server: "https://example.com", insecure-skip-tls-verify: on, extensions: [{name: x, extension: {a: 1}}]}
contexts:
- context: {cluster: other, user: "on", namespace: "007"}
  name: other
users:
- name: "on"
  user:
    username: "yes"
    password: "1_000"
    token: '12:30:45'
    exec: {command: aws, args: [eks, "0o17"], env: null}
unknown: [1, 2.50, ~, "~"]
"#;

fn access() -> Access {
    Access {
        context: "local_demo".into(),
        server: "https://172.29.0.2:6443".into(),
        ca_pem: "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n".into(),
        cert_pem: "cert".into(),
        key_pem: "top secret".into(),
    }
}

fn value(path: &Path) -> Value {
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn files(dir: &tempfile::TempDir, names: &[&str]) -> (Files, Vec<PathBuf>) {
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
    (Files::new(paths.clone()).patience(Duration::ZERO), paths)
}

fn listed(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn entry<'a>(root: &'a Value, list: &str) -> Option<&'a Value> {
    root[list].as_sequence()?.iter().find(|item| item["name"] == "local_demo")
}

/// As kup sees a foreign file: without its own entries, the current context if it is kup's, and empty lists.
fn foreign(mut root: Value) -> Value {
    if let Value::Mapping(fields) = &mut root {
        for list in ["clusters", "contexts", "users"] {
            if let Some(Value::Sequence(items)) = fields.get_mut(list) {
                items.retain(|item| item["name"] != "local_demo");
            }
        }
        fields.retain(|key, value| match key.as_str() {
            Some("clusters" | "contexts" | "users") => !value.is_null() && value.as_sequence().is_none_or(|s| !s.is_empty()),
            Some("current-context") => !value.is_null() && value != "" && value != "local_demo",
            _ => true,
        });
    }
    root
}

#[test]
fn a_file_of_its_own_is_a_whole_kubeconfig() {
    let root: Value = serde_yaml::from_str(&render(&access())).unwrap();
    assert_eq!(
        (root["apiVersion"].as_str(), root["kind"].as_str(), root["current-context"].as_str()),
        (Some("v1"), Some("Config"), Some("local_demo"))
    );
    assert_eq!(root["clusters"][0]["cluster"]["server"], "https://172.29.0.2:6443");
    assert_eq!(root["users"][0]["user"]["client-key-data"], "dG9wIHNlY3JldA==");
    assert_eq!(root["contexts"][0]["context"]["user"], "local_demo");
    assert!(!format!("{:?}", access()).contains("secret"), "the key is in the debug output");
}

#[test]
fn the_first_merge_makes_a_private_file_in_a_private_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &[".kube/config"]);
    assert_eq!(files.merge(&access()).unwrap(), paths[0]);
    assert_eq!((mode(&paths[0]), mode(paths[0].parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), render(&access()));
    assert_eq!(listed(paths[0].parent().unwrap()), ["config"], "a lock or a temporary file is left");
    assert_eq!(files.unmerge("local_demo").unwrap(), Some(paths[0].clone()));
    let left = value(&paths[0]);
    assert_eq!(
        (left["kind"].as_str(), &left["clusters"], left["current-context"].as_str()),
        (Some("Config"), &Value::Sequence(vec![]), Some(""))
    );
    assert_eq!(files.unmerge("local_demo").unwrap(), None);
}

#[test]
fn foreign_content_is_untouched_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["config"]);
    fs::write(&paths[0], FOREIGN).unwrap();
    fs::set_permissions(&paths[0], fs::Permissions::from_mode(0o644)).unwrap();
    let before = value(&paths[0]);
    files.merge(&access()).unwrap();
    assert_eq!(mode(&paths[0]), 0o600, "others can read the key");
    let merged = value(&paths[0]);
    assert_eq!(merged["current-context"], "local_demo");
    for list in ["clusters", "contexts", "users"] {
        assert_eq!(merged[list][0], before[list][0]);
        assert!(entry(&merged, list).is_some());
    }
    // To readers of YAML 1.1, what was quoted was text and what was not was a truth value.
    let text = fs::read_to_string(&paths[0]).unwrap();
    for written in [
        "insecure-skip-tls-verify: on\n",
        "password: \"1_000\"\n",
        "token: \"12:30:45\"\n",
        "username: \"yes\"\n",
        "name: \"on\"\n",
        "- \"0o17\"\n",
    ] {
        assert!(text.contains(written), "{written} in\n{text}");
    }
    files.unmerge("local_demo").unwrap();
    let mut expected = before;
    expected["current-context"] = "".into();
    assert_eq!(value(&paths[0]), expected);
}

#[test]
fn merging_again_changes_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["config"]);
    files.merge(&access()).unwrap();
    let with_namespace = fs::read_to_string(&paths[0])
        .unwrap()
        .replace("    user: local_demo", "    user: local_demo\n    namespace: kube-system")
        + "# a comment\n";
    fs::write(&paths[0], &with_namespace).unwrap();
    let inode = fs::metadata(&paths[0]).unwrap().ino();
    files.merge(&access()).unwrap();
    assert_eq!(
        (fs::read_to_string(&paths[0]).unwrap(), fs::metadata(&paths[0]).unwrap().ino()),
        (with_namespace, inode),
        "rewritten for nothing"
    );
    files.merge(&Access { server: "https://172.29.1.2:6443".into(), ..access() }).unwrap();
    let root = value(&paths[0]);
    assert_eq!(root["clusters"].as_sequence().unwrap().len(), 1);
    assert_eq!(root["clusters"][0]["cluster"]["server"], "https://172.29.1.2:6443");
    assert_eq!(root["contexts"][0]["context"]["namespace"], "kube-system");
}

#[test]
fn another_current_context_stays_current() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["config"]);
    files.merge(&access()).unwrap();
    files.merge(&Access { context: "local_two".into(), ..access() }).unwrap();
    files.unmerge("local_demo").unwrap();
    let root = value(&paths[0]);
    assert_eq!(root["current-context"], "local_two");
    assert_eq!(root["users"].as_sequence().unwrap().len(), 1);
}

#[test]
fn a_list_of_files_follows_kubectls_rules() {
    // No file exists: the last one is made. One exists: it gets what is new. One defines an entry: that is where it changes.
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["one", "two", "three"]);
    assert_eq!(files.merge(&access()).unwrap(), paths[2]);
    assert_eq!(listed(dir.path()), ["three"]);
    fs::write(&paths[1], "current-context: else\n").unwrap();
    assert_eq!(files.merge(&Access { context: "local_two".into(), ..access() }).unwrap(), paths[1]);
    // The first that sets a current context decides.
    assert_eq!(
        (value(&paths[1])["current-context"].as_str(), value(&paths[2])["current-context"].as_str()),
        (Some("local_two"), Some("local_demo"))
    );
    assert_eq!(files.merge(&Access { server: "https://new".into(), ..access() }).unwrap(), paths[2]);
    assert_eq!(value(&paths[2])["clusters"][0]["cluster"]["server"], "https://new");
    assert!(entry(&value(&paths[1]), "clusters").is_none());
    assert_eq!(files.unmerge("local_two").unwrap(), Some(paths[1].clone()));
    assert_eq!(files.unmerge("local_demo").unwrap(), Some(paths[2].clone()));
    assert_eq!(listed(dir.path()), ["three", "two"]);
}

#[test]
fn a_symbolic_link_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dotfiles")).unwrap();
    for existing in [true, false] {
        let (files, paths) = files(&dir, &["config"]);
        let real = dir.path().join("dotfiles/config");
        let _ = fs::remove_file(&paths[0]);
        let _ = fs::remove_file(&real);
        symlink("dotfiles/config", &paths[0]).unwrap();
        if existing {
            fs::write(&real, FOREIGN).unwrap();
        }
        files.merge(&access()).unwrap();
        assert!(paths[0].is_symlink());
        assert!(entry(&value(&real), "users").is_some());
        files.unmerge("local_demo").unwrap();
        assert!(paths[0].is_symlink());
        assert!(entry(&value(&real), "users").is_none());
    }
}

#[test]
fn what_is_no_kubeconfig_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["config"]);
    let table: [(&[u8], &str); 12] = [
        (b"clusters: [local_demo", "no valid YAML"),
        (b"- local_demo\n", "a list"),
        (b"local_demo\n", "a single value"),
        (b"kind: Pod # local_demo\n", "line 1: its `kind`"),
        (b"clusters: {local_demo: {}}\n", "line 1: `clusters` is a block of fields"),
        (b"users:\n- local_demo\n", "line 2: an entry of `users` has no name"),
        (b"contexts: local_demo\n", "line 1: `contexts` is a single value"),
        (b"current-context: [local_demo]\n", "`current-context` is a list"),
        (b"a: 1\na: local_demo\n", "line 2: written twice"),
        (b"a: &x local_demo\nb: *x\n", "anchors"),
        (b"a: 1\n---\nb: local_demo\n", "second document"),
        (b"# local_demo \xff\n", "UTF-8"),
    ];
    for (text, why) in table {
        fs::write(&paths[0], text).unwrap();
        for error in [files.merge(&access()).unwrap_err(), files.unmerge("local_demo").unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains(why) && message.contains(paths[0].to_str().unwrap()), "{message}");
        }
        assert_eq!(fs::read(&paths[0]).unwrap(), text, "changed");
        assert_eq!(listed(dir.path()), ["config"]);
    }
    // What has nothing of kup's in it can't keep `down` from ending well.
    fs::write(&paths[0], "clusters: [").unwrap();
    assert_eq!(files.unmerge("local_demo").unwrap(), None);
    fs::remove_file(&paths[0]).unwrap();
    fs::create_dir(&paths[0]).unwrap();
    assert!(files.merge(&access()).unwrap_err().to_string().contains("not a regular file"));
    assert_eq!(files.unmerge("local_demo").unwrap(), None);
}

#[test]
fn nothing_is_written_if_one_of_the_files_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["good", "broken"]);
    fs::write(&paths[0], FOREIGN).unwrap();
    fs::write(&paths[1], "clusters: 1\n").unwrap();
    assert!(files.merge(&access()).unwrap_err().to_string().contains(paths[1].to_str().unwrap()));
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), FOREIGN);
}

#[test]
fn a_held_lock_is_named_and_respected() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["config"]);
    fs::write(&paths[0], FOREIGN).unwrap();
    let lock = dir.path().join("config.lock");
    fs::write(&lock, "").unwrap();
    let message = files.merge(&access()).unwrap_err().to_string();
    assert!(message.contains(&format!("rm '{}'", lock.display())), "{message}");
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), FOREIGN);
    assert!(lock.exists(), "somebody else's lock was removed");
    // Given back in time, it is only waited for.
    let patient = files.patience(Duration::from_secs(60));
    let waiter = std::thread::spawn(move || patient.merge(&access()));
    fs::remove_file(&lock).unwrap();
    waiter.join().unwrap().unwrap();
    assert_eq!(listed(dir.path()), ["config"]);
}

#[test]
fn many_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["config"]);
    let files = files.patience(Duration::from_secs(60));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let files = &files;
            scope.spawn(move || files.merge(&Access { context: format!("local_{n}"), ..access() }).unwrap());
        }
    });
    let root = value(&paths[0]);
    for list in ["clusters", "contexts", "users"] {
        assert_eq!(root[list].as_sequence().unwrap().len(), 8);
    }
}

/// The bundle's kubectl, where there is one.
fn kubectl() -> Option<PathBuf> {
    let bundles = kup::state::cache_dir().unwrap().join("bundles");
    let mut found: Vec<PathBuf> = fs::read_dir(bundles).ok()?.filter_map(|e| Some(e.ok()?.path().join("bin/kubectl"))).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop()
}

/// kubectl reads what kup wrote, changes it, and finds the same foreign content before and after. Needs a bundle; without one there is
/// nothing to compare with, and the test says so.
#[test]
fn kubectl_agrees() {
    let Some(kubectl) = kubectl() else {
        eprintln!("skipped: no bundle in the cache, so no kubectl");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (files, paths) = files(&dir, &["one", "two"]);
    let run = |arguments: &[&str]| {
        let list = std::env::join_paths(&paths).unwrap();
        let output = Command::new(&kubectl).env("KUBECONFIG", list).args(["config"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    fs::write(&paths[1], FOREIGN).unwrap();
    let view = || serde_json::from_str::<serde_json::Value>(&run(&["view", "--raw", "-o", "json"])).unwrap();
    let before = view();
    files.merge(&access()).unwrap();
    assert_eq!(run(&["current-context"]).trim(), "local_demo");
    assert!(run(&["get-contexts", "local_demo", "--no-headers"]).starts_with('*'));
    run(&["set-context", "--current", "--namespace=kube-system"]);
    // kubectl has rewritten the file in its own way.
    files.merge(&access()).unwrap();
    assert!(run(&["view", "--minify"]).contains("namespace: kube-system"));
    run(&["use-context", "other"]);
    files.unmerge("local_demo").unwrap();
    assert_eq!(view(), before);
    assert_eq!(listed(dir.path()), ["two"]);
}

fn yaml() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "(on|off|yes|n|0x1f|1_000|12:30|null|~|true|1e3|\\.nan|=|<<)".prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[a-z<=~ ]{1,6}", inner, 0..4)
                .prop_map(|m| m.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

fn kubeconfig() -> impl Strategy<Value = serde_json::Value> {
    let entries = |inner: &'static str| {
        let entry = ("(other|on|no|1|[a-z]{1,4})", yaml())
            .prop_map(move |(name, value)| serde_json::json!({ "name": name, inner: value }));
        proptest::option::of(proptest::collection::vec(entry, 0..3))
    };
    (
        entries("cluster"),
        entries("context"),
        entries("user"),
        proptest::option::of("[a-z]{0,5}"),
        proptest::collection::btree_map("x-[a-z]{1,5}", yaml(), 0..3),
    )
        .prop_map(|(clusters, contexts, users, current, others)| {
            let mut root: serde_json::Map<String, serde_json::Value> = others.into_iter().collect();
            root.insert("kind".into(), "Config".into());
            root.insert("apiVersion".into(), "v1".into());
            for (name, list) in [("clusters", clusters), ("contexts", contexts), ("users", users)] {
                root.extend(list.map(|list| (name.to_owned(), list.into())));
            }
            root.extend(current.map(|current| ("current-context".to_owned(), current.into())));
            root.into()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unmerge_undoes_merge(root in kubeconfig(), as_json in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let (files, paths) = files(&dir, &["config"]);
        let text = if as_json { serde_json::to_string(&root).unwrap() } else { serde_yaml::to_string(&root).unwrap() };
        // JSON may hold DEL and C1 characters as they are, which YAML may not, and others that are ends of lines to some readers of YAML.
        let odd = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
        prop_assume!(!text.contains(odd));
        fs::write(&paths[0], &text).unwrap();
        let before = value(&paths[0]);
        files.merge(&access()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let merged = value(&paths[0]);
        prop_assert_eq!(foreign(merged.clone()), { let mut b = foreign(before.clone()); if let Value::Mapping(m) = &mut b { m.remove("current-context"); } b });
        for list in ["clusters", "contexts", "users"] {
            prop_assert!(entry(&merged, list).is_some());
        }
        files.unmerge("local_demo").unwrap();
        prop_assert_eq!(foreign(value(&paths[0])), { let mut b = foreign(before); if let Value::Mapping(m) = &mut b { m.remove("current-context"); } b });
    }

    #[test]
    fn garbage_is_refused_or_kept(text in prop_oneof!["\\PC{0,80}", "([ \\-:{}\\[\\],&*!|>'\"%@#\n\ta-c0-9]|name|users|clusters){0,60}"]) {
        let dir = tempfile::tempdir().unwrap();
        let (files, paths) = files(&dir, &["config"]);
        fs::write(&paths[0], &text).unwrap();
        match files.merge(&access()) {
            Err(_) => prop_assert_eq!(fs::read_to_string(&paths[0]).unwrap(), text),
            Ok(_) => {
                files.unmerge("local_demo").unwrap();
                let after = value(&paths[0]);
                if let Ok(before @ Value::Mapping(_)) = serde_yaml::from_str::<Value>(&text) {
                    prop_assert_eq!(foreign(after), foreign(before));
                }
            }
        }
    }
}
