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

    /// Leaves what `kup up` notes of a cluster on AWS.
    fn noted(&self, name: &str) {
        let dir = self.path("state/kup/aws").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("login.json"), r#"{"region":"eu-west-1","profile":null}"#).unwrap();
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
            // Whoever asks AWS here is told at once that nobody answers.
            .envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_EC2_METADATA_DISABLED", "true")])
            .envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")])
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let text = text.replace(&self.dir.path().display().to_string(), "HOME");
        // Notes begin with the time since the start.
        let timeless = |line: &str| {
            if line.starts_with('[') && line.contains("s] ") {
                line.split_once("s] ").unwrap().1.to_owned()
            } else {
                line.to_owned()
            }
        };
        let text = text.lines().map(timeless).collect::<Vec<_>>().join("\n");
        format!("{}\nexit {}", text.trim_end(), output.status.code().unwrap_or(-1))
    }
}

const ALL: [&str; 7] = ["status", "get nodes", "graph c.svg", "ssh master-1", "logs", "kubectl -- get nodes", "kubeconfig"];

#[test]
fn without_a_cluster_each_says_so() {
    let world = World::with(&[]);
    for line in ALL {
        let (command, rest) = line.split_at(line.find(' ').filter(|_| !line.starts_with("get ")).unwrap_or(line.len()));
        let there = format!("`kup {command} --provider aws{rest}` looks on AWS");
        let said = format!("error: there is no cluster on this machine\n  next: {there}\n  next: `kup up` makes one\nexit 1");
        assert_eq!(world.kup(line), said, "{line}");
    }
    insta::assert_snapshot!(world.kup("down"), @"
    There is no cluster on this machine; `kup down --provider aws` looks on AWS.
    exit 0
    ");
    assert_eq!(
        world.kup("get clusters"),
        "note    there is no cluster; `kup get clusters --provider aws` lists those on AWS; `kup up` makes one\nexit 0"
    );
    assert_eq!(world.kup("get clusters -o json"), "[]\nexit 0");
    assert!(!world.path("state").exists(), "looking makes nothing");
}

#[test]
fn the_only_cluster_known_of_on_aws_is_meant_where_there_is_none_here() {
    let world = World::with(&[]);
    world.noted("there");
    insta::assert_snapshot!(world.kup("status"), @"
    note    cluster there on AWS (eu-west-1) is meant: there is none on this machine
    error: http://127.0.0.1:1, which is to be called in place of AWS, does not answer
      because: dispatch failure: io error: client error (Connect): tcp connect error: Connection refused (os error 111)
      next: start what is to answer there; or `unset AWS_ENDPOINT_URL` (or endpoint_url of the profile), to call AWS itself
    exit 1
    ");
    let named = world.kup("logs --name there");
    assert!(named.contains("cluster there on AWS (eu-west-1) is meant") && named.contains("http://127.0.0.1:1"), "{named}");
    // What can't be undone is never guessed.
    insta::assert_snapshot!(world.kup("down -y"), @"
    error: there is no cluster on this machine
      because: on AWS this machine knows of there
      next: `kup down --provider aws --region eu-west-1 --name there -y` means cluster there on AWS
    exit 2
    ");
    insta::assert_snapshot!(world.kup("etcd restore latest -y --name there"), @"
    error: there is no cluster there on this machine
      because: on AWS this machine knows of there
      next: `kup etcd restore --provider aws --region eu-west-1 latest -y --name there` means cluster there on AWS
    exit 2
    ");
    insta::assert_snapshot!(world.kup("addons disable metrics-server"), @"
    error: there is no cluster on this machine
      because: on AWS this machine knows of there
      next: `kup addons disable --provider aws --region eu-west-1 --name there metrics-server` means cluster there on AWS
    exit 2
    ");
    insta::assert_snapshot!(world.kup("get clusters"), @"
    note    there is no cluster; `kup up` makes one
    note    on AWS this machine knows of there; `kup get clusters --provider aws --region eu-west-1` lists those there are
    exit 0
    ");
    // Others are not.
    for line in ["status --provider local", "status --name other", "ssh master-1 --name other"] {
        let said = world.kup(line);
        assert!(!said.contains("meant") && !said.contains("127.0.0.1"), "{line}: {said}");
    }
    fs::write(world.path("config-default.yaml"), "apiVersion: kup.dev/v1alpha1\nkind: Cluster\nprovider: local\n").unwrap();
    assert!(!world.kup("status").contains("127.0.0.1"), "a config means its provider");
}

#[test]
fn what_is_here_comes_first_and_of_several_elsewhere_none_is_taken() {
    let world = World::with(&[("one", "master-1", false)]);
    world.saved("one");
    world.noted("there");
    assert!(world.kup("status").starts_with("Cluster one (local"), "{}", world.kup("status"));
    let world = World::with(&[]);
    world.noted("there");
    // Somebody else's context may have such a name: nobody is asked about it unasked.
    fs::create_dir(world.path(".kube")).unwrap();
    let config = json!({ "contexts": [{ "name": "aws_prod", "context": {} }, { "name": "other", "context": {} }] });
    fs::write(world.path(".kube/config"), config.to_string()).unwrap();
    assert!(world.kup("status").contains("cluster there on AWS (eu-west-1) is meant"), "{}", world.kup("status"));
    world.noted("elsewhere");
    insta::assert_snapshot!(world.kup("status"), @"
    error: there is no cluster on this machine
      because: on AWS this machine knows of elsewhere, there
      next: `kup status --provider aws --region eu-west-1 --name elsewhere` means cluster elsewhere on AWS
      next: `kup status --provider aws --region eu-west-1 --name there` means cluster there on AWS
    exit 2
    ");
    insta::assert_snapshot!(world.kup("kubectl --name prod -- get nodes"), @"
    error: there is no cluster prod on this machine
      because: on AWS this machine knows of prod
      next: `kup kubectl --provider aws --name prod -- get nodes` means cluster prod on AWS
    exit 2
    ");
}

#[test]
fn what_aws_needs_to_be_asked_is_named_by_flags_that_there_are() {
    let world = World::with(&[]);
    for line in ["status --provider aws", "etcd list --provider aws", "gc", "get clusters --provider aws", "up --provider aws"] {
        let said = world.kup(line);
        let flag = "next: add --region us-west-2, or write aws.region into the config";
        assert!(said.contains("no AWS region is set") && said.contains(flag), "{line}: {said}");
        let said = world.kup(&format!("{line} --region us-west-2"));
        let does = "error: http://127.0.0.1:1, which is to be called in place of AWS, does not answer";
        assert!(said.contains(does) && !said.contains("sso") && said.ends_with("exit 1"), "{line}: {said}");
    }
    insta::assert_snapshot!(world.kup("gc --provider local"), @"
    error: kup gc looks on AWS only
      because: on this host nothing is left that `kup get clusters --provider local` does not list, with machines or without
      next: `kup down --provider local --name NAME` removes what is left of one
    exit 2
    ");
}

#[test]
fn graph_draws_what_it_can_ask_into_pictures_alone() {
    let world = World::with(&[("one", "master-1", false), ("one", "minion-1", false)]);
    world.saved("one");
    insta::assert_snapshot!(world.kup("graph --name one one.svg"), @"
    one.svg: cluster one, 2 machines
    warning the API can't be asked: no master runs
    exit 0
    ");
    let picture = fs::read_to_string(world.path("one.svg")).unwrap();
    for word in ["192.0.2.1", "192.0.2.2", "master-1", "minion-1", "stopped", "can't be asked"] {
        assert!(picture.contains(word), "{word}: {picture}");
    }
    fs::write(world.path("precious.yaml"), "mine").unwrap();
    for line in ["graph --name one precious.yaml", "graph --name one no/such/c.svg", "up --name one --timeline precious.yaml"] {
        assert!(world.kup(line).ends_with("exit 2"), "{line}");
    }
    assert_eq!(fs::read_to_string(world.path("precious.yaml")).unwrap(), "mine");
}

#[test]
fn among_several_each_asks_which() {
    let world = World::with(&[("one", "master-1", false), ("two", "master-1", false)]);
    for line in ALL {
        insta::allow_duplicates! {
            insta::assert_snapshot!(world.kup(line), @r"
            error: there are several clusters; say which one is meant
              because: one
                       two
              next: add --name, for example --name one
              next: a config-default.yaml in the working directory names one too
            exit 2
            ");
        }
    }
    insta::assert_snapshot!(world.kup("get clusters"), @r"
    NAME  PROVIDER  VERSION  MACHINES     CONTEXT
    one   local     unknown  0/1 running  local_one
    two   local     unknown  0/1 running  local_two
    exit 0
    ");
}

#[test]
fn a_cluster_that_is_not_there_is_answered_with_those_that_are() {
    let world = World::with(&[("one", "master-1", false), ("two", "master-1", false)]);
    for line in ALL {
        let (command, rest) = line.split_once(" -- ").unwrap_or((line, ""));
        let rest = if rest.is_empty() { String::new() } else { format!(" -- {rest}") };
        insta::allow_duplicates! {
            insta::assert_snapshot!(world.kup(&format!("{command} --name tow{rest}")), @r"
            error: there is no cluster `tow` of the provider local
              because: the clusters there are: one, two
              next: did you mean --name two?
              next: `kup up --name tow` makes one
            exit 2
            ");
        }
    }
    insta::assert_snapshot!(world.kup("status --name ../../etc"), @r"
    error: flag --name: name: `../../etc` has the character `.`
      next: use lower-case letters, digits and hyphens, for example `etc`
    exit 2
    ");
}

#[test]
fn a_machine_that_is_not_there_is_answered_with_those_that_are() {
    let world = World::with(&[("one", "master-1", true), ("one", "minion-1", false)]);
    world.saved("one");
    insta::assert_snapshot!(world.kup("ssh mastre-1"), @r"
    error: cluster one has no machine `mastre-1`
      because: its machines are master-1, minion-1
      next: did you mean master-1?
    exit 2
    ");
    insta::assert_snapshot!(world.kup("logs minion-2"), @r"
    error: cluster one has no machine `minion-2`
      because: its machines are master-1, minion-1
      next: did you mean minion-1?
    exit 2
    ");
    insta::assert_snapshot!(world.kup("ssh -- ls"), @r"
    error: the following required arguments were not provided:
      <NODE>

    Usage: kup ssh <NODE> -- <CMD>...

    For more information, try '--help'.
    exit 2
    ");
}

#[test]
fn a_cluster_made_elsewhere_is_named_so() {
    let world = World::with(&[("one", "master-1", false)]);
    for line in ["status", "ssh one-master-1", "logs", "kubectl", "kubeconfig --print"] {
        let said = world.kup(line);
        assert!(said.ends_with("exit 1"), "{line}: {said}");
        if !line.starts_with("ssh") {
            insta::allow_duplicates! {
                insta::assert_snapshot!(said, @r"
                error: nothing is known here of a cluster one of the provider local
                  because: there is no HOME/state/kup/local/one/cluster.yaml
                  next: `kup get clusters` lists the clusters there are; `kup up` makes one
                exit 1
                ");
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
    insta::assert_snapshot!(world.kup("status"), @r"
    Cluster one (local, Kubernetes 1.37.1) is not well.

    MACHINE   ADDRESS    UNITS    NODE     DISK  CERTIFICATES UNTIL
    master-1  192.0.2.1  stopped  unknown  -     -
    minion-1  192.0.2.2  stopped  unknown  -     -

    kup-hosts 0/2, kup-host 0/2, containerd 0/2, etcd 0/1, kube-apiserver 0/1,
    kube-controller-manager 0/1, kube-scheduler 0/1, kubelet 0/2, flanneld 0/2,
    kube-proxy 0/2, API 0/1, nodes 0/2

    ✗ machine one-master-1 is stopped
      next: `kup up --name one` starts it

    ✗ machine one-minion-1 is stopped
      next: `kup up --name one` starts it

    ✗ the API can't be asked: no master runs
      next: `kup up --name one` starts it
    error: cluster one is not well
      because: machine one-master-1 is stopped
               machine one-minion-1 is stopped
               the API can't be asked: no master runs
    exit 3
    ");
    insta::assert_snapshot!(world.kup("ssh minion-1"), @r"
    error: machine one-minion-1 is stopped
      next: `kup up --name one` starts it
    exit 1
    ");
    insta::assert_snapshot!(world.kup("logs minion-1"), @r"
    minion-1/console: machine one-minion-1 is stopped
    minion-1/console: container one-minion-1: exited, exit code 137
    minion-1/console: the last words of one-minion-1
    error: minion-1 could not be asked for its journals
      next: `kup status` shows every part
    exit 1
    ");
    insta::assert_snapshot!(world.kup("get nodes"), @r"
    NAME          ROLE    ADDRESS    MACHINE  NODE     VERSION
    one-master-1  master  192.0.2.1  stopped  unknown  -
    one-minion-1  minion  192.0.2.2  stopped  unknown  -
    warning the API can't be asked: no master runs
    exit 0
    ");
}

#[test]
fn flags_are_checked_before_anything_is_asked() {
    let world = World::with(&[]);
    insta::assert_snapshot!(world.kup("logs --since yesterday"), @r"
    error: invalid value 'yesterday' for '--since <TIME>': write a number and s, m, h or d, like 90s, 30m, 2h or 7d

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(world.kup("logs --unit a;reboot"), @r"
    error: invalid value 'a;reboot' for '--unit <UNIT>': that is no unit's name; write it like kubelet or kubelet.service

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(world.kup("logs --unit kubelet --archive x.tgz"), @r"
    error: the argument '--unit <UNIT>' cannot be used with '--archive <FILE>'

    Usage: kup logs --unit <UNIT> [NODES]...

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(world.kup("kubeconfig --merge --print"), @r"
    error: the argument '--merge' cannot be used with '--print'

    Usage: kup kubeconfig --merge

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(world.kup("get pods"), @r"
    error: unrecognized subcommand 'pods'

      tip: a similar subcommand exists: 'nodes'

    Usage: kup get [OPTIONS] <COMMAND>

    For more information, try '--help'.
    exit 2
    ");
}

#[test]
fn an_archive_replaces_nothing_unasked() {
    let world = World::with(&[("one", "master-1", false)]);
    world.saved("one");
    fs::write(world.path("x.tgz"), "mine").unwrap();
    insta::assert_snapshot!(world.kup("logs --archive x.tgz"), @r"
    error: cannot write x.tgz
      because: it exists already
      next: name another file, or replace it with --force
    exit 2
    ");
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
    insta::assert_snapshot!(world.kup("ssh two-master-1 -- true"), @r"
    error: cannot run ssh
      because: No such file or directory (os error 2)
      next: it is in the package openssh-client: apt install openssh-client
    exit 1
    ");
    let known = world.path("state/kup/local/two/ssh_known_hosts");
    assert_eq!(fs::read_to_string(known).unwrap(), "two-master-1 ssh-ed25519 AAAA\n");
}

#[test]
fn a_missing_bundle_is_named_with_what_gets_it() {
    let world = World::with(&[("one", "master-1", true)]);
    world.saved("one");
    insta::assert_snapshot!(world.kup("kubectl get nodes"), @r"
    error: the bundle of Kubernetes 1.37.1, which holds its kubectl, is not in the cache
      next: `kup bundle build --version 1.37.1` or `kup bundle fetch --version 1.37.1` gets it
    exit 1
    ");
}
