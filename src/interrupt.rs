//! The user's wish to stop, for work that has something to put in order first: like letting go of a lock in a bucket.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

/// How long work may take to put things in order.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Tells work that the user wants to stop. Clones tell of the same wish.
#[derive(Clone)]
pub struct Interrupt(Arc<watch::Sender<bool>>);

impl Default for Interrupt {
    fn default() -> Self {
        Interrupt(Arc::new(watch::channel(false).0))
    }
}

impl Interrupt {
    /// Does the work until it ends or the user wants to stop, so that whoever waits for this can put things in order then.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut wish = self.0.subscribe();
        tokio::select! {
            outcome = work => outcome,
            // The sender is `self`'s, which outlives this.
            _ = wish.wait_for(|stop| *stop) => Err(Error::new("interrupted").kind(Kind::Interrupted)),
        }
    }

    /// Says that the user wants to stop, and whether any work minds.
    pub fn stop(&self) -> bool {
        self.0.send_replace(true);
        self.0.receiver_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_minds_is_told_and_others_are_not_waited_for() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.stop());
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        let work = tokio::spawn(async move { other.or::<()>(std::future::pending()).await });
        while interrupt.0.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(interrupt.stop());
        assert_eq!(work.await.unwrap().unwrap_err().kind, Kind::Interrupted);
        assert_eq!(Interrupt::default().or(async { Ok(1) }).await.unwrap(), 1);
    }
}
