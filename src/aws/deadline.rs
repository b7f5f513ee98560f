//! How long AWS may take to answer what is asked before anything is made. Nobody has begun to wait for a cluster yet: silence is better
//! told than waited for.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::{Error, Result};

/// What has to be known. The SDK tries again within it where a line or AWS has a bad moment.
const NEEDED: Duration = Duration::from_secs(20);
/// What only warns earlier of what would be told later too.
const SPARE: Duration = Duration::from_secs(3);

/// Limits of single questions, with all tries of their calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Of one without whose answer nothing can be made.
    pub needed: Duration,
    /// Of one that can be passed over.
    pub spare: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { needed: NEEDED, spare: SPARE }
    }
}

impl Deadlines {
    /// The answer to what has to be known.
    ///
    /// # Errors
    /// Those of the question itself; and that there was no answer in time to `what`, which is said after "AWS did not say".
    pub async fn needed<T>(&self, what: &str, ask: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout(self.needed, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(format!("AWS did not say within {} {what}", seconds(self.needed)))
                .why("without that nothing can be made")
                .hint("try again; if it stays so, check the network, and AWS_ENDPOINT_URL if you set it")),
        }
    }

    /// The answer to what can be passed over; none if there was none in time.
    pub async fn spare<T>(&self, ask: impl Future<Output = T>) -> Option<T> {
        timeout(self.spare, ask).await.ok()
    }
}

/// `3 s`
pub fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[cfg(test)]
#[path = "deadline_tests.rs"]
mod tests;
