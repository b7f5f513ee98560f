//! A cluster that stands: its machines as the provider finds them, with what was saved of it, so that a command can reach all of it.

use std::sync::Arc;
use std::time::Duration;

use crate::bootstrap::api::ApiClient;
use crate::cluster::Cluster;
use crate::cluster::problem::{did_you_mean, quoted};
use crate::error::{Error, Result};
use crate::machine::ssh::{LoginKey, Ssh};
use crate::machine::{Machine, Role};
use crate::pki::{Pair, Pki, layout};
use crate::provider::{ClusterId, Finder, Found, FoundMachine};
use crate::saved;

/// How long a machine may take to let kup in. It runs already, so this is about a dead one.
const LOGIN: Duration = Duration::from_secs(8);

/// A cluster with everything that is needed to ask its machines and its API.
pub struct Standing {
    /// Which one.
    pub id: ClusterId,
    /// The config it was last brought up with.
    pub cluster: Cluster,
    /// Its machines, running or not, masters first.
    pub machines: Vec<FoundMachine>,
    /// By which kup logs in to them.
    pub login: LoginKey,
    pki: Arc<Pki>,
}

impl Standing {
    /// Finds a cluster and reads what was saved of it.
    ///
    /// # Errors
    /// A cluster without machines, or whose state is not here, is an error that says what can be done.
    pub async fn of(id: &ClusterId, provider: &impl Finder) -> Result<Standing> {
        let Found { machines, .. } = find(id, provider).await?;
        let (cluster, pki) = tokio::try_join!(provider.config(id), provider.pki(id))?;
        let login = saved::login_key(id, &cluster)?;
        Ok(Standing { id: id.clone(), cluster, machines, login, pki })
    }

    /// The machine that a user's word means: its name, or the name without the cluster's.
    pub fn machine(&self, word: &str) -> Result<&FoundMachine> {
        pick(&self.id, &self.machines, word)
    }

    /// The machines that these words mean; all if there are none.
    pub fn chosen(&self, words: &[String]) -> Result<Vec<&FoundMachine>> {
        if words.is_empty() {
            return Ok(self.machines.iter().collect());
        }
        let mut chosen: Vec<&FoundMachine> = Vec::new();
        for word in words {
            let machine = self.machine(word)?;
            if !chosen.contains(&machine) {
                chosen.push(machine);
            }
        }
        Ok(chosen)
    }

    /// The masters, running or not.
    pub fn masters(&self) -> impl Iterator<Item = &FoundMachine> {
        self.machines.iter().filter(|m| m.machine.role == Role::Master)
    }

    /// The machines at which the API answers: masters, and what is in front of several.
    pub fn api_machines(&self) -> impl Iterator<Item = &FoundMachine> {
        self.machines.iter().filter(|m| m.machine.role != Role::Minion)
    }

    /// Its certificates and authorities.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The administrator's login.
    pub fn admin(&self) -> Result<Pair> {
        layout::admin(&self.pki)
    }

    /// A client of one master's API server, as the administrator.
    pub fn api(&self, master: &FoundMachine) -> Result<ApiClient> {
        ApiClient::new(master.machine.route(), &self.pki.cluster.pair.cert, &self.admin()?)
    }

    /// Logs in to one of its machines.
    ///
    /// # Errors
    /// It is stopped, or does not answer soon: those that are asked run already.
    pub async fn connect(&self, found: &FoundMachine) -> Result<Ssh> {
        if !found.running {
            return Err(Error::new(format!("machine {} is stopped", found.machine.name)));
        }
        Ssh::connect(&found.machine, &self.login, LOGIN).await
    }

    /// The shortest name of a machine: `master-1`, or the cloud's for one that has no other.
    pub fn short<'a>(&'a self, name: &'a str) -> &'a str {
        let found = self.machines.iter().find(|found| found.machine.name == name);
        found.and_then(|found| found.machine.called()).unwrap_or_else(|| short(&self.id, name))
    }
}

/// What stands of a cluster that is meant to stand.
///
/// # Errors
/// One that has no machine is an error that lists those there are.
pub async fn find(id: &ClusterId, provider: &impl Finder) -> Result<Found> {
    let found = provider.discover(&id.name).await?;
    if !found.machines.is_empty() {
        return Ok(found);
    }
    let name = &id.name;
    let all = provider.clusters().await?;
    if all.contains(name) {
        return Err(Error::new(format!("cluster {name} has no machine"))
            .why(format!("all that is left of it is {}", found.others.join(", ")))
            .hint(format!("`kup up {0}` makes its machines, `kup down {0}` removes the rest", id.flags())));
    }
    let mut error = Error::usage(format!("there is no cluster {} of the provider {}", quoted(name), id.provider.as_str()));
    if !all.is_empty() {
        error = error.why(format!("the clusters there are: {}", all.join(", ")));
    }
    if let Some(meant) = did_you_mean(name, all.iter().map(String::as_str)) {
        error = error.hint(format!("did you mean --name {meant}?"));
    }
    Err(error.hint("`kup up` makes one"))
}

/// The machine that a user's word means: its name, the name without the cluster's, or what it is called among the cluster's resources in a
/// cloud, where machines are named by the cloud: `master-1`.
///
/// # Errors
/// An unknown one is a usage error that lists those there are.
pub fn pick<'a>(id: &ClusterId, machines: &'a [FoundMachine], word: &str) -> Result<&'a FoundMachine> {
    let is = |machine: &Machine| machine.name == word || short(id, &machine.name) == word || machine.called() == Some(word);
    if let Some(found) = machines.iter().find(|found| is(&found.machine)) {
        return Ok(found);
    }
    let names = machines.iter().map(|m| both(id, &m.machine.name, m.machine.called()));
    let mut error = Error::usage(format!("cluster {} has no machine {}", id.name, quoted(word)))
        .why(format!("its machines are {}", names.collect::<Vec<_>>().join(", ")));
    let called = machines.iter().filter_map(|m| m.machine.called());
    let names = machines.iter().map(|m| short(id, &m.machine.name)).chain(machines.iter().map(|m| m.machine.name.as_str()));
    if let Some(meant) = did_you_mean(word, called.chain(names)) {
        error = error.hint(format!("did you mean {meant}?"));
    }
    Err(error)
}

/// A machine's names: `master-1`; `master-1 (i-0123456789abcdef0)` where its Node is named by the cloud.
pub fn both(id: &ClusterId, name: &str, called: Option<&str>) -> String {
    called.map_or_else(|| short(id, name).to_owned(), |called| format!("{called} ({name})"))
}

/// A machine's name without the cluster's.
pub fn short<'a>(id: &ClusterId, name: &'a str) -> &'a str {
    name.strip_prefix(id.name.as_str()).and_then(|rest| rest.strip_prefix('-')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::ProviderKind;
    use crate::machine::{BundleAccess, InCloud};

    fn machines() -> (ClusterId, Vec<FoundMachine>) {
        let id = ClusterId { provider: ProviderKind::Local, name: "a-b".into() };
        let machine = |name: &str, role| FoundMachine {
            machine: Machine {
                name: name.into(),
                role,
                address: [172, 29, 0, 11].into(),
                ssh_port: 22,
                user: "root".into(),
                host_key: "ssh-ed25519 AAAA".into(),
                bundle: BundleAccess::Mounted,
                cloud: None,
            },
            running: true,
        };
        (
            id,
            vec![
                machine("a-b-master-1", Role::Master),
                machine("a-b-minion-1", Role::Minion),
                machine("a-b-minion-10", Role::Minion),
            ],
        )
    }

    #[test]
    fn machines_are_found_by_their_long_and_short_names_alone() {
        let (id, all) = machines();
        let name = |word| pick(&id, &all, word).map(|m| m.machine.name.clone());
        assert_eq!(name("minion-1").unwrap(), "a-b-minion-1");
        assert_eq!(name("a-b-minion-10").unwrap(), "a-b-minion-10");
        for wrong in ["minion", "minion-2", "b-minion-1", "", "-oProxyCommand=x"] {
            assert_eq!(name(wrong).unwrap_err().kind.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn masters_in_a_cloud_are_also_found_by_what_they_are_there() {
        let (id, mut all) = machines();
        all[0].machine.name = "i-0123456789abcdef0".into();
        all[0].machine.cloud = Some(InCloud {
            provider_id: String::new(),
            resource: "master-1".into(),
            outside: None,
            called: Vec::new(),
            etcd_volume: None,
            place: None,
        });
        for word in ["master-1", "i-0123456789abcdef0"] {
            assert_eq!(pick(&id, &all, word).unwrap().machine.name, "i-0123456789abcdef0");
        }
        insta::assert_snapshot!(pick(&id, &all, "mastre-1").unwrap_err().to_string(), @r"
        cluster a-b has no machine `mastre-1`
          because: its machines are master-1 (i-0123456789abcdef0), minion-1, minion-10
          next: did you mean master-1?
        ");
    }

    #[test]
    fn an_unknown_machine_is_answered_with_those_there_are() {
        let (id, all) = machines();
        insta::assert_snapshot!(pick(&id, &all, "mastre-1").unwrap_err().to_string(), @r"
        cluster a-b has no machine `mastre-1`
          because: its machines are master-1, minion-1, minion-10
          next: did you mean master-1?
        ");
    }
}
