//! The story of `kup up` on AWS as far as this release tells it: everything that the machines need, and the machines themselves. They
//! boot; that they become a cluster is told by a later one.

use std::time::Duration;

use super::Up;
use crate::aws::Aws;
use crate::aws::census::{self, Billed, Thing};
use crate::aws::lock::Lock;
use crate::aws::prices::{Cost, Item, Prices, Usage};
use crate::error::{Error, Kind, Result};
use crate::interrupt::Interrupt;
use crate::provider::aws::{AwsPlan, AwsProvider};
use crate::report::Report;

/// How long AWS may take to say, after a failure, what is there.
const AFTERMATH: Duration = Duration::from_secs(20);

/// The same for a user who has stopped the work and waits: with the lock's return it must fit into [`crate::interrupt::LIMIT`].
const SHORT_AFTERMATH: Duration = Duration::from_secs(3);

impl Up {
    /// Refuses what can't be done on AWS yet, before anything is asked or made.
    ///
    /// # Errors
    /// Anything but `--until infrastructure`, of kind usage.
    pub fn refuse_beyond_infrastructure(&self) -> Result<()> {
        if self.until == Some(super::Until::Infrastructure) {
            return Ok(());
        }
        let name = &self.cluster.name;
        Err(Error::usage(
            "this release builds everything that a cluster needs on AWS, but does not turn its machines into a cluster yet",
        )
        .why("the network, IAM, bucket, volumes, masters and groups of minions are made; Kubernetes is not started on them")
        .hint(format!("`kup up --provider aws --name {name} --until infrastructure` builds that"))
        .hint("`kup up --provider local` makes a whole cluster on this machine"))
    }

    /// Makes what the plan says. Says whether anything was changed.
    pub async fn infrastructure(
        &self,
        provider: &AwsProvider,
        plan: AwsPlan,
        interrupt: &Interrupt,
        report: &Report,
    ) -> Result<bool> {
        let changes = !plan.is_empty();
        if !changes && !plan.keeps {
            return Ok(false);
        }
        let span = report.step("lock");
        let lock = match span.close(Lock::take(&provider.aws, &self.command, self.break_lock).await) {
            Ok(lock) => lock,
            // Nothing of ours was made: what stands is whoever's who holds the lock.
            Err(error) => return Err(error),
        };
        let work = async {
            let plan = provider.again(&self.cluster, plan, &self.replace).await?;
            provider.apply(&plan, report).await.map_err(|e| AwsProvider::elsewhere(e, &self.cluster))
        };
        match lock.during(report, interrupt.or(work)).await {
            Ok(()) => Ok(changes),
            Err(error) if error.kind == Kind::Interrupted => Err(self.what_is_left(error, provider, SHORT_AFTERMATH).await),
            Err(error) => Err(self.what_is_left(error, provider, AFTERMATH).await),
        }
    }

    /// Says what stands now, and what it costs: nothing is removed on its own.
    async fn what_is_left(&self, error: Error, provider: &AwsProvider, patience: Duration) -> Error {
        let (aws, name) = (&provider.aws, &self.cluster.name);
        let place = format!("{}/{}", aws.identity.account, aws.region);
        let again = format!("kup up {} --until infrastructure", aws.flags());
        let error = match tokio::time::timeout(patience, census::take(aws, Some(name))).await {
            Ok(Ok(things)) if things.is_empty() => return error.hint(format!("nothing was made; `{again}` tries again")),
            Ok(Ok(things)) => {
                error.left(format!("{} of cluster {name} in {place}{}", counted(&things), cost(&aws.region, &things)))
            }
            // What could not be asked is no reason to hide why the work failed.
            Ok(Err(_)) | Err(_) => {
                error.left(format!("what was made of cluster {name} in {place} until then; AWS could not be asked what that is"))
            }
        };
        error.hint(format!("`{again}` goes on from here, `{}` removes it", down(aws)))
    }
}

/// The command that removes a cluster.
pub fn down(aws: &Aws) -> String {
    format!("kup down {}", aws.flags())
}

/// `1 resource`, `12 resources`.
pub fn counted(things: &[Thing]) -> String {
    if things.len() == 1 { "1 resource".to_owned() } else { format!("{} resources", things.len()) }
}

/// `, about $0.123 an hour, $89.79 a month`; nothing for things that cost nothing by themselves.
pub fn cost(region: &str, things: &[Thing]) -> String {
    let usage: Vec<Usage> = things.iter().filter_map(|thing| usage(&thing.billed)).collect();
    match Prices::in_region(region) {
        _ if usage.is_empty() => String::new(),
        Ok(prices) => format!(", {}", Cost::of(&usage, &prices).words()),
        Err(_) => ", at an unknown price".to_owned(),
    }
}

fn usage(billed: &Billed) -> Option<Usage> {
    let (item, quantity) = match billed {
        Billed::No => return None,
        Billed::Instance(of) => (Item::Instance(of.clone()), 1.0),
        Billed::Volume { size, .. } => (Item::Gp3, f64::from(*size)),
        Billed::Address => (Item::PublicIpv4, 1.0),
        Billed::LoadBalancer(_) => (Item::NetworkLoadBalancer, 1.0),
    };
    Some(Usage { item, quantity })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::aws::census::Maker;

    fn thing(billed: Billed) -> Thing {
        Thing {
            cluster: "a".into(),
            kind: "volume",
            id: "vol-1".into(),
            name: String::new(),
            maker: Maker::Kup,
            billed,
            vpc: None,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn only_what_is_paid_by_the_hour_has_a_cost() {
        assert_eq!(cost("us-west-2", &[thing(Billed::No)]), "");
        assert_eq!(cost("nowhere-1", &[thing(Billed::Instance("t3.small".into()))]), ", at an unknown price");
        let both = [thing(Billed::No), thing(Billed::Instance("t3.small".into()))];
        assert!(cost("us-west-2", &both).contains("an hour"), "{}", cost("us-west-2", &both));
        assert_eq!((counted(&both[..1]), counted(&both)), ("1 resource".to_owned(), "2 resources".to_owned()));
    }
}
