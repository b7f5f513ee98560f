//! How long backups stay. Pure; on masters `templates/shell/outdated.sh` does the same.
//!
//! What stays: all of the last 24 hours, the last of each day (UTC) of the last 7 days, those made by hand in the last 30 days, and the
//! newest of all, however old: a cluster that was off for a year still has one.

use time::{Duration, OffsetDateTime};

use super::{Reason, taken};

/// All of these stay.
const ALL: Duration = Duration::hours(24);
/// Of these the last of each day.
const DAILY: Duration = Duration::days(7);
/// Of these what was made by hand.
const HAND: Duration = Duration::days(30);

/// Those of these names that are of no more use at this time. What is no backup's name is left alone.
pub fn outdated(names: &[String], now: OffsetDateTime) -> Vec<String> {
    let mut all: Vec<(&String, OffsetDateTime)> = names.iter().filter_map(|name| Some((name, taken(name)?))).collect();
    all.sort();
    let later = all.iter().skip(1).map(Some).chain([None]);
    let outdated = all.iter().zip(later).filter(|((name, time), later)| {
        // The newest of all has none that is later.
        let Some((_, later)) = later else { return false };
        let (age, last) = (now - *time, later.date() != time.date());
        let by_hand = name.ends_with(&format!("-{}", Reason::Hand.as_str()));
        age >= ALL && !(last && age < DAILY) && !(by_hand && age < HAND)
    });
    outdated.map(|((name, _), _)| (*name).clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;
    use time::macros::{datetime, format_description};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-26 13:15:00 UTC);

    fn name(age: i64, revision: u32, reason: &str) -> String {
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        format!("etcd-{}-{revision}-{reason}", (NOW - Duration::seconds(age)).format(&format).unwrap())
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        // Ages around every limit, and some of the future: clocks are not all right.
        let age = prop_oneof![
            -4000..100_000_i64,
            0..3_000_000_i64,
            (0..40_i64).prop_map(|days| days * 86_400),
            (0..40_i64, -2..3_i64).prop_map(|(days, seconds)| days * 86_400 + seconds),
        ];
        let reason = prop_oneof![Just("timer"), Just("change"), Just("hand"), Just("restore")];
        prop::collection::btree_set(
            (age, 1..100_u32, reason).prop_map(|(age, revision, reason)| name(age, revision, reason)),
            0..60,
        )
        .prop_map(|names| names.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_must_stay_stays_and_doing_it_twice_changes_nothing(names in names()) {
            let gone: BTreeSet<String> = outdated(&names, NOW).into_iter().collect();
            let left: Vec<String> = names.iter().filter(|n| !gone.contains(*n)).cloned().collect();
            prop_assert!(gone.iter().all(|n| names.contains(n)));
            prop_assert!(outdated(&left, NOW).is_empty(), "a second time takes more: {left:?}");
            prop_assert_eq!(names.last(), left.last(), "the newest stays");
            for name in &names {
                let (time, age) = (taken(name).unwrap(), NOW - taken(name).unwrap());
                if age < ALL || (name.ends_with("hand") && age < HAND) {
                    prop_assert!(!gone.contains(name), "{name}");
                }
                if age < DAILY {
                    let same_day = |other: &&String| taken(other).unwrap().date() == time.date();
                    prop_assert!(left.iter().any(|other| same_day(&other)), "nothing is left of the day of {name}");
                }
                if age >= HAND && Some(name) != names.last() {
                    prop_assert!(gone.contains(name), "{name} stays for ever");
                }
            }
        }

        #[test]
        fn time_never_brings_one_back(names in names(), later in 0..2_000_000_i64) {
            let now: BTreeSet<String> = outdated(&names, NOW).into_iter().collect();
            let then: BTreeSet<String> = outdated(&names, NOW + Duration::seconds(later)).into_iter().collect();
            prop_assert!(now.is_subset(&then));
        }
    }

    #[test]
    fn masters_keep_the_same() {
        let script = format!("{}\noutdated {}", crate::templates::text("shell/outdated.sh").unwrap(), NOW.unix_timestamp());
        let config = ProptestConfig { cases: 30, ..ProptestConfig::default() };
        proptest!(config, |(names in names())| {
            let mut shell = Command::new("sh").arg("-c").arg(&script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let lines: String = names.iter().map(|n| format!("{n}\n")).collect();
            shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
            let output = shell.wait_with_output().unwrap();
            let mut gone: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
            gone.sort();
            prop_assert!(output.status.success());
            prop_assert_eq!(gone, outdated(&names, NOW));
        });
    }

    #[test]
    fn what_is_no_backup_is_left_alone() {
        let names = ["notes".to_owned(), name(90 * 86_400, 1, "timer"), name(0, 2, "timer")];
        assert_eq!(outdated(&names, NOW), [name(90 * 86_400, 1, "timer")]);
    }
}
