//! What the end-to-end tests share: a cluster that is always taken down again, its API, and named checks.

// Not every test program uses everything in here.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::print_stderr)]

pub mod api;
pub mod checks;
pub mod cluster;
pub mod host;
pub mod seed;
pub mod tls;

use std::time::{Duration, Instant};

/// What a check ends with: its failure is text for people, with what the world said.
pub type Check<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Fails the check with a message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}

/// How long anything may take that has no deadline of its own: far more than it does, also on a busy machine.
pub const LONG: Duration = Duration::from_secs(150);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(300);

/// Looks until `look` gives a value. It says what is still missing otherwise, and that is in the failure.
///
/// # Errors
/// After [`LONG`], with what was seen last.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Check<Result<T, String>>) -> Check<T> {
    within(LONG, what, look).await
}

/// As [`eventually`], with a deadline of its own.
pub async fn within<T>(deadline: Duration, what: &str, mut look: impl AsyncFnMut() -> Check<Result<T, String>>) -> Check<T> {
    let until = Instant::now() + deadline;
    loop {
        // A look that fails (a connection cut while a machine dies) is a look that saw nothing.
        let seen = match tokio::time::timeout(Duration::from_secs(15), look()).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(seen))) => seen,
            Ok(Err(e)) => e.to_string(),
            Err(_) => "no answer within 15 s".to_owned(),
        };
        if Instant::now() >= until {
            return Err(format!("{what}: not within {} s; last seen: {seen}", deadline.as_secs()).into());
        }
        tokio::time::sleep(POLL).await;
    }
}
