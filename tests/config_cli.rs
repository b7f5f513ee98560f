//! `kup config`, `completion`, `man` and `version` as users type them, by the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What the person who runs the tests has set must not count.
const OURS: [&str; 9] = [
    "KUP_FILE",
    "KUP_NAME",
    "KUP_PROVIDER",
    "KUP_KUBERNETES_VERSION",
    "KUP_MASTERS",
    "KUP_MINIONS",
    "KUP_REGION",
    "KUP_PROFILE",
    "KUP_ENGINE",
];

fn variables() -> impl Iterator<Item = &'static str> {
    OURS.into_iter().chain(kup::cluster::kube_up::names())
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kup"));
    for variable in variables() {
        command.env_remove(variable);
    }
    command
}

fn kup(directory: &Path, arguments: &[&str]) -> Output {
    command().current_dir(directory).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn messages_are_as_written_down() {
    let cases = trycmd::TestCases::new();
    for variable in variables() {
        cases.env(variable, "");
    }
    cases.env("HOME", "/home/you");
    cases.case("tests/cli/config/*.trycmd");
}

#[test]
fn init_writes_a_file_that_is_picked_up_and_never_overwrites_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config-default.yaml");
    assert!(kup(dir.path(), &["config", "init"]).status.success());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("# Who makes the machines."));
    fs::write(&file, text.replace("count: 4", "count: 2")).unwrap();
    let viewed = kup(dir.path(), &["config", "view"]);
    assert!(stdout(&viewed).contains("count: 2"));
    assert!(String::from_utf8_lossy(&viewed.stderr).contains("config-default.yaml"), "not said which file was used");

    let again = kup(dir.path(), &["config", "init"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(fs::read_to_string(&file).unwrap().contains("count: 2"));
    // Not through a link either, also if it leads nowhere yet.
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    assert_eq!(kup(dir.path(), &["config", "init", "link"]).status.code(), Some(2));
    assert!(!dir.path().join("nowhere").exists());

    assert!(kup(dir.path(), &["config", "init", "--force"]).status.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(kup(dir.path(), &["config", "init", "absent/x.yaml"]).status.code(), Some(1));
    assert_eq!(kup(dir.path(), &["config", "init", "--force", "."]).status.code(), Some(2));
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["config-default.yaml", "link"]);
}

#[test]
fn a_config_may_come_from_standard_input() {
    use std::io::Write;
    use std::process::Stdio;
    let mut child =
        command().args(["config", "view", "-f", "-", "-o", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"name: piped\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(stdout(&output)).unwrap()["name"], "piped");
}

#[test]
fn schema_version_completion_and_manual_pages_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let json = |arguments: &[&str]| serde_json::from_str::<serde_json::Value>(stdout(&kup(dir.path(), arguments))).unwrap();
    assert_eq!(json(&["config", "schema"])["properties"]["network"]["properties"]["pods"]["default"], "10.244.0.0/16");
    let version = json(&["version", "-o", "json"]);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let default = version["kubernetes"]["default"].as_str().unwrap();
    assert!(version["kubernetes"]["releases"][default]["etcd"]["version"].is_string());
    assert!(stdout(&kup(dir.path(), &["version"])).contains(&format!("Kubernetes {default} (default)")));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = kup(dir.path(), &["completion", shell]);
        let script = stdout(&output);
        assert!(script.contains("config") && script.contains("validate") && script.contains("origin"), "{shell}");
    }
    // The shell itself accepts it.
    fs::write(dir.path().join("kup.bash"), stdout(&kup(dir.path(), &["completion", "bash"]))).unwrap();
    assert!(Command::new("bash").arg("-n").arg(dir.path().join("kup.bash")).status().unwrap().success());
    assert!(stdout(&kup(dir.path(), &["man"])).contains(".SH NAME"));
    assert!(kup(dir.path(), &["man", "--dir", "pages/man1"]).status.success());
    let page = fs::read_to_string(dir.path().join("pages/man1/kup-config-view.1")).unwrap();
    assert!(page.contains("KUP_MINIONS"));
}
