//! Worlds as nobody would write them into a test: any config, in an account where others have things that nearly are the cluster's, and any
//! change of it. Whatever they are, a second `up` changes nothing, a change is made or refused as a whole, `down` leaves the account as it
//! was, and nobody else's things are touched in between.
//!
//! A world follows from a number. Each run tries a few, chosen by the commit or by `KUP_TEST_SEED`, which names the first.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use super::story::{census, difference, down};
use super::user::{ADDRESSES, Account, PROCESSORS, SPOT_PROCESSORS, VPCS};
use crate::ensure;
use crate::support::cluster::Output;
use crate::support::seed::seed as commit;
use crate::support::{Check, eventually};

#[path = "worlds/config.rs"]
mod config;
#[path = "worlds/others.rs"]
mod others;

use config::{Config, Part, There, config};
use others::Other;

/// Worlds in which something was wrong once.
const REGRESSIONS: [u64; 0] = [];
/// How many others a run tries.
const SOME: u64 = 1;
/// How many one account bears: what others have in it grows.
const IN_AN_ACCOUNT: usize = 4;

/// A config, what it becomes, and what others have.
#[derive(Debug, Clone)]
struct World {
    first: Config,
    parts: Vec<Part>,
    other: Config,
    others: Vec<Other>,
    /// Whether a VPC that is given has Kubernetes' tag of this cluster already.
    tagged_before: bool,
}

impl World {
    fn any() -> impl Strategy<Value = World> {
        (config(), Part::any(), config(), Other::some(), any::<bool>())
            .prop_map(|(first, parts, other, others, tagged_before)| World { first, parts, other, others, tagged_before })
    }

    /// The world of this number.
    fn of(number: u64) -> Check<World> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        Ok(World::any().new_tree(&mut runner).map_err(|e| e.to_string())?.current())
    }

    fn second(&self) -> Config {
        self.parts.iter().fold(self.first.clone(), |config, part| part.change(&config, &self.other))
    }
}

/// A few, others with each commit.
pub async fn some_worlds() -> Check {
    let first = commit()?;
    let before = REGRESSIONS.get(usize::try_from(first)? % REGRESSIONS.len().max(1)).copied();
    all(before.into_iter().chain(first..first + SOME).collect()).await
}

pub async fn many_worlds() -> Check {
    let first = if std::env::var_os("KUP_TEST_SEED").is_some() { commit()? } else { 1_000_000 };
    let many = std::env::var("KUP_TEST_WORLDS").map_or(Ok(100), |text| text.parse())?;
    all(REGRESSIONS.into_iter().chain(first..first + many).collect()).await
}

async fn all(numbers: Vec<u64>) -> Check {
    for some in numbers.chunks(IN_AN_ACCOUNT) {
        let account = Account::strict(0.01).await?;
        account.raise(&[(VPCS, 40), (ADDRESSES, 30), (PROCESSORS, 400), (SPOT_PROCESSORS, 400)]).await?;
        for number in some {
            let (world, begun) = (World::of(*number)?, Instant::now());
            live(&account, &format!("world-{number}"), &world)
                .await
                .map_err(|e| format!("KUP_TEST_SEED={number} is a world in which something is wrong: {world:#?}\n{e}"))?;
            eprintln!("ok    world {number} ({:.0} s)", begun.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// A cluster's life in a world.
async fn live(account: &Account, name: &str, world: &World) -> Check {
    for other in &world.others {
        other.make(account, name).await.map_err(|e| format!("{other:?} of somebody else's: {e:?}"))?;
    }
    let second = world.second();
    let given = world.first.wants_given() || second.wants_given();
    let there = if given { others::shared_vpc(account, name, world.tagged_before).await? } else { There::default() };
    let before = quiet(account).await?;
    become_(account, name, &world.first, &there).await?.ok("kup up")?;
    stands(account, name, &world.first).await?;
    nothing_to_do(account, name, "kup up again").await?;
    untouched(account, &before, &there, "up").await?;

    let stood = quiet(account).await?;
    let changed = become_(account, name, &second, &there).await?;
    match world.first.keeps(&second) {
        Some(field) => {
            let told = ["error:", "because:", "next:"].iter().all(|word| changed.stderr.contains(word));
            ensure!(
                changed.code == Some(2) && told,
                "{field} can't change, and kup up ended with {:?}:\n{}{}",
                changed.code,
                changed.stdout,
                changed.stderr
            );
            ensure!(account.wire.sums().1 == 0, "before it was refused it called {:#?}", account.wire.counts());
            let now = quiet(account).await?;
            ensure!(now == stood, "what was refused changed something:\n{}", difference(&stood, &now));
        }
        None => {
            changed.ok("kup up with a change")?;
            stands(account, name, &second).await?;
            nothing_to_do(account, name, "kup up after the change").await?;
        }
    }
    untouched(account, &before, &there, "a change").await?;
    down(account, name).await?.ok("kup down")?;
    let same = |after: Value| -> Check<Result<(), String>> {
        Ok(if after == before { Ok(()) } else { Err(difference(&before, &after)) })
    };
    account.dump_until("the account to be as before", same).await
}

/// `kup up` with this config.
async fn become_(account: &Account, name: &str, config: &Config, there: &There) -> Check<Output> {
    account.write("cluster.yaml", &serde_yaml::to_string(&config.file(name, there))?)?;
    again(account).await
}

async fn again(account: &Account) -> Check<Output> {
    account.wire.clear();
    account.kup(&["up", "-f", "cluster.yaml", "--until", "infrastructure", "-y"]).await
}

async fn nothing_to_do(account: &Account, name: &str, what: &str) -> Check {
    again(account).await?.ok(what)?;
    ensure!(account.wire.sums().1 == 0, "{what} of {name} made calls: {:#?}", account.wire.counts());
    Ok(())
}

/// As many of everything as this config says.
async fn stands(account: &Account, name: &str, config: &Config) -> Check {
    eventually(&format!("what cluster {name} is to have"), async || {
        let is = census(account, name).await?;
        let (masters, minions) = (config.masters, config.minion_count());
        let right = is["masters"] == masters
            && is["minions"] == minions
            && is["addresses"] == masters
            && is["subnets"] == config.own_subnets();
        Ok(if right { Ok(()) } else { Err(format!("{is:#} where there are to be {masters} masters and {minions} minions")) })
    })
    .await
}

/// What there is, once nothing moves by itself any more.
async fn quiet(account: &Account) -> Check<Value> {
    let mut last = Value::Null;
    let still = |now: Value| -> Check<Result<Value, String>> {
        let text = now.to_string().to_lowercase();
        let moving = ["pending", "shutting-down", "stopping", "creating", "provisioning"];
        let moving = moving.into_iter().find(|word| text.contains(&format!("\"{word}\"")));
        let same = now == last;
        last = now.clone();
        Ok(match moving {
            Some(word) => Err(format!("something is {word}")),
            None if same => Ok(now),
            None => Err("it has just changed".to_owned()),
        })
    };
    account.dump_until("the account to be quiet", still).await
}

/// Everything of others is as it was, but for the tags of what is given.
async fn untouched(account: &Account, before: &Value, there: &There, by: &str) -> Check {
    let now = things(&account.dump().await?);
    let given: Vec<&String> = there.subnets.values().chain([&there.vpc]).filter(|id| !id.is_empty()).collect();
    for (kind, theirs) in things(before) {
        let here = now.get(&kind).cloned().unwrap_or_default();
        for thing in theirs.iter().filter(|thing| !here.contains(*thing)) {
            let tagged =
                ["Vpcs", "Subnets"].iter().any(|word| kind.ends_with(word)) && given.iter().any(|id| thing.contains(id.as_str()));
            ensure!(tagged, "{by} changed something of somebody else's in {kind}: it was\n{thing}\nand there is\n{here:#?}");
        }
    }
    Ok(())
}

/// What a dump lists, by region, service and kind.
fn things(dump: &Value) -> BTreeMap<String, Vec<String>> {
    let mut things = BTreeMap::new();
    let objects = |value: &Value| value.as_object().cloned().unwrap_or_default();
    for (region, services) in objects(dump) {
        for (service, kinds) in objects(&services) {
            for (kind, list) in objects(&kinds) {
                let texts = list.as_array().into_iter().flatten().map(Value::to_string).collect();
                things.insert(format!("{region} {service} {kind}"), texts);
            }
        }
    }
    things
}
