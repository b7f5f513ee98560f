//! kup killed at every call that changes something, before and after it took effect, and at calls that only look: whoever types the same
//! again ends where nothing had happened, and `down` leaves nothing.
//!
//! The points are the calls of an undisturbed `up` and `down`, counted first. A part of them is tried in every run of the tests, chosen by
//! the commit (or by `KUP_TEST_SEED`), and all with `scripts/test --all`.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::story::{UP, difference, down, flatten, up};
use super::user::Account;
use super::wire::{Call, Verdict};
use crate::ensure;
use crate::support::Check;
use crate::support::seed::seed;

/// Each point has a cluster of its own name: moto remembers the tags of a bucket that is gone, and gives them to the next one of its name.
const NAME: &str = "killed";
/// How many points a run tries that does not try all.
const SOME: usize = 14;
/// The same where AWS takes its time, keeps its rules and takes so many calls: there each takes longer.
const SOME_STRICT: usize = 2;
/// One of so many calls that only look is a point too.
const LOOKS: usize = 9;

/// After how many points another account is taken: what was terminated is kept by emulators for ever, and makes them slower and slower.
const AFRESH: usize = 20;

/// Where kup is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Up,
    Down,
}

/// At which of its calls: those that change something are counted apart from those that look.
#[derive(Debug, Clone, Copy)]
struct Point {
    command: Command,
    mutating: bool,
    at: usize,
    verdict_after: bool,
}

impl Point {
    /// What becomes of the calls of the run that is to be killed here.
    fn rule(self) -> impl FnMut(&Call) -> Verdict + Send + 'static {
        let mut seen = 0;
        move |call| {
            if call.mutating != self.mutating {
                return Verdict::Pass;
            }
            seen += 1;
            match (seen - 1 == self.at, self.verdict_after) {
                (true, false) => Verdict::KillBefore,
                (true, true) => Verdict::KillAfter,
                (false, _) => Verdict::Pass,
            }
        }
    }
}

/// All points of a command that made these calls.
fn points(command: Command, calls: &[Call]) -> Vec<Point> {
    let mutating = calls.iter().filter(|call| call.mutating).count();
    let point = |mutating, at, verdict_after| Point { command, mutating, at, verdict_after };
    let changes = (0..mutating).flat_map(|at| [point(true, at, false), point(true, at, true)]);
    let looks = (0..calls.len() - mutating).step_by(LOOKS).map(|at| point(false, at, false));
    changes.chain(looks).collect()
}

/// What is in an account, by which two worlds are the same: without ids, times, keys and addresses, which are others each time, and without
/// how often the bucket's objects were written.
fn shape(dump: &Value) -> Check<BTreeMap<String, usize>> {
    let own = [
        (r"\bkilled-\d+\b", "CLUSTER"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"\b([a-z]+(-[a-z]+)*)-[0-9a-f]{8,17}\b", "$1-ID"),
        (r"\b\d{1,3}([.-]\d{1,3}){3}\b", "ADDRESS"),
        (r"\d{4}-\d\d-\d\d[T ][0-9:.]+(Z|\+00:00)?", "TIME"),
        (r"\b\d-[0-9a-f]{8}\b", "DIGEST"),
        // Fingerprints too; and as LocalStack writes those of interfaces, 02:00:00:12302x:10702x:502x.
        (r"\b[0-9a-f]{2}(:(\d{1,3}02x|[0-9a-f]{2})){5,}", "MAC"),
        (r"SHA256:[A-Za-z0-9+/=]+", "FINGERPRINT"),
        (r"(ssh-[a-z0-9]+|ecdsa-sha2-[a-z0-9]+) [A-Za-z0-9+/=]+", "KEY"),
        (r"[A-Za-z0-9+/]{60,}={0,2}", "DATA"),
        (r#"Id = "[a-zA-Z0-9]{16,21}""#, "Id = ID"),
        // Where in a list something is, is where its id stands among others.
        (r"\[\d+\]", "[]"),
    ];
    let own: Vec<(Regex, &str)> =
        own.iter().map(|(what, with)| Ok((Regex::new(what)?, *with))).collect::<Result<_, regex::Error>>()?;
    let writes = Regex::new(r"\.s3\.Buckets\[\]\.Versions\[\]\.(\w+)")?;
    let mut lines = std::collections::BTreeSet::new();
    flatten(dump, String::new(), &mut lines);
    let mut shape = BTreeMap::new();
    for mut line in lines {
        for (what, with) in &own {
            line = what.replace_all(&line, *with).into_owned();
        }
        match writes.captures(&line).map(|found| found[1].to_owned()) {
            Some(field) if field == "Key" => drop(shape.insert(line, 1)),
            Some(_) => {}
            None => *shape.entry(line).or_default() += 1,
        }
    }
    Ok(shape)
}

/// The lines in which two worlds differ.
fn differ(one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>) -> String {
    let lines = |a: &BTreeMap<String, usize>, b: &BTreeMap<String, usize>, sign: &str| -> Vec<String> {
        let more = a.iter().filter(|(line, count)| b.get(*line) != Some(count));
        more.map(|(line, count)| format!("{sign} {count} × {line}")).collect()
    };
    [lines(one, other, "-"), lines(other, one, "+")].concat().into_iter().take(40).collect::<Vec<_>>().join("\n")
}

/// What is there once everything that was asked for runs: the world twice the same, with all machines in it.
async fn settled(account: &Account) -> Check<BTreeMap<String, usize>> {
    let runs = |dump: Value| -> Check<Result<_, String>> {
        let there = dump.to_string();
        let still =
            ["pending", "Pending", "creating", "provisioning"].into_iter().find(|word| there.contains(&format!("\"{word}\"")));
        Ok(match still {
            Some(word) => Err(format!("something is {word}")),
            None => Ok(shape(&dump)?),
        })
    };
    account.dump_until("all machines to run", runs).await
}

pub async fn killed_at_some_calls_it_goes_on(account: Account) -> Check {
    at_points(account, Some(SOME)).await
}

pub async fn killed_at_every_call_it_goes_on(account: Account) -> Check {
    at_points(account, None).await
}

/// At some, on an account with AWS's own rules, waiting times and token buckets.
pub async fn killed_where_aws_takes_its_time() -> Check {
    at_points(Account::strict(0.05).await?, Some(SOME_STRICT)).await
}

pub async fn killed_anywhere_where_aws_takes_its_time() -> Check {
    at_points(Account::strict(0.05).await?, None).await
}

async fn at_points(mut account: Account, some: Option<usize>) -> Check {
    let mut before = account.dump().await?;
    let first = format!("{NAME}-0");
    account.wire.clear();
    up(&account, &first, &[]).await?.ok("kup up")?;
    let ups = points(Command::Up, &account.wire.calls());
    let whole = settled(&account).await?;
    account.wire.clear();
    down(&account, &first).await?.ok("kup down")?;
    let downs = points(Command::Down, &account.wire.calls());
    let all: Vec<Point> = ups.into_iter().chain(downs).collect();
    let (seed, stride) = (seed()?, some.map_or(1, |some| all.len().div_ceil(some)));
    let first = usize::try_from(seed)? % stride;
    let chosen: Vec<Point> = all.iter().skip(first).step_by(stride).copied().collect();
    eprintln!("{} of {} points, from the {first}. on each {stride}. (KUP_TEST_SEED={seed})", chosen.len(), all.len());
    for (n, point) in chosen.into_iter().enumerate() {
        if n > 0 && n % AFRESH == 0 {
            account = account.another().await?;
            before = account.dump().await?;
        }
        at(&account, &format!("{NAME}-{}", n + 1), point, &whole).await?;
        let after = account.dump().await?;
        ensure!(after == before, "{point:?}: down left or took:\n{}", difference(&before, &after));
        if some.is_none() {
            eprintln!("ok    {point:?}");
        }
    }
    Ok(())
}

/// Kills kup there, has it go on, and removes the cluster.
async fn at(account: &Account, name: &str, point: Point, whole: &BTreeMap<String, usize>) -> Check {
    let removes = ["down", "--provider", "aws", "-y", "--name"];
    let words = if point.command == Command::Up { &UP[..] } else { &removes[..] };
    if point.command == Command::Down {
        account.wire.clear();
        up(account, name, &[]).await?.ok("kup up")?;
    }
    account.wire.begin(point.rule());
    let status = account.start_victim(&[words, &[name]].concat())?.wait().await?;
    let call =
        account.wire.calls().into_iter().filter(|call| call.mutating == point.mutating).nth(point.at).map(|call| call.name);
    account.wire.clear();
    // What runs at the same time may be one call less: then there was nothing to be killed at.
    ensure!(
        status.code().is_none() || (call.is_none() && status.success()),
        "{point:?} at {call:?}: it was not killed: {status}"
    );
    if point.command == Command::Up {
        up(account, name, &[]).await?.ok(&format!("kup up after {point:?} at {call:?}"))?;
        let what = format!("after {point:?} at {call:?}, what there is undisturbed");
        let same = |dump: Value| -> Check<Result<(), String>> {
            let now = shape(&dump)?;
            Ok(if now == *whole { Ok(()) } else { Err(differ(whole, &now)) })
        };
        account.dump_until(&what, same).await?;
    }
    down(account, name).await?.ok(&format!("kup down after {point:?} at {call:?}")).map(drop)
}
