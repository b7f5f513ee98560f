//! Each cause from what a machine says in its case, with the machine's name in the sentence.

use std::collections::BTreeMap;

use time::Duration;

use super::*;
use crate::bootstrap::diagnose::seen::{Disk, Probe};
use crate::pki::authority::{Authority, Leaf};

const MACHINE: &str = "kubernetes-minion-1";
const LOGIN: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
const KUBELET: &str = "kubelet.service";

fn running() -> Unit {
    Unit { active: "active".into(), sub: "running".into(), result: "success".into(), up_seconds: Some(60), ..Unit::default() }
}

/// A machine that is well, whose login was signed by the authority that it trusts.
fn well() -> (Seen, Authority) {
    let authority = Authority::generate("kubernetes").unwrap();
    let login = authority.issue(&Leaf::client("system:node:x", Some("system:nodes")), Duration::days(1)).unwrap();
    let seen = Seen {
        now: Some(OffsetDateTime::now_utc()),
        units: BTreeMap::from([(KUBELET.to_owned(), running())]),
        disks: vec![Disk { mount: "/".into(), size: 1 << 20, free: 1 << 19 }],
        certificates: BTreeMap::from([
            ("/etc/kup/pki/cluster-ca.crt".to_owned(), authority.pair.cert.clone()),
            (LOGIN.to_owned(), login.cert),
        ]),
        api: Some(Probe { exit: 0, status: 200, words: String::new() }),
        ..Seen::default()
    };
    (seen, authority)
}

/// The cause found after `change`.
fn found(change: impl FnOnce(&mut Seen)) -> Cause {
    let mut seen = well().0;
    change(&mut seen);
    judge(&seen, None, false).expect("a cause")
}

fn says(cause: &Cause, parts: &[&str]) {
    let (sentence, hint) = (cause.sentence(MACHINE), cause.hint(MACHINE));
    for part in parts.iter().chain(&[MACHINE]) {
        assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
    }
    assert!(hint.contains('`') || hint.starts_with("stop"), "it says what to type: {hint}");
}

fn telling(seen: &mut Seen, line: &str) {
    seen.telling.push((KUBELET.into(), line.into()));
}

#[test]
fn a_machine_that_is_well_has_no_cause() {
    assert_eq!(judge(&well().0, None, false), None);
    assert_eq!(judge(&well().0, Some(&well().0), true), None);
    assert_eq!(judge(&Seen::default(), None, true), None, "nothing known is no cause");
}

#[test]
fn a_certificate_that_is_not_yet_valid() {
    let cause = found(|seen| seen.now = seen.now.map(|now| now - Duration::hours(1)));
    assert!(cause.is_certain());
    says(&cause, &["not yet valid", "/etc/kup/pki/cluster-ca.crt", "the machine's clock says"]);
}

#[test]
fn a_certificate_that_has_expired() {
    let cause = found(|seen| seen.now = seen.now.map(|now| now + Duration::hours(25)));
    assert!(cause.is_certain());
    says(&cause, &["has expired", LOGIN]);
    assert!(cause.hint(MACHINE).contains(&format!("kup ssh {MACHINE} -- rm {LOGIN}")));
}

#[test]
fn a_full_disk() {
    let cause = found(|seen| seen.disks.push(Disk { mount: "/var".into(), size: 1 << 20, free: 12 }));
    assert!(cause.is_certain());
    says(&cause, &["disk", "full", "/var", "12 KiB left of 1024 MiB"]);
    // Only said, not seen: it may have passed; and inotify's limit is another thing with the same words.
    let cause = found(|seen| telling(seen, "open /var/lib/kubelet/x: no space left on device"));
    assert!(!cause.is_certain());
    says(&cause, &["full", "kubelet.service says"]);
    let (mut seen, _) = well();
    telling(&mut seen, "inotify_add_watch /sys/fs/cgroup: no space left on device");
    assert_eq!(judge(&seen, None, false), None);
}

#[test]
fn an_api_that_cannot_be_reached() {
    let words = "curl: (28) Connection timed out after 5001 milliseconds";
    let cause = found(|seen| seen.api = Some(Probe { exit: 28, status: 0, words: words.into() }));
    assert!(!cause.is_certain(), "it may come back");
    says(&cause, &["can't reach the cluster's API", words]);
    says(&found(|seen| seen.api = Some(Probe { exit: 0, status: 401, words: String::new() })), &["refuses the kubelet's login"]);
}

#[test]
fn a_wrong_authority() {
    let stranger = Authority::generate("kubernetes").unwrap();
    let login = stranger.issue(&Leaf::client("system:node:x", None), Duration::days(1)).unwrap();
    let cause = found(|seen| drop(seen.certificates.insert(LOGIN.into(), login.cert)));
    assert!(cause.is_certain());
    says(&cause, &["signed by an authority that this cluster does not trust", LOGIN]);
    let words = "curl: (60) SSL certificate problem: unable to get local issuer certificate";
    says(&found(|seen| seen.api = Some(Probe { exit: 60, status: 0, words: words.into() })), &["does not trust", words]);
    let said = "Get \"https://api\": tls: failed to verify certificate: x509: certificate signed by unknown authority";
    says(&found(|seen| telling(seen, said)), &["does not trust", "unknown authority"]);
    // An API server that is called by a stranger is well.
    let (mut seen, _) = well();
    telling(
        &mut seen,
        "E1121 authentication.go:76] \"Unable to authenticate the request\" err=\"x509: certificate signed by unknown authority\"",
    );
    assert_eq!(judge(&seen, None, true), None);
}

fn crashing(restarts: u64) -> Unit {
    Unit {
        active: "activating".into(),
        sub: "auto-restart".into(),
        result: "exit-code".into(),
        restarts,
        status: "1".into(),
        up_seconds: None,
    }
}

#[test]
fn a_unit_that_keeps_crashing() {
    let with = |restarts: u64| {
        let (mut seen, _) = well();
        seen.units.insert(KUBELET.into(), crashing(restarts));
        let lines =
            ["kubelet.service: Scheduled restart job, restart counter is at 3.", "Started kubelet.service.", "out of paper"];
        seen.journals.insert(KUBELET.into(), lines.map(str::to_owned).to_vec());
        seen
    };
    let cause = judge(&with(3), None, false).expect("a cause");
    assert!(cause.is_certain());
    says(&cause, &["kubelet.service", "keeps failing", "exit status 1", "3 times", "its last words are:\nout of paper"]);
    // A first stumble is none, unless it was the end of it; and what failed before this wait is none either.
    assert_eq!(judge(&with(1), None, false), None);
    says(&judge(&with(0), None, true).expect("a cause"), &["kubelet.service", "failed: it ended with exit status 1"]);
    assert_eq!(judge(&with(7), Some(&with(7)), false), None);
    assert!(judge(&with(7), Some(&with(5)), false).is_some());
    let mut over = with(7);
    over.units.insert(KUBELET.into(), Unit { restarts: 7, ..running() });
    assert_eq!(judge(&over, Some(&with(5)), false), None, "it runs now");
    let mut limit = with(5);
    let unit = Unit { active: "failed".into(), result: "start-limit-hit".into(), status: "0".into(), ..crashing(5) };
    limit.units.insert(KUBELET.into(), unit);
    says(&judge(&limit, None, false).expect("a cause"), &["ended with start-limit-hit"]);
}

#[test]
fn an_image_that_is_not_there() {
    let line = r#"E1121 pod_workers.go:1] "Error syncing pod" err="failed to get sandbox image \"registry.k8s.io/pause:3.10.2\": failed to pull image \"registry.k8s.io/pause:3.10.2\": dial tcp: lookup registry.k8s.io: no such host""#;
    says(&found(|seen| telling(seen, line)), &["does not have the image registry.k8s.io/pause:3.10.2", "no such host"]);
    let waiting = |reason: &str| -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "coredns-x" }, "spec": { "nodeName": MACHINE, "containers": [] },
            "status": { "containerStatuses": [{ "name": "coredns", "image": "registry.k8s.io/coredns/coredns:v1", "imageID": "", "ready": false,
                "restartCount": 0, "state": { "waiting": { "reason": reason, "message": "pull access denied" } } }] },
        }))
        .unwrap()
    };
    let (machine, cause) = pod(&[waiting("ContainerCreating"), waiting("ErrImagePull")]).expect("a cause");
    assert_eq!(machine, MACHINE);
    says(&cause, &["registry.k8s.io/coredns/coredns:v1", "ErrImagePull: pull access denied"]);
    assert!(pod(&[waiting("ErrImageNeverPull")]).is_some());
    assert_eq!(pod(&[waiting("PodInitializing")]), None);
}

#[test]
fn a_port_that_is_taken() {
    let cause = found(|seen| {
        telling(
            seen,
            "E1121 run.go:72] \"command failed\" err=\"failed to listen on 0.0.0.0:6443: listen tcp 0.0.0.0:6443: bind: address already in use\"",
        );
        seen.listeners.push(("*:22".into(), "users:((\"sshd\",pid=1,fd=3))".into()));
        seen.listeners.push(("0.0.0.0:6443".into(), "users:((\"socat\",pid=123,fd=5))".into()));
    });
    assert!(cause.is_certain());
    says(&cause, &["port 6443", "`socat` (process 123)"]);
}

#[test]
fn what_is_certain_comes_before_what_may_pass() {
    let cause = found(|seen| {
        telling(seen, "open /var/log/x: no space left on device");
        seen.api = Some(Probe { exit: 7, status: 0, words: "refused".into() });
        seen.units.insert(KUBELET.into(), crashing(9));
    });
    assert!(matches!(cause, Cause::Crashed { .. }), "{cause:?}");
}
