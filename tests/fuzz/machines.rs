//! What machines say of themselves, and etcd of its members: it becomes words of commands that root runs, of units, and of messages.

use kup::aws::node_images;
use kup::backup::Backup;
use kup::bootstrap::api;
use kup::bootstrap::diagnose::{cause, seen};
use kup::bootstrap::etcd::members::Members;
use kup::cluster::defaults;
use kup::machine::facts::Facts;
use kup::machine::files::Cloud;
use kup::machine::ssh::{host_key, quoted};
use kup::machine::topology::Peer;
use kup::machine::{Role, facts};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::engine::{self, Outcome};
use crate::holds;
use crate::mutation::{Change, Style, any_change, changed, hostile};
use crate::render::{self, Told};

const FACTS: &str = "kernel=6.1\narch=x86_64\ncpus=2\nmemory_kib=24000000\ncgroup=2\ncap_sys_resource=yes\nresolver=/etc/resolv.conf\ncontainer=no\ninterface=eth0\nbridge_nf=yes\netcd=formed\nrestoring=etcd-20261126T131500Z-7-hand\n";
const MEMBERS: &str = r#"{"header":{"cluster_id":17},"members":[{"ID":12593962471434107043,"name":"c-master-1","peerURLs":["https://172.29.0.11:2380"]},{"ID":77,"peerURLs":["https://172.29.0.13:2380"],"isLearner":true}]}"#;
const BACKUP: &str = r#"{"name":"etcd-20261126T131500Z-7-hand","cluster":"c","revision":7,"reason":"hand","kubernetes":"1.37.1","size":3,"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","keys":["0123456789abcdef"],"network":{"pods":"10.244.0.0/16","services":"10.0.0.0/16","dns":"10.0.0.10","domain":"cluster.local"}}"#;
const SEEN: &str = "now 1795698900\nunit Id=etcd.service\nunit ActiveState=failed\nunit SubState=failed\nunit Result=exit-code\nunit NRestarts=3\nunit ExecMainStatus=1\nunit ActiveEnterTimestamp=@1795698800\nunit \njournal etcd.service no space left on device\ntelling etcd.service x509: certificate has expired\ndisk 1000 10 /var\ncert /etc/kup/pki/a.crt -----BEGIN CERTIFICATE-----\ncert /etc/kup/pki/a.crt AAAA\ncert /etc/kup/pki/a.crt -----END CERTIFICATE-----\nlisten 127.0.0.1:2379 users:((\"x\",pid=1,fd=3))\napi 7 refused\nend\n";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJfHsPx0wYDKpGoHz0wWq0hCZcIqOAMmUJ8VhMnqVh9P";

/// A minion in a cloud.
pub fn minion() -> Told {
    let cloud =
        Cloud { provider_id: "aws:///us-west-2a/i-0123456789abcdef0".into(), group: Some("minions".into()), ..Cloud::default() };
    Told { role: Role::Minion, facts: render::facts(), cloud: Some(cloud), backups: kup::backup::Place::Directory }
}

/// A text of lines or of JSON with a word of it replaced, or changed somewhere.
fn texts(corpus: &'static [&'static str]) -> impl Strategy<Value = (&'static str, Vec<Change>, Index, Option<String>)> {
    (select(corpus), proptest::collection::vec(any_change(), 0..4), any::<Index>(), proptest::option::of(hostile()))
}

fn text((text, changes, at, word): (&str, Vec<Change>, Index, Option<String>)) -> String {
    let mut text = String::from_utf8_lossy(&changed(text, &changes, Style::Json)).into_owned();
    if let Some(word) = word {
        // In the place of what stands behind one of the signs of equality or quotes.
        let starts: Vec<usize> = text.match_indices(['=', '"']).map(|(at, _)| at + 1).collect();
        if !starts.is_empty() {
            let start = starts[at.index(starts.len())];
            let end = text[start..].find(['\n', '"']).map_or(text.len(), |end| start + end);
            text.replace_range(start..end, &word);
        }
    }
    text
}

/// Words that a shell, systemd and YAML read as they are.
fn plain(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/,=@+~-".contains(&b))
}

#[test]
fn facts_are_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = defaults::cluster().unwrap();
    engine::run("facts", 100, texts(&[FACTS]), |case| {
        let text = text(case);
        let facts: facts::Facts = match Facts::parse(&text) {
            Ok(facts) => facts,
            Err(error) => return message(&error.to_string()),
        };
        for word in [&facts.kernel, &facts.arch, &facts.resolver, &facts.interface] {
            holds!(plain(word), "the fact {word:?} of\n{text}");
        }
        let another = facts.restoring.iter().any(|words| words.contains([';', '|', '&', '$', '`', '\n', '\u{1b}']));
        holds!(!another, "people would be told to type {:?}", facts.restoring);
        for told in [
            Told { facts: facts.clone(), ..minion() },
            Told { facts: facts.clone(), cloud: None, role: Role::Master, ..minion() },
        ] {
            let files = render::files(&cluster, &told, &render::images())?;
            render::look(dir.path(), &cluster, &told, &files)?;
        }
        Ok(())
    });
}

fn message(text: &str) -> Outcome {
    holds!(!engine::is_obeyed(text), "the message has control characters: {text:?}");
    Ok(())
}

#[test]
fn members_of_etcd_are_refused_or_words() {
    engine::run("members", 300, texts(&[MEMBERS]), |case| {
        let text = text(case);
        let me = Peer { name: "c-master-3".into(), address: [172, 29, 0, 13].into() };
        let Ok(members) = Members::parse(&text) else { return Ok(()) };
        let cluster = members.without(&me).initial_cluster(&me);
        holds!(plain(&cluster), "root would be told {cluster:?} by\n{text}");
        members.by_peer(&me);
        Ok(())
    });
}

#[test]
fn other_things_that_machines_say_never_panic() {
    const ALL: &[&str] =
        &[BACKUP, SEEN, MEMBERS, FACTS, KEY, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  a:b c:d\n"];
    engine::run("machines", 250, texts(ALL), |case| {
        let text = text(case);
        if let Ok(backup) = Backup::parse(&text) {
            holds!(plain(&backup.name) && !backup.name.contains(['/', '.']), "a backup called {:?}", backup.name);
            holds!(backup.sha256.len() == 64 && backup.sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{:?}", backup.sha256);
        }
        if let Ok(seen) = seen::Seen::parse(&text)
            && let Some(cause) = cause::judge(&seen, None, true)
        {
            let _ = (cause.sentence("m"), cause.hint("m"));
        }
        if let Some(key) = host_key(&text) {
            holds!(key.lines().count() == 1 && key.split(' ').count() == 2, "more than a key: {key:?}");
        }
        let _ =
            (Members::added(&text).is_ok(), node_images::parse(&text).is_ok(), api::parse(std::slice::from_ref(&text)).is_ok());
        let _ = api::briefly(&api::unready(&text));
        Ok(())
    });
}

/// What a Node says of its host key must not be a line for another machine.
#[test]
fn a_host_key_is_one_key() {
    assert_eq!(host_key(KEY).as_deref(), Some(KEY));
    assert_eq!(host_key(&format!("{KEY} me@home\n")).as_deref(), Some(KEY));
    assert_eq!(host_key(&format!("{KEY}\nmaster-1 {KEY}")).as_deref(), Some(KEY));
    for none in ["", "ssh-ed25519", "ssh-ed25519 é", "@cert-authority * ssh-ed25519 AAAA", "ssh-dss AAAA"] {
        assert_eq!(host_key(none), None, "{none}");
    }
}

#[test]
fn a_shell_reads_a_quoted_word_as_it_was() {
    engine::run("quotes", 100, hostile(), |word: String| {
        // No argument and no variable can have it.
        let word = word.replace('\0', "");
        let said = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(&word))).output();
        let said = said.map_err(|e| e.to_string())?;
        holds!(said.stdout == word.as_bytes(), "{word:?} became {:?}", String::from_utf8_lossy(&said.stdout));
        Ok(())
    });
}
