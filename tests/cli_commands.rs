//! What status, get, ssh, logs, kubectl and kubeconfig say to bad input, by the real program on a container engine that is played by
//! a script: no cluster, several, one that is not there, unknown and stopped machines, state that is elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use kup::pki::Pki;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Plays docker: lists what the directory it stands in says there is.
const DOCKER: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
dir=${0%/*}
case "$1 $2" in
  "version "*) echo 27.0.0 ;;
  "ps -a") cat "$dir/ids" ;;
  "container inspect") [ "$3" = --format ] && echo "exited, exit code 137" || cat "$dir/containers.json" ;;
  "logs --tail") echo "the last words of $4" ;;
esac
"#;

/// A user with an engine that holds these machines.
struct World {
    dir: TempDir,
}

impl World {
    fn with(machines: &[(&str, &str, bool)]) -> World {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let bin = world.path("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("docker"), DOCKER).unwrap();
        fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
        let containers: Vec<Value> = machines
            .iter()
            .enumerate()
            .map(|(i, (cluster, machine, running))| {
                let role = if machine.starts_with("master") { "master" } else { "minion" };
                json!({
                    "Name": format!("/{cluster}-{machine}"),
                    "State": { "Running": running },
                    "Config": { "Labels": {
                        "kup.dev/provider": "local", "kup.dev/cluster": cluster, "kup.dev/role": role, "kup.dev/bundle": "sent",
                        "kup.dev/address": format!("192.0.2.{}", i + 1), "kup.dev/host-key": "ssh-ed25519 AAAA",
                    } },
                })
            })
            .collect();
        let ids: String = (0..containers.len()).map(|i| format!("{i}\n")).collect();
        fs::write(bin.join("ids"), ids).unwrap();
        fs::write(bin.join("containers.json"), serde_json::to_vec(&containers).unwrap()).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leaves what `kup up` saves of a cluster.
    fn saved(&self, name: &str) {
        let dir = self.path("state/kup/local").join(name);
        fs::create_dir_all(dir.join("ssh")).unwrap();
        let config = json!({
            "apiVersion": "kup.dev/v1alpha1", "kind": "Cluster", "name": name, "provider": "local",
            "kubernetes": { "version": "1.37.1", "serviceNodePortRange": "30000-32767", "maxPods": 110 },
            "masters": { "count": 1 }, "minions": { "count": 1 },
            "network": { "pods": "10.244.0.0/16", "services": "10.0.0.0/16", "dns": "10.0.0.10", "domain": "cluster.local" },
            "local": { "engine": "auto", "subnet": "auto", "image": null, "bundle": "ssh", "sshKey": null },
        });
        fs::write(dir.join("cluster.yaml"), config.to_string()).unwrap();
        fs::write(dir.join("ssh/id_ed25519"), "no key").unwrap();
        Pki::open(&dir.join("pki")).unwrap();
    }

    /// What kup says and its exit code, without what differs from run to run.
    fn kup(&self, line: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_kup"))
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("KUP_ENGINE", "docker")
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let text = text.replace(&self.dir.path().display().to_string(), "HOME");
        format!("{}\nexit {}", text.trim_end(), output.status.code().unwrap_or(-1))
    }
}

const ALL: [&str; 6] = ["status", "get nodes", "ssh master-1", "logs", "kubectl -- get nodes", "kubeconfig"];

#[test]
fn without_a_cluster_each_says_so() {
    let world = World::with(&[]);
    for line in ALL {
        assert_eq!(world.kup(line), "error: there is no cluster\n  next: kup up makes one\nexit 1", "{line}");
    }
    assert_eq!(world.kup("get clusters"), "there is no cluster; kup up makes one\nexit 0");
    assert_eq!(world.kup("get clusters -o json"), "[]\nexit 0");
    assert!(!world.path("state").exists(), "looking makes nothing");
}

#[test]
fn among_several_each_asks_which() {
    let world = World::with(&[("one", "master-1", false), ("two", "master-1", false)]);
    for line in ALL {
        insta::allow_duplicates! {
            insta::assert_snapshot!(world.kup(line), @"");
        }
    }
    insta::assert_snapshot!(world.kup("get clusters"), @"");
}

#[test]
fn a_cluster_that_is_not_there_is_answered_with_those_that_are() {
    let world = World::with(&[("one", "master-1", false), ("two", "master-1", false)]);
    for line in ALL {
        let (command, rest) = line.split_once(" -- ").unwrap_or((line, ""));
        let rest = if rest.is_empty() { String::new() } else { format!(" -- {rest}") };
        insta::allow_duplicates! {
            insta::assert_snapshot!(world.kup(&format!("{command} --name tow{rest}")), @"");
        }
    }
    insta::assert_snapshot!(world.kup("status --name ../../etc"), @"");
}

#[test]
fn a_machine_that_is_not_there_is_answered_with_those_that_are() {
    let world = World::with(&[("one", "master-1", true), ("one", "minion-1", false)]);
    world.saved("one");
    insta::assert_snapshot!(world.kup("ssh mastre-1"), @"");
    insta::assert_snapshot!(world.kup("logs minion-2"), @"");
    insta::assert_snapshot!(world.kup("ssh -- ls"), @"");
}

#[test]
fn a_cluster_made_elsewhere_is_named_so() {
    let world = World::with(&[("one", "master-1", false)]);
    for line in ["status", "ssh one-master-1", "logs", "kubectl", "kubeconfig --print"] {
        let said = world.kup(line);
        assert!(said.ends_with("exit 1"), "{line}: {said}");
        if !line.starts_with("ssh") {
            insta::allow_duplicates! {
                insta::assert_snapshot!(said, @"");
            }
        }
    }
    assert!(world.kup("get nodes").starts_with("NAME"), "machines are listed all the same");
    assert!(!world.path("state/kup/local/one/pki").exists(), "no keys are made for a cluster of somebody else");
}

#[test]
fn stopped_machines_are_named_with_what_starts_them() {
    let world = World::with(&[("one", "master-1", false), ("one", "minion-1", false)]);
    world.saved("one");
    insta::assert_snapshot!(world.kup("status"), @"");
    insta::assert_snapshot!(world.kup("ssh minion-1"), @"");
    insta::assert_snapshot!(world.kup("logs minion-1"), @"");
    insta::assert_snapshot!(world.kup("get nodes"), @"");
}

#[test]
fn flags_are_checked_before_anything_is_asked() {
    let world = World::with(&[]);
    insta::assert_snapshot!(world.kup("logs --since yesterday"), @"");
    insta::assert_snapshot!(world.kup("logs --unit a;reboot"), @"");
    insta::assert_snapshot!(world.kup("logs --unit kubelet --archive x.tgz"), @"");
    insta::assert_snapshot!(world.kup("kubeconfig --merge --print"), @"");
    insta::assert_snapshot!(world.kup("get pods"), @"");
}

#[test]
fn an_archive_replaces_nothing_unasked() {
    let world = World::with(&[("one", "master-1", false)]);
    world.saved("one");
    fs::write(world.path("x.tgz"), "mine").unwrap();
    insta::assert_snapshot!(world.kup("logs --archive x.tgz"), @"");
    assert_eq!(fs::read_to_string(world.path("x.tgz")).unwrap(), "mine");
    assert!(world.kup("logs --archive x.tgz --force").ends_with("exit 0"));
    assert_eq!(fs::metadata(world.path("x.tgz")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(fs::read(world.path("x.tgz")).unwrap(), b"mine");
}

#[test]
fn a_missing_ssh_is_named_with_its_package() {
    let world = World::with(&[("one", "master-1", true), ("two", "master-1", true)]);
    world.saved("two");
    // A full name says which of several clusters is meant.
    insta::assert_snapshot!(world.kup("ssh two-master-1 -- true"), @"");
    let known = world.path("state/kup/local/two/ssh_known_hosts");
    assert_eq!(fs::read_to_string(known).unwrap(), "two-master-1 ssh-ed25519 AAAA\n");
}

#[test]
fn a_missing_bundle_is_named_with_what_gets_it() {
    let world = World::with(&[("one", "master-1", true)]);
    world.saved("one");
    insta::assert_snapshot!(world.kup("kubectl get nodes"), @"");
}
