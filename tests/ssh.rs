//! kup's SSH against a real OpenSSH server on loopback: pinned host keys, deadlines, and one long stream.
//!
//! The server is a process of this test's, with keys of its own, on a port of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "support/sshd.rs"]
mod sshd;

use std::fs;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use kup::machine::ssh::{LoginKey, Ssh};
use sha2::{Digest, Sha256};
use ssh_key::LineEnding;
use sshd::{SOON, Server, key, write};

#[tokio::test]
async fn another_host_key_is_refused_before_anything_is_sent() {
    let server = Server::start();
    let error = Ssh::connect(&server.machine(&key()), &server.login, SOON).await.err().expect("a wrong host key is refused");
    assert!(error.what.contains("another SSH host key"), "{error}");
    assert!(error.why[0].contains(&server.host_key.public_key().fingerprint(ssh_key::HashAlg::Sha256).to_string()), "{error}");
    assert!(!server.log().contains("publickey") && !server.log().contains("Failed"), "no login was tried: {}", server.log());
}

#[tokio::test]
async fn a_refused_login_is_an_error_and_does_not_knock_again_at_once() {
    let server = Server::start();
    let stranger = LoginKey::new(key().to_openssh(LineEnding::LF).unwrap().as_str());
    let error = Ssh::connect(&server.machine(&server.host_key), &stranger, Duration::from_secs(2)).await.err().expect("refused");
    assert!(error.what.contains("refused the login of root"), "{error}");
    assert_eq!(server.log().matches("Connection closed by authenticating user").count().max(1), 1, "{}", server.log());
}

#[tokio::test]
async fn output_errors_status_and_input_come_through_apart() {
    let server = Server::start();
    let ssh = server.connect().await;
    let input: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let output = ssh.exec("cat; echo words >&2; exit 7", input.clone(), SOON).await.unwrap();
    assert!(output.stdout == input, "what goes in comes out");
    assert_eq!((output.stderr.as_str(), output.status), ("words\n", 7));
    let error = ssh.run("echo why >&2; false", "", SOON).await.unwrap_err();
    assert_eq!(error.why, ["why"]);
    // A command that reads none of its input is no failure of ours.
    assert_eq!(ssh.exec("exec true", input, SOON).await.unwrap().status, 0);
}

#[tokio::test]
async fn many_commands_run_at_once_on_one_machine() {
    let server = Server::start();
    let ssh = server.connect().await;
    let slow = ssh.exec("read line; echo $line", Vec::new(), SOON);
    let fast = futures::future::join_all((0..5).map(|n| ssh.exec("echo ok", Vec::new(), SOON + Duration::from_millis(n))));
    let (slow, fast) = tokio::join!(slow, fast);
    assert_eq!(slow.unwrap().status, 0);
    assert!(fast.into_iter().all(|o| o.unwrap().text() == "ok\n"));
}

#[tokio::test]
async fn a_deadline_ends_a_command_that_does_not() {
    let server = Server::start();
    let ssh = server.connect().await;
    let error = ssh.exec("echo $$ > \"$0.pid\"; sleep 1000", "", Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("1 s") || error.to_string().contains("output"), "{error}");
    assert_eq!(ssh.exec("echo still", "", SOON).await.unwrap().text(), "still\n", "the machine can be used again");
}

/// One stream of 256 MiB: it arrives whole, and is measured beside OpenSSH's own client. The figures are printed, never judged.
#[tokio::test]
async fn one_long_stream_arrives_whole_beside_openssh() {
    const MIB: u64 = 256;
    let server = Server::start();
    let ssh = server.connect().await;
    let path = server.dir.path().join("stream");
    let made = Command::new("sh").arg("-c").arg(format!("head -c {MIB}M /dev/urandom > {}", path.display())).status().unwrap();
    assert!(made.success());
    let mut hash = Sha256::new();
    std::io::copy(&mut fs::File::open(&path).unwrap(), &mut Hashing(&mut hash)).unwrap();
    let sum = hex::encode(hash.finalize());

    let begun = Instant::now();
    let file = path.clone();
    let output = ssh
        .exec_reading(
            "sha256sum",
            move || Ok(Box::new(fs::File::open(file).unwrap()) as Box<dyn Read + Send>),
            Duration::from_secs(120),
        )
        .await
        .unwrap();
    let ours = begun.elapsed().as_secs_f64();
    assert_eq!(output.text().split_whitespace().next(), Some(sum.as_str()));

    let known = server.dir.path().join("known");
    write(&known, &format!("[127.0.0.1]:{} {}\n", server.port, server.host_key.public_key().to_openssh().unwrap()));
    let begun = Instant::now();
    let theirs = Command::new("ssh")
        .args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-p", &server.port.to_string(), "-i"])
        .arg(server.dir.path().join("login"))
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .args(["root@127.0.0.1", "sha256sum"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    let openssh = begun.elapsed().as_secs_f64();
    assert!(String::from_utf8_lossy(&theirs.stdout).starts_with(&sum), "{}", String::from_utf8_lossy(&theirs.stderr));
    let rate = |seconds: f64| MIB as f64 / seconds;
    println!("one stream of {MIB} MiB: kup {:.0} MiB/s, OpenSSH {:.0} MiB/s", rate(ours), rate(openssh));
}

struct Hashing<'a>(&'a mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
