//! The members of an etcd cluster as `etcdctl --write-out=json` tells them. Pure.

use serde::Deserialize;

use crate::cluster::problem::quoted;
use crate::error::{Context as _, Error, Result};
use crate::machine::topology::Peer;

/// All members.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Members {
    members: Vec<Member>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Its number, which it has as long as it lives.
    #[serde(rename = "ID")]
    pub id: u64,
    /// Its machine's name; empty until it has started for the first time.
    #[serde(default)]
    pub name: String,
    /// Where the others reach it.
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    /// Whether it gets all data but has no vote yet.
    #[serde(rename = "isLearner", default)]
    pub is_learner: bool,
}

#[derive(Deserialize)]
struct Added {
    member: Member,
}

impl Members {
    /// From `member list`.
    ///
    /// # Errors
    /// It is no list; or a member has a name or an address that kup never gives one: they become words of a command, and of a file that
    /// systemd reads.
    pub fn parse(text: &str) -> Result<Members> {
        const WHAT: &str = "cannot understand etcd's list of members";
        let list: Members = serde_json::from_str(text).context(WHAT)?;
        let plain = |word: &str, more: &[u8]| word.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        for member in &list.members {
            let url = member.peer_urls.iter().find(|url| !plain(url, b":/.-"));
            if let Some(odd) = url.or(Some(&member.name).filter(|name| !plain(name, b".-"))) {
                return Err(Error::new(WHAT).why(format!("the member {:x} calls itself {}", member.id, quoted(odd))));
            }
        }
        Ok(list)
    }

    /// The number of the member that `member add` has made.
    pub fn added(text: &str) -> Result<u64> {
        serde_json::from_str::<Added>(text).map(|a| a.member.id).context("cannot understand what etcd says of the new member")
    }

    /// The member at a machine's address: names are not known before a member's first start, addresses are.
    pub fn by_peer(&self, peer: &Peer) -> Option<&Member> {
        let url = peer.etcd_peer_url();
        self.members.iter().find(|m| m.peer_urls.contains(&url))
    }

    /// All members.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// All but the one at a machine's address.
    pub fn without(&self, peer: &Peer) -> Members {
        let url = peer.etcd_peer_url();
        Members { members: self.members.iter().filter(|m| !m.peer_urls.contains(&url)).cloned().collect() }
    }

    /// `--initial-cluster` of one that joins these.
    pub fn initial_cluster(&self, joining: &Peer) -> String {
        let others = self.members.iter().flat_map(|m| m.peer_urls.iter().map(move |url| format!("{}={url}", m.name)));
        others.chain([format!("{}={}", joining.name, joining.etcd_peer_url())]).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"header":{"cluster_id":17,"member_id":18,"raft_term":2},"members":[
        {"ID":12593962471434107043,"name":"c-master-1","peerURLs":["https://172.29.0.11:2380"],"clientURLs":["https://172.29.0.11:2379"]},
        {"ID":77,"peerURLs":["https://172.29.0.13:2380"],"isLearner":true}]}"#;

    fn peer(number: u8) -> Peer {
        Peer { name: format!("c-master-{number}"), address: [172, 29, 0, 10 + number].into() }
    }

    #[test]
    fn members_are_known_by_their_address() {
        let members = Members::parse(LIST).unwrap();
        assert_eq!(members.by_peer(&peer(1)).unwrap().id, 12_593_962_471_434_107_043);
        assert_eq!(members.by_peer(&peer(2)), None);
        let third = members.by_peer(&peer(3)).unwrap();
        assert_eq!((third.id, third.name.as_str(), third.is_learner), (77, "", true));
        assert!(Members::parse("Error: context deadline exceeded").is_err());
        for (name, odd) in [("c-master-1", "x;id"), ("c-master-1", r"x\nETCD_DATA_DIR=/"), ("172.29.0.11", "$(id)")] {
            assert!(Members::parse(&LIST.replacen(name, odd, 1)).unwrap_err().why[0].contains("calls itself"), "{odd}");
        }
    }

    #[test]
    fn one_that_joins_meets_the_others_and_never_its_predecessor() {
        let members = Members::parse(LIST).unwrap();
        assert_eq!(
            members.without(&peer(3)).initial_cluster(&peer(3)),
            "c-master-1=https://172.29.0.11:2380,c-master-3=https://172.29.0.13:2380"
        );
        assert_eq!(Members::added(r#"{"header":{},"member":{"ID":99,"peerURLs":["u"],"isLearner":true}}"#).unwrap(), 99);
    }
}
