//! Each action of what `kup iam policy` prints, taken away: what fails for the lack of it says its name.

use std::collections::BTreeSet;
use std::time::Instant;

use kup::aws::permissions::action_of;

use super::policy::{Allowed, table};
use super::story::{difference, down, up};
use super::user::Account;
use super::wire::Verdict;
use crate::ensure;
use crate::support::Check;
use crate::support::cluster::Output;

/// An action that is taken away, as the line sees it: the calls that mostly need it.
#[derive(Debug, Clone)]
struct Taken {
    action: String,
    calls: BTreeSet<String>,
}

/// What is taken away one after the other, by when it is missed.
#[derive(Debug, Clone, Default)]
struct Rounds {
    /// By an `up` that has everything before it, before it makes anything.
    begins: Vec<Taken>,
    /// By an `up` of a cluster that stands.
    looks: Vec<Taken>,
    /// By a `down`, which then has not begun.
    looks_down: Vec<Taken>,
    /// By an `up` in the middle of it.
    makes: Vec<Taken>,
    /// By a `down` in the middle of it.
    removes: Vec<Taken>,
}

impl Rounds {
    fn lists(&mut self) -> [&mut Vec<Taken>; 5] {
        [&mut self.begins, &mut self.looks, &mut self.looks_down, &mut self.makes, &mut self.removes]
    }

    /// Each second one, for another account.
    fn half(&mut self) -> Rounds {
        let mut other = Rounds::default();
        for (mine, theirs) in self.lists().into_iter().zip(other.lists()) {
            let all = std::mem::take(mine).into_iter().enumerate();
            let (even, odd): (Vec<_>, Vec<_>) = all.partition(|(i, _)| i % 2 == 0);
            mine.extend(even.into_iter().map(|(_, taken)| taken));
            theirs.extend(odd.into_iter().map(|(_, taken)| taken));
        }
        other
    }
}

/// A cluster as small as they come: each `up` leaves machines in moto's list for ever, and makes its answers slower.
const SMALL: [&str; 2] = ["--minions", "1"];

/// What a plain life calls, and by that when each action is missed.
async fn rounds(account: &Account, name: &str) -> Check<Rounds> {
    let life = async |what: &str, run: Check<Output>| -> Check<BTreeSet<String>> {
        run?.ok(what)?;
        let calls = account.wire.counts().into_keys().collect();
        account.wire.clear();
        Ok(calls)
    };
    account.wire.clear();
    let made = life("kup up", up(account, name, &SMALL).await).await?;
    let again = life("kup up again", up(account, name, &SMALL).await).await?;
    let removed = life("kup down", down(account, name).await).await?;
    let table = table(account, &["--provider", "aws", "--name", name]).await?;
    // Nothing is called that the policy does not know.
    let known: BTreeSet<&String> = table.iter().flat_map(|row| &row.calls).collect();
    let unknown: Vec<&String> = made.union(&removed).filter(|call| !known.contains(call)).collect();
    ensure!(unknown.is_empty(), "the policy has nothing for {unknown:?}");
    let (mut rounds, mut taken_before) = (Rounds::default(), BTreeSet::new());
    for Allowed { action, calls, .. } in table.into_iter().filter(|row| !row.optional) {
        // A call that needs several actions fails by the name of one of them: the others can't be told from it on the line.
        let calls: BTreeSet<String> = calls.into_iter().filter(|call| action_of(call) == Some(action.as_str())).collect();
        let (makes, looks, removes) = (!calls.is_disjoint(&made), !calls.is_disjoint(&again), !calls.is_disjoint(&removed));
        let reads = calls.iter().all(|call| kup::aws::client::reads(call));
        // moto removes a network that an endpoint stands in, and a policy that a user has; then it can remove neither endpoint nor user.
        let removes = removes && !["ec2:DeleteVpcEndpoints", "iam:DetachUserPolicy"].contains(&action.as_str());
        if !makes && !removes {
            eprintln!("{action} is not missed here");
        }
        // One action may be allowed on things of several kinds, by a row for each.
        if !taken_before.insert(action.clone()) {
            continue;
        }
        // AWS answers who one is even to those whom it is denied.
        if action == "sts:GetCallerIdentity" {
            continue;
        }
        let taken = Taken { action, calls };
        match reads {
            true if looks => rounds.looks.push(taken.clone()),
            true if makes => rounds.begins.push(taken.clone()),
            false if makes => rounds.makes.push(taken.clone()),
            _ => {}
        }
        match reads {
            true if removes => rounds.looks_down.push(taken),
            false if removes => rounds.removes.push(taken),
            _ => {}
        }
    }
    Ok(rounds)
}

pub async fn each_action_taken_away_is_named(account: Account) -> Check {
    let name = "denied";
    let mut mine = rounds(&account, name).await?;
    // What is in the way of a removal is waited for, so that two accounts are done with it in half of the time.
    let other = Account::open(account.backend).await?;
    let theirs = mine.half();
    let (here, there) = tokio::try_join!(taken_away(&account, name, mine), taken_away(&other, name, theirs))?;
    let failed = [here, there].concat();
    ensure!(failed.is_empty(), "{} were not named:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

/// Without each of these actions `up` or `down` fails by its name, and has done its work once it has it again. Tells those that were not
/// named; what else goes wrong ends it.
async fn taken_away(account: &Account, name: &str, rounds: Rounds) -> Check<Vec<String>> {
    let before = account.dump().await?;
    let mut failed = Vec::new();
    for taken in &rounds.begins {
        failed.extend(without(account, name, taken, Half::Up).await?);
        if changed(account) {
            down(account, name).await?.ok("kup down with all rights")?;
        }
    }
    up(account, name, &SMALL).await?.ok("kup up with all rights")?;
    let looks =
        rounds.looks.iter().map(|taken| (taken, Half::Up)).chain(rounds.looks_down.iter().map(|taken| (taken, Half::Down)));
    for (taken, half) in looks {
        failed.extend(without(account, name, taken, half).await?);
        if changed(account) {
            up(account, name, &SMALL).await?.ok("kup up with all rights")?;
        }
    }
    // What an `up` could not make is made by the next, and what a `down` could not remove is removed by the next.
    for i in 0..rounds.makes.len().max(rounds.removes.len()) {
        if let Some(taken) = rounds.removes.get(i) {
            up(account, name, &SMALL).await?.ok("kup up with all rights")?;
            failed.extend(without(account, name, taken, Half::Down).await?);
        }
        down(account, name).await?.ok("kup down with all rights")?;
        if let Some(taken) = rounds.makes.get(i) {
            failed.extend(without(account, name, taken, Half::Up).await?);
        }
    }
    down(account, name).await?.ok("kup down with all rights")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(failed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Up,
    Down,
}

/// Whether anything but objects was made, changed or removed since the line was set.
fn changed(account: &Account) -> bool {
    let object = |name: &str| ["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjects"].contains(&name);
    account.wire.calls().iter().any(|call| call.mutating && (200..300).contains(&call.status) && !object(&call.name))
}

/// Runs one half without an action: what is wrong with how it fails, if anything is.
async fn without(account: &Account, name: &str, taken: &Taken, half: Half) -> Check<Option<String>> {
    let begun = Instant::now();
    let denied = taken.calls.clone();
    account.wire.begin(move |call| match denied.contains(&call.name) {
        true => Verdict::Refuse(403, "AccessDenied", "User is not authorized to perform this"),
        false => Verdict::Pass,
    });
    let output = match half {
        Half::Up => up(account, name, &SMALL).await?,
        Half::Down => down(account, name).await?,
    };
    account.wire.deny_no_more();
    let (action, took) = (&taken.action, begun.elapsed().as_secs_f64());
    if output.code == Some(4) && output.stderr.contains(action.as_str()) {
        eprintln!("{half:?} without {action}: named, {took:.1} s");
        return Ok(None);
    }
    let words = format!("{half:?} without {action}: exit code {:?}\n{}{}", output.code, output.stdout, output.stderr);
    eprintln!("{words}");
    Ok(Some(words))
}
