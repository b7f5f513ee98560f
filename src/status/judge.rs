//! What of all that was seen is not well. Pure.

use super::addons;
use super::{Api, Certificate, Etcd, MachineStatus, Problem, Severity, Unit};
use crate::machine::Role;
use crate::provider::ClusterId;

/// A certificate that ends sooner than this many days from now is warned of; kup's and the kubelets' are renewed before.
const SOON: i64 = 30;
/// A file system fuller than this, in percent, is nearly full: the kubelet begins to remove images at 85 % (its
/// `imageGCHighThresholdPercent`) and pods not much later.
const FULL: u64 = 90;

/// Everything that was seen of a cluster.
pub(super) struct Seen<'a> {
    /// Which cluster.
    pub id: &'a ClusterId,
    /// Its machines.
    pub machines: &'a [MachineStatus],
    /// The machines that its config names and that are not there.
    pub missing: Vec<String>,
    /// What etcd says of itself.
    pub etcd: Option<&'a Etcd>,
    /// What the API said.
    pub api: &'a Api,
}

/// What is not well, causes before effects.
pub(super) fn problems(seen: &Seen<'_>) -> Vec<Problem> {
    let up = format!("kup up {}", seen.id.flags());
    let mut all = Vec::new();
    for name in &seen.missing {
        all.push(failing(Some(name), format!("machine {name} is not there"), None, Some(format!("`{up}` makes it"))));
    }
    for machine in seen.machines {
        of_machine(machine, &up, &mut all);
    }
    for machine in seen.machines {
        for unit in machine.units.iter().filter(|u| !u.well()) {
            all.push(of_unit(machine, unit, &up));
        }
    }
    for machine in seen.machines {
        for certificate in &machine.certificates {
            all.extend(of_certificate(machine, certificate, &up));
        }
        for disk in machine.disks.iter().filter(|d| d.used_percent() >= FULL) {
            let name = &machine.name;
            all.push(failing(
                Some(name),
                format!("the file system {} of {name} is nearly full: {} %", disk.mount, disk.used_percent()),
                Some(format!("{} MiB are free", disk.free_kib / 1024)),
                Some(format!("`kup ssh {name} -- du -xh --max-depth=3 {} | sort -h | tail` shows by what", disk.mount)),
            ));
        }
    }
    if let Some(etcd) = seen.etcd {
        of_etcd(etcd, &up, &mut all);
    }
    of_backups(seen, &mut all);
    of_api(seen, &mut all);
    // Failures first; what was found first stays first, since it is nearer to the cause.
    all.sort_by_key(|p| p.severity == Severity::Warning);
    all
}

fn failing(machine: Option<&str>, what: String, why: Option<String>, next: Option<String>) -> Problem {
    Problem { severity: Severity::Failing, machine: machine.map(str::to_owned), what, why, next }
}

fn of_machine(machine: &MachineStatus, up: &str, all: &mut Vec<Problem>) {
    let name = &machine.name;
    if !machine.running {
        all.push(failing(Some(name), format!("machine {name} is stopped"), None, Some(format!("`{up}` starts it"))));
    } else if let Some(why) = &machine.unreachable {
        let next = format!("`kup logs {name}` shows what it says; `{up} --replace {name}` makes it anew");
        all.push(failing(Some(name), format!("machine {name} does not answer"), Some(why.clone()), Some(next)));
    }
}

fn of_unit(machine: &MachineStatus, unit: &Unit, up: &str) -> Problem {
    let (name, unit_name) = (&machine.name, &unit.name);
    let more = format!("`kup ssh {name} -- journalctl -u {unit_name} -e` shows more");
    if unit.load != "loaded" {
        let what = format!("{unit_name} is not installed on {name}");
        return failing(Some(name), what, Some(format!("systemd says: {}", unit.load)), Some(format!("`{up}` installs it")));
    }
    if unit.active == "active" && unit.keeps_failing() {
        let what = format!("{unit_name} on {name} keeps failing: it was started again {} times", unit.restarts);
        return failing(Some(name), what, (!unit.journal.is_empty()).then(|| unit.journal.join("\n")), Some(more));
    }
    if unit.active == "active" {
        let why = match unit.health {
            None | Some(0) => "its health check does not answer".to_owned(),
            Some(code) => format!("its health check says {code}"),
        };
        let next = format!("`kup ssh {name} -- systemctl restart {unit_name}` starts it anew; {more}");
        return failing(Some(name), format!("{unit_name} on {name} runs, but is not well"), Some(why), Some(next));
    }
    let how = if unit.result.is_empty() || unit.result == "success" {
        unit.sub.clone()
    } else {
        format!("{}, {}", unit.sub, unit.result)
    };
    let why = (!unit.journal.is_empty()).then(|| unit.journal.join("\n"));
    failing(
        Some(name),
        format!("{unit_name} on {name} is {} ({how})", unit.active),
        why,
        Some(format!("`{up}` starts it; {more}")),
    )
}

fn of_certificate(machine: &MachineStatus, certificate: &Certificate, up: &str) -> Option<Problem> {
    let Certificate { path, days_left, .. } = certificate;
    let (name, until) = (&machine.name, certificate.last_day());
    // The kubelet renews this one by itself, when a tenth to a third of its time is left.
    let next = if path.ends_with("-current.pem") {
        format!("`kup ssh {name} -- journalctl -u kubelet -g certificate` shows why the kubelet does not renew it")
    } else {
        format!("`{up}` renews it")
    };
    let problem = |severity, what: String| {
        Some(Problem { severity, machine: Some(name.clone()), what, why: Some(certificate.subject.clone()), next: Some(next) })
    };
    if *days_left < 0 {
        problem(Severity::Failing, format!("the certificate {path} on {name} ended on {until}"))
    } else if !certificate.begun {
        problem(
            Severity::Failing,
            format!("the certificate {path} on {name} is not valid before {}: is the clock right?", certificate.not_before),
        )
    } else if *days_left < SOON {
        problem(Severity::Warning, format!("the certificate {path} on {name} ends in {days_left} days, on {until}"))
    } else {
        None
    }
}

fn of_etcd(etcd: &Etcd, up: &str, all: &mut Vec<Problem>) {
    if etcd.leader.is_none() {
        let what = "etcd has no leader, so that the API can neither read nor write".to_owned();
        let why = format!("{} of {} members answer, and {} are needed", etcd.answering(), etcd.members.len(), etcd.quorum);
        all.push(failing(None, what, Some(why), Some(format!("start the masters that are missing: `{up}`"))));
    }
    let warn = |name: &str, what: String, why: &str| Problem {
        severity: Severity::Warning,
        machine: Some(name.to_owned()),
        what,
        why: Some(why.to_owned()),
        next: Some(format!("`{up}` mends it")),
    };
    for member in &etcd.members {
        let name = &member.machine;
        if member.learner {
            all.push(warn(name, format!("etcd's member {name} has no vote"), "it was taken in, but not promoted"));
        } else if !member.answers && etcd.leader.is_some() {
            all.push(warn(
                name,
                format!("etcd's member {name} does not answer"),
                "the others go on without it as long as they are a majority",
            ));
        }
    }
}

fn of_backups(seen: &Seen<'_>, all: &mut Vec<Problem>) {
    if let Some((machine, snapshot)) = seen.machines.iter().find_map(|m| Some((m, m.restoring.as_ref()?))) {
        let what = "a restore of etcd was begun, and has not ended".to_owned();
        let next = format!("`kup etcd restore {snapshot} {}` does it again and finishes it", seen.id.flags());
        all.push(failing(Some(&machine.name), what, None, Some(next)));
    }
    for machine in seen.machines.iter().filter(|m| !m.failed_backup.is_empty()) {
        let name = &machine.name;
        all.push(Problem {
            severity: Severity::Warning,
            machine: Some(name.clone()),
            what: format!("the last snapshot of etcd on {name} failed"),
            why: Some(machine.failed_backup.join("\n")),
            next: Some(format!("`kup ssh {name} -- journalctl -u kup-etcd-backup -e` shows more")),
        });
    }
}

fn of_api(seen: &Seen<'_>, all: &mut Vec<Problem>) {
    let api = seen.api;
    for server in api.servers.iter().filter(|s| !s.ready) {
        let name = &server.machine;
        let balancer = seen.machines.iter().any(|m| m.name == *name && m.role == Role::Balancer);
        let (unit, what) = match balancer {
            true => ("kup-balancer", format!("the API is not ready through {name}")),
            false => ("kube-apiserver", format!("the API server of {name} is not ready")),
        };
        let next = format!("`kup ssh {name} -- journalctl -u {unit} -e` shows what it says");
        all.push(failing(Some(name), what, server.why.clone(), Some(next)));
    }
    if api.servers.is_empty() {
        all.push(failing(
            None,
            "the API can't be asked: no master runs".into(),
            None,
            Some(format!("`kup up {}` starts it", seen.id.flags())),
        ));
    } else if api.servers.iter().any(|s| s.ready) {
        for why in &api.unanswered {
            let next = Some("`kup kubectl -- get --raw '/readyz?verbose'` shows the API's own checks".into());
            all.push(failing(None, "the API did not answer a question".into(), Some(why.clone()), next));
        }
    }
    if api.nodes.is_some() {
        of_nodes(seen, all);
    }
    if let Some(dns) = api.dns.as_ref().filter(|d| d.ready < d.wanted) {
        let what = format!("{} of {} replicas of CoreDNS are ready", dns.ready, dns.wanted);
        let next = Some("`kup kubectl -- -n kube-system describe pods -l k8s-app=kube-dns` shows why".into());
        all.push(failing(None, what, dns.why.clone(), next));
    }
    let up = format!("kup up {}", seen.id.flags());
    all.extend(api.addons.iter().flatten().filter_map(|addon| addons::problem(addon, &up)));
    for pod in api.system_pods.iter().flatten().filter(|p| !p.well) {
        let what = format!("pod {} in kube-system is not well", pod.name);
        let next = format!("`kup kubectl -- -n kube-system describe pod {}` shows more", pod.name);
        all.push(failing(pod.node.as_deref(), what, pod.why.clone(), Some(next)));
    }
}

fn of_nodes(seen: &Seen<'_>, all: &mut Vec<Problem>) {
    for machine in seen.machines.iter().filter(|m| m.role.is_node()) {
        let name = &machine.name;
        let Some(node) = seen.api.node(name) else {
            let next =
                format!("`kup ssh {name} -- journalctl -u kubelet -e` shows why; `kup up {}` tries again", seen.id.flags());
            all.push(failing(
                Some(name),
                format!("{name} has no Node"),
                Some("its kubelet has not registered".into()),
                Some(next),
            ));
            continue;
        };
        let describe = Some(format!("`kup kubectl -- describe node {name}` shows more"));
        if !node.ready {
            all.push(failing(Some(name), format!("the Node {name} is not Ready"), node.why.clone(), describe.clone()));
        }
        for pressure in &node.pressures {
            all.push(failing(Some(name), format!("the Node {name} has {pressure}"), None, describe.clone()));
        }
        if node.cordoned {
            let next = Some(format!("`kup kubectl -- uncordon {name}` lets pods onto it again"));
            all.push(Problem {
                severity: Severity::Warning,
                ..failing(Some(name), format!("the Node {name} is cordoned: no new pods go there"), None, next)
            });
        }
    }
    for node in seen.api.nodes.iter().flatten() {
        if !seen.machines.iter().any(|m| m.name == node.name) && !seen.missing.contains(&node.name) {
            let next = Some(format!("`kup kubectl -- delete node {}` forgets it", node.name));
            all.push(Problem {
                severity: Severity::Warning,
                ..failing(None, format!("the Node {} has no machine", node.name), None, next)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::ProviderKind;

    fn id() -> ClusterId {
        ClusterId { provider: ProviderKind::Local, name: "c".into() }
    }
    use crate::machine::Role;
    use crate::status::{Addon, ApiServer, Disk, Node, Pod, Replicas};

    fn well() -> (Vec<MachineStatus>, Api) {
        let unit = |name: &str| Unit {
            name: name.into(),
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            ..Unit::default()
        };
        let certificate = Certificate {
            path: "/etc/kup/pki/apiserver.crt".into(),
            subject: "CN=kube-apiserver".into(),
            not_before: "2026-11-21T00:00:00Z".into(),
            not_after: "2027-11-21T00:00:00Z".into(),
            days_left: 364,
            begun: true,
        };
        let machine = MachineStatus {
            name: "c-master-1".into(),
            called: None,
            role: Role::Master,
            address: [172, 29, 0, 11].into(),
            running: true,
            in_cloud: false,
            unreachable: None,
            units: vec![unit("etcd"), unit("kubelet")],
            disks: vec![Disk { mount: "/".into(), used_kib: 50, free_kib: 50 }],
            etcd: None,
            certificates: vec![certificate],
            failed_backup: Vec::new(),
            restoring: None,
        };
        let node = Node {
            name: "c-master-1".into(),
            ready: true,
            why: None,
            cordoned: false,
            pressures: Vec::new(),
            version: "v1.37.1".into(),
        };
        let api = Api {
            servers: vec![ApiServer {
                machine: "c-master-1".into(),
                server: "https://172.29.0.11:6443".into(),
                ready: true,
                why: None,
            }],
            unanswered: Vec::new(),
            nodes: Some(vec![node]),
            dns: Some(Replicas { ready: 2, wanted: 2, why: None }),
            addons: Some(vec![Addon { name: "local-storage", present: true, ready: true, why: None }]),
            system_pods: Some(vec![Pod { name: "coredns-x".into(), node: None, well: true, why: None, restarts: 0 }]),
        };
        (vec![machine], api)
    }

    /// What is said after `change`, as "severity: what".
    fn said(change: impl FnOnce(&mut MachineStatus, &mut Api)) -> Vec<String> {
        let (mut machines, mut api) = well();
        if let Some(machine) = machines.first_mut() {
            change(machine, &mut api);
        }
        let all = problems(&Seen { id: &id(), machines: &machines, missing: Vec::new(), etcd: None, api: &api });
        all.iter().map(|p| format!("{:?}: {}", p.severity, p.what)).collect()
    }

    #[test]
    fn what_is_well_has_no_problem() {
        assert!(said(|_, _| ()).is_empty());
    }

    #[test]
    fn each_thing_that_is_not_well_is_named() {
        assert_eq!(said(|m, _| m.running = false), ["Failing: machine c-master-1 is stopped"]);
        assert_eq!(said(|m, _| m.unreachable = Some("x".into())), ["Failing: machine c-master-1 does not answer"]);
        assert_eq!(said(|m, _| m.failed_backup = vec!["x".into()]), ["Warning: the last snapshot of etcd on c-master-1 failed"]);
        assert_eq!(said(|m, _| m.restoring = Some("etcd-x".into())), ["Failing: a restore of etcd was begun, and has not ended"]);
        assert_eq!(
            said(|m, _| (m.units[0].active, m.units[0].sub) = ("inactive".into(), "dead".into())),
            ["Failing: etcd on c-master-1 is inactive (dead)"]
        );
        assert_eq!(
            said(|m, _| (m.units[0].restarts, m.units[0].up_seconds) = (4, Some(1))),
            ["Failing: etcd on c-master-1 keeps failing: it was started again 4 times"]
        );
        assert_eq!(said(|m, _| m.units[1].health = Some(503)), ["Failing: kubelet on c-master-1 runs, but is not well"]);
        assert_eq!(said(|m, _| m.units[0].load = "not-found".into()), Vec::<String>::new(), "active counts");
        assert_eq!(said(|m, _| m.disks[0].used_kib = 950), ["Failing: the file system / of c-master-1 is nearly full: 95 %"]);
        let certificate = |days: i64| said(move |m, _| m.certificates[0].days_left = days);
        assert_eq!(certificate(-1), ["Failing: the certificate /etc/kup/pki/apiserver.crt on c-master-1 ended on 2027-11-21"]);
        assert_eq!(
            certificate(29),
            ["Warning: the certificate /etc/kup/pki/apiserver.crt on c-master-1 ends in 29 days, on 2027-11-21"]
        );
        assert!(certificate(30).is_empty());
        assert_eq!(said(|_, a| a.servers[0].ready = false), ["Failing: the API server of c-master-1 is not ready"]);
        assert_eq!(said(|_, a| a.unanswered = vec!["x".into()]), ["Failing: the API did not answer a question"]);
        assert_eq!(said(|_, a| a.nodes = Some(Vec::new())), ["Failing: c-master-1 has no Node"]);
        assert_eq!(
            said(|_, a| a.dns = Some(Replicas { ready: 1, wanted: 2, why: None })),
            ["Failing: 1 of 2 replicas of CoreDNS are ready"]
        );
        let addon = |present| said(move |_, a| a.addons = Some(vec![Addon { name: "x", present, ready: false, why: None }]));
        assert_eq!(addon(true), ["Failing: the add-on x is not ready"]);
        assert_eq!(addon(false), ["Warning: the add-on x is on in the config, but not there"]);
        assert_eq!(
            said(|_, a| for p in a.system_pods.iter_mut().flatten() {
                p.well = false;
            }),
            ["Failing: pod coredns-x in kube-system is not well"]
        );
        assert_eq!(
            said(|_, a| for n in a.nodes.iter_mut().flatten() {
                n.ready = false;
            }),
            ["Failing: the Node c-master-1 is not Ready"]
        );
        assert_eq!(
            said(|_, a| for n in a.nodes.iter_mut().flatten() {
                n.cordoned = true;
            }),
            ["Warning: the Node c-master-1 is cordoned: no new pods go there"]
        );
    }

    #[test]
    fn causes_come_before_effects_and_warnings_last() {
        let all = said(|m, a| {
            m.certificates[0].days_left = 3;
            (m.units[0].active, m.units[0].sub) = ("failed".into(), "failed".into());
            a.servers[0].ready = false;
            a.nodes = None;
        });
        assert_eq!(all.len(), 3);
        assert!(all[0].contains("etcd") && all[1].contains("API server") && all[2].starts_with("Warning"), "{all:?}");
    }
}
