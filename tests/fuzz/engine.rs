//! Runs a test on many cases: as many as it is told, or for as long as `KUP_FUZZ_SECONDS` says.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sha2::{Digest as _, Sha256};

use crate::support::seed::seed;

/// How long one case may take. It takes milliseconds; a machine may be so busy that it takes seconds.
const ENDLESS: Duration = Duration::from_secs(120);

/// How long a case that failed is made smaller, in milliseconds.
const SHRINKING: u32 = 60_000;

/// How a case failed: what was wrong.
pub type Outcome = Result<(), String>;

/// Tries cases of that strategy. One that fails, or panics, is made as small as it can be and shown with the seed; one that does not end
/// ends the process.
pub fn run<S>(name: &str, cases: u32, strategy: S, test: impl Fn(S::Value) -> Outcome)
where
    S: Strategy,
    S::Value: Debug + Clone,
{
    let seed = seed().expect("KUP_TEST_SEED is a number");
    let seconds = std::env::var("KUP_FUZZ_SECONDS").ok().map(|text| text.parse().expect("KUP_FUZZ_SECONDS is a number"));
    let (begun, mut batch) = (Instant::now(), 0_u64);
    let watch = Watch::start(name, seed);
    loop {
        let config =
            Config { cases, failure_persistence: None, max_shrink_iters: 3000, max_shrink_time: SHRINKING, ..Config::default() };
        let start: [u8; 32] = Sha256::digest(format!("{name} {seed} {batch}")).into();
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &start));
        let outcome = runner.run(&strategy, |case| {
            watch.begin(&case);
            test(case).map_err(TestCaseError::fail)
        });
        watch.end();
        if let Err(failed) = outcome {
            panic!("{name}, with KUP_TEST_SEED={seed}, batch {batch}: {failed}");
        }
        batch += 1;
        if seconds.is_none_or(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    let all = batch * u64::from(cases);
    eprintln!("fuzz  {name}: {all} cases in {:.1} s (KUP_TEST_SEED={seed})", begun.elapsed().as_secs_f64());
}

/// What is tried now, and since when.
type Trying = Arc<Mutex<Option<(Instant, String)>>>;

/// Ends the process, which can't be done to a thread, when a case does not end.
struct Watch {
    trying: Trying,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(name: &str, seed: u64) -> Watch {
        let watch = Watch { trying: Arc::default(), over: Arc::default() };
        let (name, trying, over) = (name.to_owned(), watch.trying.clone(), watch.over.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(500));
                let now = trying.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, case)) = now.as_ref().filter(|(since, _)| since.elapsed() > ENDLESS) {
                    eprintln!("{name}: with KUP_TEST_SEED={seed} this has not ended in {} s: {case}", ENDLESS.as_secs());
                    std::process::exit(101);
                }
            }
        });
        watch
    }

    fn begin(&self, case: &impl Debug) {
        let mut shown = format!("{case:?}");
        shown.truncate(shown.floor_char_boundary(20_000));
        *self.trying.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), shown));
    }

    fn end(&self) {
        *self.trying.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Whether a terminal would obey something of a text, rather than show it.
pub fn is_obeyed(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// Fails the case unless the condition holds.
#[macro_export]
macro_rules! holds {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
