//! SSH over a bad line: delayed, stalling, cut at any byte. What arrives is whole or does not count, and the next try goes through.
//!
//! The server is a process of this test's; what it is sent lands in directories that only that process sees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/sshd.rs"]
mod sshd;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kup::backup::take::Receiver;
use kup::bundle::manifest::{File as BundleFile, Origin, Role as Part};
use kup::bundle::{Arch, Bundle, Manifest};
use kup::error::Result;
use kup::machine::Role;
use kup::machine::files::{File, FileKind};
use kup::machine::place::place;
use kup::machine::ssh::Ssh;
use kup::machine::transfer;
use kup::report::Report;
use proxy::{Line, Proxy};
use sha2::{Digest, Sha256};
use sshd::{SOON, Server};

/// Offsets at which a transfer is cut.
const CUTS: u64 = 20;

/// A bundle of three files, none of which compresses.
fn bundle(cache: &Path, seed: &str, size: usize) -> Arc<Bundle> {
    let dir = cache.join("bundles").join(seed);
    let mut files = Vec::new();
    for (n, name) in ["kubelet", "containerd", "flanneld"].into_iter().enumerate() {
        let mut content = format!("#!/bin/sh\necho {seed}\nexit 0\n").into_bytes();
        let mut block = Sha256::digest(format!("{seed} {n}"));
        while content.len() < size / 3 {
            content.extend_from_slice(&block);
            block = Sha256::digest(block);
        }
        let path = format!("bin/{name}");
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::write(dir.join(&path), &content).unwrap();
        files.push(BundleFile {
            name: name.into(),
            component: name.into(),
            version: "1".into(),
            role: Part::Both,
            path,
            size: content.len() as u64,
            sha256: hex::encode(Sha256::digest(&content)),
            source: "test".into(),
            image: None,
        });
    }
    Arc::new(Bundle { dir, manifest: Manifest::new("1.37.1", Arch::Amd64, Origin::Built, files) })
}

async fn send(ssh: &Ssh, bundle: &Arc<Bundle>) -> Result<String> {
    let report = Report::silent();
    transfer::send(ssh, bundle, Role::Minion, &report.step("test")).await
}

/// A connection over a line, for a short while.
async fn over(server: &Server, proxy: &Proxy) -> Result<Ssh> {
    Ssh::connect(&server.through(proxy.port), &server.login, Duration::from_millis(700)).await
}

async fn says(ssh: &Ssh, command: &str) -> String {
    let output = ssh.exec(command, "", SOON).await.unwrap();
    format!("{}{}", output.text(), output.stderr).trim().to_owned()
}

/// What stands in the bundle's place runs, is whole by its own list, and is this one.
async fn stands(ssh: &Ssh, seed: &str) {
    let look = "cd /opt/kup/bundle && sha256sum -c --quiet SHA256SUMS && bin/kubelet";
    assert_eq!(says(ssh, look).await, seed);
}

fn files(version: &str) -> Vec<File> {
    let file = |n: u8| File {
        path: format!("/opt/etc/part{}/file-{n}", n % 3),
        mode: if n.is_multiple_of(2) { 0o600 } else { 0o644 },
        contents: format!("{version} {n}\n").repeat(800).into_bytes(),
        kind: FileKind::Keep,
        units: vec!["one.service"],
    };
    (0..12).map(file).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_cut_anywhere_leaves_what_was_there() {
    let server = Server::start();
    let direct = server.connect().await;
    let cache = tempfile::tempdir().unwrap();
    let (old, new) = (bundle(cache.path(), "old", 600_000), bundle(cache.path(), "new", 600_000));

    // How much goes over the line when all goes well.
    let whole = Proxy::to(server.port, Line::default());
    send(&over(&server, &whole).await.unwrap(), &new).await.unwrap();
    let (up, down) = whole.bytes();
    assert!(up > 600_000, "{up} bytes");

    direct.run("cp /opt/kup/bundle/SHA256SUMS /opt/new; rm -rf /opt/kup", "", SOON).await.unwrap();
    send(&direct, &old).await.unwrap();
    stands(&direct, "old").await;
    let ups = (1..=CUTS).map(|n| Line { cut_up: Some(up * n / (CUTS + 1)), ..Line::default() });
    let downs = (1..=4).map(|n| Line { cut_down: Some(down * n / 5), ..Line::default() });
    for line in ups.chain(downs) {
        let proxy = Proxy::to(server.port, line);
        let outcome = match over(&server, &proxy).await {
            Ok(ssh) => send(&ssh, &new).await,
            Err(e) => Err(e),
        };
        let error = outcome.expect_err(&format!("{line:?} is noticed")).to_string();
        assert!(error.contains("loopback"), "the machine is named: {error}");
        // With only the answers cut, all of it may have arrived.
        if line.cut_down.is_some() && says(&direct, "cat /opt/kup/bundle/SHA256SUMS").await == says(&direct, "cat /opt/new").await
        {
            stands(&direct, "new").await;
            send(&direct, &old).await.unwrap();
        }
        stands(&direct, "old").await;
    }
    send(&direct, &new).await.unwrap();
    stands(&direct, "new").await;
    assert_eq!(says(&direct, "ls -A /opt/kup").await, "bundle", "nothing half is left");
    assert_eq!(send(&direct, &new).await.unwrap(), "already there");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_cut_anywhere_are_old_or_new_and_never_half() {
    let server = Server::start();
    let direct = server.connect().await;
    let whole = Proxy::to(server.port, Line::default());
    assert_eq!(place(&over(&server, &whole).await.unwrap(), &files("old")).await.unwrap().len(), 12);
    let (up, _) = whole.bytes();
    let sums = |version: &str| -> String {
        let mut lines: Vec<String> = files(version)
            .iter()
            .map(|f| format!("{}  {} {:o}", hex::encode(Sha256::digest(&f.contents)), f.path, f.mode))
            .collect();
        lines.sort();
        lines.join("\n")
    };
    let look = "find /opt/etc -type f | while read -r f; do echo \"$(sha256sum < $f | cut -d' ' -f1)  $f $(stat -c %a $f)\"; done | sort";
    for n in 1..=CUTS {
        let proxy = Proxy::to(server.port, Line { cut_up: Some(up * n / (CUTS + 1)), ..Line::default() });
        let outcome = match over(&server, &proxy).await {
            Ok(ssh) => place(&ssh, &files("new")).await,
            Err(e) => Err(e),
        };
        outcome.expect_err("a cut is noticed");
        assert_eq!(says(&direct, look).await, sums("old"), "cut {n} of {CUTS}");
    }
    assert_eq!(place(&direct, &files("new")).await.unwrap().len(), 12);
    assert_eq!(says(&direct, look).await, sums("new"));
    assert_eq!(says(&direct, "ls /run/kup/restart; ls -d /var/lib/kup-incoming.* 2>/dev/null | wc -l").await, "one.service\n0");
    assert!(place(&direct, &files("new")).await.unwrap().is_empty(), "twice changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_cut_anywhere_is_none() {
    let server = Server::start();
    let direct = server.connect().await;
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let sum = hex::encode(Sha256::digest(&bytes));
    let network = r#"{"pods":"10.244.0.0/16","services":"10.0.0.0/16","dns":"10.0.0.10","domain":"cluster.local"}"#;
    let about = format!(
        r#"{{"name":"etcd-20261126T131500Z-7-hand","cluster":"c","revision":7,"reason":"hand","kubernetes":"1.37.1","size":{},"sha256":"{sum}","keys":[],"network":{network}}}"#,
        bytes.len()
    );
    direct.run("cat > /opt/snapshot", [about.as_bytes(), b"\n", &bytes].concat(), SOON).await.unwrap();
    let send = format!("cat /opt/snapshot; printf 'kup-sent %s\n' {sum}");
    let whole = Proxy::to(server.port, Line::default());
    let (backup, snapshot) = Receiver::run(&over(&server, &whole).await.unwrap(), &send, "", SOON).await.unwrap();
    assert_eq!((backup.sha256, snapshot.size), (sum.clone(), 1_200_000));
    assert!(snapshot.part(0, 1_200_000).unwrap() == bytes);
    let (_, down) = whole.bytes();
    for n in 1..=CUTS {
        let proxy = Proxy::to(server.port, Line { cut_down: Some(down * n / (CUTS + 1)), ..Line::default() });
        let outcome = match over(&server, &proxy).await {
            Ok(ssh) => Receiver::run(&ssh, &send, "", SOON).await.map(drop),
            Err(e) => Err(e),
        };
        outcome.expect_err(&format!("cut {n} of {CUTS} is noticed"));
    }
    // Whoever sends it may end early, and the exit status of a cut link is 0 too.
    for short in ["head -c 700000 /opt/snapshot", "cat /opt/snapshot", "true"] {
        let error = Receiver::run(&direct, short, "", SOON).await.expect_err(short).to_string();
        assert!(error.contains("the link was cut") && error.contains("nothing of it was kept"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_only_slow() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let proxy = Proxy::to(server.port, Line { delay: Duration::from_millis(150), ..Line::default() });
    let ssh = Ssh::connect(&server.through(proxy.port), &server.login, SOON).await.unwrap();
    let begun = Instant::now();
    assert_eq!(says(&ssh, "echo here").await, "here");
    let command = begun.elapsed();
    assert_eq!(place(&ssh, &files("new")).await.unwrap().len(), 12);
    let begun = Instant::now();
    send(&ssh, &bundle(cache.path(), "new", 4_000_000)).await.unwrap();
    let took = begun.elapsed();
    println!("4 MB at a delay of 150 ms each way: {:.1} s, a command: {:.1} s", took.as_secs_f64(), command.as_secs_f64());
    // A command is two round trips or more, whatever the machine is busy with. 30 kB for each, as SFTP sends them, are 133 of them.
    assert!(took < command * 40, "{took:?}, a command {command:?}");
    stands(&ssh, "new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_line_is_waited_for_and_silence_is_not() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let pausing = Proxy::to(server.port, Line { stall_up: Some((200_000, Duration::from_secs(3))), ..Line::default() });
    let ssh = over(&server, &pausing).await.unwrap();
    send(&ssh, &bundle(cache.path(), "new", 600_000)).await.unwrap();
    stands(&ssh, "new").await;

    let silent = Proxy::to(server.port, Line { stall_up: Some((20_000, Duration::from_secs(600))), ..Line::default() });
    let ssh = over(&server, &silent).await.unwrap();
    // Waited for, it would go through in the end.
    let error = ssh.exec("cat", vec![7; 8_000_000], Duration::from_secs(2)).await.unwrap_err().to_string();
    assert!(error.contains("loopback") && (error.contains("2 s") || error.contains("stalled")), "{error}");
}

/// A transfer's own limit is for slow lines; a silent one is given up long before.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute of silence"]
async fn a_transfer_over_a_line_that_fell_silent_is_given_up() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let silent = Proxy::to(server.port, Line { stall_up: Some((200_000, Duration::from_secs(600))), ..Line::default() });
    let ssh = over(&server, &silent).await.unwrap();
    // Waited for, it would go through in the end.
    let error = send(&ssh, &bundle(cache.path(), "new", 8_000_000)).await.unwrap_err().to_string();
    assert!(error.contains("loopback") && error.contains("stalled") && error.contains("kup up"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_while_idle_is_replaced() {
    let server = Server::start();
    let proxy = Proxy::to(server.port, Line::default());
    let ssh = over(&server, &proxy).await.unwrap();
    assert_eq!(says(&ssh, "echo one").await, "one");
    proxy.cut();
    assert_eq!(says(&ssh, "echo two").await, "two");
}

/// A kup that lost its machine, or was killed, leaves a receiver there that still waits. The next one's transfer is not touched by it,
/// neither while it hangs nor when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_left_alone_spoils_nothing() {
    let server = Server::start();
    let direct = server.connect().await;
    let cache = tempfile::tempdir().unwrap();
    let new = bundle(cache.path(), "new", 600_000);
    let hanging = Proxy::to(server.port, Line { stall_up: Some((300_000, Duration::from_secs(600))), ..Line::default() });
    let ssh = over(&server, &hanging).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(3), send(&ssh, &new)).await;
    assert!(lost.is_err(), "it hangs");
    let waiting = "for p in /proc/[0-9]*/cwd; do readlink $p; done 2>/dev/null | grep -c ^/opt/kup/incoming || true";
    assert_ne!(says(&direct, waiting).await, "0", "a receiver still works there");

    send(&direct, &new).await.unwrap();
    stands(&direct, "new").await;
    // It ends while the next one is in the middle of its own.
    let pausing = Proxy::to(server.port, Line { stall_up: Some((300_000, Duration::from_secs(2))), ..Line::default() });
    let ssh = over(&server, &pausing).await.unwrap();
    let newer = bundle(cache.path(), "newer", 600_000);
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        hanging.cut();
    };
    let (sent, ()) = tokio::join!(send(&ssh, &newer), cutting);
    sent.unwrap();
    stands(&direct, "newer").await;
    let until = Instant::now() + SOON;
    while says(&direct, waiting).await != "0" {
        assert!(Instant::now() < until, "the receiver does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stands(&direct, "newer").await;
    assert_eq!(says(&direct, "ls -A /opt/kup").await, "bundle", "nothing half is left");
}
