//! etcd as a whole: its members, its leader, and whether enough of them answer. Pure.

use serde::{Deserialize, Serialize};

use super::MachineStatus;
use crate::bootstrap::etcd::members::Members;

/// What one master's etcd says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdSaid {
    /// All members, as a majority knows them; none if there is no majority.
    pub members: Option<Members>,
    /// What it says of itself.
    pub own: Option<Own>,
}

/// What a member says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Its number.
    pub id: u64,
    /// The leader's number; 0 if it knows none.
    pub leader: u64,
    /// Its database on disk, in bytes.
    pub db_bytes: u64,
}

/// etcd over all masters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Etcd {
    /// Every member.
    pub members: Vec<EtcdMember>,
    /// How many voting members must answer.
    pub quorum: usize,
    /// The leader's machine, if there is a leader.
    pub leader: Option<String>,
}

/// A member of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Its machine.
    pub machine: String,
    /// Whether it answers.
    pub answers: bool,
    /// Whether it gets all data but has no vote yet.
    pub learner: bool,
    /// Its database on disk, in bytes.
    pub db_bytes: Option<u64>,
}

impl Etcd {
    /// Voting members that answer.
    pub fn answering(&self) -> usize {
        self.members.iter().filter(|m| m.answers && !m.learner).count()
    }
}

/// From `etcdctl endpoint status`.
pub(super) fn own(text: &str) -> Option<Own> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Endpoint {
        #[serde(rename = "Status")]
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        header: Header,
        #[serde(default)]
        leader: u64,
        #[serde(default)]
        db_size: u64,
    }
    #[derive(Deserialize)]
    struct Header {
        member_id: u64,
    }
    let [Endpoint { status }] = <[Endpoint; 1]>::try_from(serde_json::from_str::<Vec<Endpoint>>(text).ok()?).ok()?;
    Some(Own { id: status.header.member_id, leader: status.leader, db_bytes: status.db_size })
}

/// What the masters' words come to; none if no etcd says anything.
pub(super) fn of(machines: &[MachineStatus]) -> Option<Etcd> {
    let said: Vec<(&MachineStatus, &EtcdSaid)> = machines.iter().filter_map(|m| Some((m, m.etcd.as_ref()?))).collect();
    let (speaker, _) = said.first()?;
    let owns = || said.iter().filter_map(|(m, s)| Some((m.name.as_str(), s.own?)));
    let leader = owns().map(|(_, own)| own.leader).find(|l| *l != 0);
    let members: Vec<EtcdMember> = match said.iter().find_map(|(_, s)| s.members.as_ref()) {
        Some(known) => known
            .iter()
            .map(|member| {
                let own = owns().find(|(_, own)| own.id == member.id);
                EtcdMember {
                    machine: if member.name.is_empty() { member.peer_urls.join(" ") } else { member.name.clone() },
                    answers: own.is_some(),
                    learner: member.is_learner,
                    db_bytes: own.map(|(_, own)| own.db_bytes),
                }
            })
            .collect(),
        // Without a majority nobody may tell the members: every master should have one.
        None => machines
            .iter()
            .filter(|m| m.role == speaker.role)
            .map(|m| {
                let own = owns().find(|(name, _)| *name == m.name);
                EtcdMember {
                    machine: m.name.clone(),
                    answers: own.is_some(),
                    learner: false,
                    db_bytes: own.map(|(_, own)| own.db_bytes),
                }
            })
            .collect(),
    };
    let quorum = members.iter().filter(|m| !m.learner).count() / 2 + 1;
    let has_members = said.iter().any(|(_, s)| s.members.is_some());
    let leader = leader.filter(|_| has_members).map(|id| {
        let name = owns().find(|(_, own)| own.id == id).map(|(name, _)| name.to_owned());
        let known = said.iter().find_map(|(_, s)| s.members.as_ref()?.iter().find(|m| m.id == id));
        name.or_else(|| known.map(|m| m.name.clone())).unwrap_or_else(|| format!("{id:x}"))
    });
    Some(Etcd { members, quorum, leader })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Role;
    use crate::machine::{BundleAccess, Machine};
    use crate::provider::FoundMachine;

    const LIST: &str = r#"{"members":[{"ID":1,"name":"c-master-1","peerURLs":["a"]},{"ID":2,"name":"c-master-2","peerURLs":["b"]},
        {"ID":3,"name":"c-master-3","peerURLs":["c"]}]}"#;

    fn master(number: u8, said: Option<EtcdSaid>) -> MachineStatus {
        let machine = Machine {
            name: format!("c-master-{number}"),
            role: Role::Master,
            address: [172, 29, 0, 10 + number].into(),
            ssh_port: 22,
            user: "root".into(),
            host_key: String::new(),
            bundle: BundleAccess::Mounted,
            cloud: None,
        };
        let mut status = MachineStatus::silent(&FoundMachine { machine, running: true }, None);
        status.etcd = said;
        status
    }

    fn says(id: u64, leader: u64, members: bool) -> Option<EtcdSaid> {
        Some(EtcdSaid {
            members: members.then(|| Members::parse(LIST).unwrap()),
            own: Some(Own { id, leader, db_bytes: 20_480 }),
        })
    }

    #[test]
    fn a_members_own_words_are_understood() {
        let text = r#"[{"Endpoint":"https://127.0.0.1:2379","Status":{"header":{"cluster_id":9,"member_id":18446744073709551615,"revision":4,"raft_term":2},
            "version":"3.7.3","dbSize":20480,"leader":77,"raftIndex":10}}]"#;
        assert_eq!(own(text), Some(Own { id: u64::MAX, leader: 77, db_bytes: 20_480 }));
        assert_eq!(own("[]"), None);
    }

    #[test]
    fn a_silent_member_is_one_that_does_not_answer() {
        let etcd = of(&[master(1, says(1, 2, true)), master(2, says(2, 2, true)), master(3, None)]).unwrap();
        assert_eq!((etcd.quorum, etcd.answering(), etcd.leader.as_deref()), (2, 2, Some("c-master-2")));
        assert_eq!(etcd.members.iter().map(|m| m.answers).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn without_a_majority_there_is_no_leader() {
        let etcd = of(&[master(1, says(1, 1, false)), master(2, None), master(3, None)]).unwrap();
        assert_eq!((etcd.quorum, etcd.answering(), etcd.leader), (2, 1, None));
        assert_eq!(of(&[master(1, None)]), None);
    }
}
