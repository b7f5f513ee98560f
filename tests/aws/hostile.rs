//! AWS on its worst days, as the emulator's hostile profile has it: throttling, errors, lost replies, what is new and not yet known, no
//! capacity. Each `up` ends well or stops with a reason and what to type; typed again, it goes on; and `down` leaves nothing. None of them
//! makes more than twice the calls that it makes where nothing goes wrong.

use super::story::{difference, down, up};
use super::user::{Account, Backend};
use crate::ensure;
use crate::support::Check;
use crate::support::cluster::Output;
use crate::support::seed::seed as commit;

/// Seeds with which something was wrong once.
const REGRESSIONS: [u64; 5] = [1, 2, 3, 10, 13];
const NAME: &str = "stormy";
const SIZE: [&str; 2] = ["--minions", "2"];
/// How often the same may be typed until it has gone through: capacity lacks now and then, and is asked for again.
const TRIES: usize = 6;

/// Another one with each commit.
pub async fn one_bad_day_ends_well() -> Check {
    let which = REGRESSIONS[usize::try_from(commit()?)? % REGRESSIONS.len()];
    bad_day(which, usual().await?).await
}

pub async fn fifty_bad_days_end_well() -> Check {
    let usual = usual().await?;
    // `KUP_TEST_SEED` names the first of other ones.
    let first = if std::env::var_os("KUP_TEST_SEED").is_some() { commit()? } else { 100 };
    for seed in REGRESSIONS.into_iter().chain(first..first + 50) {
        bad_day(seed, usual).await.map_err(|e| format!("seed {seed}: {e}"))?;
    }
    Ok(())
}

/// How many calls `up` and `down` take where nothing goes wrong.
async fn usual() -> Check<(usize, usize)> {
    let account = Account::open(Backend::Moto).await?;
    up(&account, NAME, &SIZE).await?.ok("kup up")?;
    let made = account.wire.sums().0;
    account.wire.clear();
    down(&account, NAME).await?.ok("kup down")?;
    Ok((made, account.wire.sums().0))
}

async fn bad_day(seed: u64, (ups, downs): (usize, usize)) -> Check {
    let account = Account::hostile(seed).await?;
    let before = account.dump().await?;
    let made = through(&account, seed, "up", async || up(&account, NAME, &SIZE).await).await?;
    let removed = through(&account, seed, "down", async || down(&account, NAME).await).await?;
    eprintln!("seed {seed}: up in {made:?} calls instead of {ups}, down in {removed:?} instead of {downs}");
    let many = made.iter().any(|calls| *calls > 2 * ups) || removed.iter().any(|calls| *calls > 2 * downs);
    ensure!(
        !many,
        "seed {seed}: more than twice the calls of a day on which nothing goes wrong: {made:?} of {ups}, {removed:?} of {downs}"
    );
    // What is gone is still listed for a moment.
    let same = |after: serde_json::Value| -> Check<Result<(), String>> {
        Ok(if after == before { Ok(()) } else { Err(difference(&before, &after)) })
    };
    account.dump_until("the account to be as before", same).await
}

/// Has a command typed until it has gone through. Each time that it does not, it must have said why, and what to type.
/// Returns how many calls each took.
async fn through(account: &Account, seed: u64, what: &str, run: impl AsyncFn() -> Check<Output>) -> Check<Vec<usize>> {
    let (mut said, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        account.wire.clear();
        let output = run().await?;
        calls.push(account.wire.sums().0);
        if output.code == Some(0) {
            return Ok(calls);
        }
        let whole = ["error:", "because:", "next:"].iter().all(|word| output.stderr.contains(word));
        ensure!(whole, "seed {seed}: {what} ended with {:?} and without its reason:\n{}", output.code, output.stderr);
        let capacity = output.stderr.contains("InsufficientInstanceCapacity") || output.stderr.contains("VcpuLimitExceeded");
        ensure!(
            capacity || !output.stderr.contains("otherTypes"),
            "seed {seed}: {what} calls something lack of capacity that is none:\n{}",
            output.stderr
        );
        said.push(output.stderr);
    }
    Err(format!("seed {seed}: {what} has not gone through in {TRIES} times:\n{}", said.join("\n---\n")).into())
}
