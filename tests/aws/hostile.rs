//! AWS on its worst days, as the emulator's hostile profile has it: throttling, errors, lost replies, what is new and not yet known, no
//! capacity. Each `up` ends well or stops with a reason and what to type; typed again, it goes on; and `down` leaves nothing.

use super::story::{difference, down, up};
use super::user::Account;
use crate::ensure;
use crate::support::cluster::Output;
use crate::support::seed::seed as commit;
use crate::support::{Check, eventually};

/// Seeds with which something was wrong once.
const REGRESSIONS: [u64; 5] = [1, 2, 3, 10, 13];
/// How often the same may be typed until it has gone through: capacity lacks now and then, and is asked for again.
const TRIES: usize = 6;

/// Another one with each commit.
pub async fn one_bad_day_ends_well() -> Check {
    let which = REGRESSIONS[usize::try_from(commit()?)? % REGRESSIONS.len()];
    eprintln!("seed {which}");
    bad_day(which).await
}

pub async fn fifty_bad_days_end_well() -> Check {
    for seed in REGRESSIONS.into_iter().chain(100..150) {
        bad_day(seed).await.map_err(|e| format!("seed {seed}: {e}"))?;
        eprintln!("ok    seed {seed}");
    }
    Ok(())
}

async fn bad_day(seed: u64) -> Check {
    let account = Account::hostile(seed).await?;
    let name = "stormy";
    let before = account.dump().await?;
    through(seed, "up", async || up(&account, name, &["--minions", "2"]).await).await?;
    through(seed, "down", async || down(&account, name).await).await?;
    // What is gone is still listed for a moment.
    eventually("the account to be as before", async || {
        let after = account.dump().await?;
        Ok(if after == before { Ok(()) } else { Err(difference(&before, &after)) })
    })
    .await
}

/// Has a command typed until it has gone through. Each time that it does not, it must have said why, and what to type.
async fn through(seed: u64, what: &str, run: impl AsyncFn() -> Check<Output>) -> Check {
    let mut said = Vec::new();
    for _ in 0..TRIES {
        let output = run().await?;
        if output.code == Some(0) {
            return Ok(());
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
