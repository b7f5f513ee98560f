//! How long earlier runs of `up` took, so that the next one can say what to expect: `$XDG_STATE_HOME/kup/times.json` (0600).
//!
//! Only what is comparable is kept together: the same provider and size, and either the making of a whole cluster or a run that found
//! nothing to do. The file is bounded, and it is only ever a help: one that is damaged or from another kup counts as absent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bootstrap::STEPS;
use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;
use crate::error::{Context, Result};
use crate::report::display::Record;
use crate::report::event::{Expected, Seconds};
use crate::report::tree::{Node, State};
use crate::state::{private_dir, state_dir, write_atomic};

/// Runs of one kind that are kept: few, so that a machine that got faster is believed soon.
const RUNS: usize = 5;
/// Kinds that are kept; the one that was not run for longest goes first.
const KINDS: usize = 40;
/// What is read of the file at most: several times what the above can fill.
const BYTES: u64 = 1 << 20;
/// Steps of `up` itself and of the provider that every run has. Others, like the building of a bundle, depend on what was there.
const USUAL: [&str; 7] = ["plan", "host", "lock", "certificates", "machines found", "machines", "kubeconfig"];
/// What the spans below a step are that makes things of one kind on AWS, all of which count.
const RESOURCE: &str = "resource";

/// Which runs can be compared with each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kind {
    provider: ProviderKind,
    masters: u32,
    minions: u32,
    work: Work,
}

/// What a run had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Everything.
    All,
    /// Nothing: the cluster was as wanted.
    Nothing,
}

impl Kind {
    /// Runs for clusters of this size.
    pub fn of(cluster: &Cluster, work: Work) -> Kind {
        let (masters, minions) = (cluster.masters.count.into(), cluster.minions.count.into());
        Kind { provider: cluster.provider, masters, minions, work }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Times {
    /// The one that ran last comes last.
    kinds: Vec<Runs>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Runs {
    kind: Kind,
    /// The newest comes last.
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    total: Seconds,
    steps: BTreeMap<String, Seconds>,
}

/// The file.
pub fn path() -> Result<PathBuf> {
    Ok(state_dir()?.join("times.json"))
}

/// How long runs of this kind took; none if there were none.
pub fn expected(file: &Path, kind: &Kind) -> Option<Expected> {
    let times = read(file);
    let runs = &times.kinds.iter().find(|k| k.kind == *kind)?.runs;
    let newest = runs.last()?;
    // Steps that the newest run did not have are no more.
    let step = |title: &String| median(runs.iter().filter_map(|r| r.steps.get(title)).map(|s| s.0).collect());
    Some(Expected {
        runs: runs.len(),
        total: Seconds(median(runs.iter().map(|r| r.total.0).collect())),
        steps: newest.steps.keys().map(|title| (title.clone(), Seconds(step(title)))).collect(),
    })
}

/// Remembers a run that ended well.
pub fn remember(file: &Path, kind: Kind, record: &Record) -> Result<()> {
    let mut times = read(file);
    let mut runs = match times.kinds.iter().position(|k| k.kind == kind) {
        Some(at) => times.kinds.remove(at).runs,
        None => Vec::new(),
    };
    runs.push(run(record));
    runs.drain(..runs.len().saturating_sub(RUNS));
    times.kinds.push(Runs { kind, runs });
    times.kinds.drain(..times.kinds.len().saturating_sub(KINDS));
    if let Some(dir) = file.parent() {
        private_dir(dir)?;
    }
    let text = serde_json::to_vec(&times).context("cannot write the times as JSON")?;
    write_atomic(file, &text, 0o600)
}

/// What a run was like, without steps that not every run has, and without the time when there were only those.
fn run(record: &Record) -> Run {
    let usual = |n: &Node| USUAL.contains(&n.title.as_str()) || n.of == RESOURCE || STEPS.iter().any(|s| s.title == n.title);
    let tree = &record.tree;
    let steps = tree.steps().map(|i| &tree.nodes[i]).filter(|n| usual(n) && matches!(n.state, State::Done(_)));
    Run {
        total: rounded(record.now - tree.beside(usual, record.now)),
        steps: steps.map(|n| (n.title.clone(), rounded(n.elapsed(record.now)))).collect(),
    }
}

fn rounded(seconds: f64) -> Seconds {
    Seconds((seconds.max(0.0) * 1000.0).round() / 1000.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// What the file says; nothing if it can't be read, is too big, is damaged, or holds what can't be.
fn read(file: &Path) -> Times {
    let read = || {
        let mut text = String::new();
        File::open(file).ok()?.take(BYTES + 1).read_to_string(&mut text).ok()?;
        let times: Times = serde_json::from_str(&text).ok()?;
        let sane = |s: &Seconds| s.0.is_finite() && (0.0..1e6).contains(&s.0);
        let runs = || times.kinds.iter().flat_map(|k| &k.runs);
        let bounded =
            text.len() as u64 <= BYTES && times.kinds.len() <= KINDS && times.kinds.iter().all(|k| k.runs.len() <= RUNS);
        let sound = bounded && runs().all(|r| sane(&r.total) && r.steps.len() <= 100 && r.steps.values().all(sane));
        sound.then_some(times)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::report::event::Event;

    fn kind(minions: u32, work: Work) -> Kind {
        Kind { provider: ProviderKind::Local, masters: 1, minions, work }
    }

    /// A run with these steps, one after the other.
    fn record(steps: &[(&str, f64)]) -> Record {
        let mut record = Record::default();
        for (id, (title, took)) in (1..).zip(steps) {
            let at = Seconds(record.now);
            record.now += took;
            let (title, after) = ((*title).to_owned(), Seconds(record.now));
            record.tree.apply(&Event::Started { id, parent: None, title, of: "machine", released_by: None, at }, 0.0);
            record.tree.apply(&Event::Done { id, result: None, took: Seconds(*took), at: after }, 0.0);
        }
        record
    }

    #[test]
    fn what_is_expected_is_the_median_of_the_last_runs_of_the_same_kind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kup/times.json");
        assert_eq!(expected(&file, &kind(4, Work::All)), None);
        for took in [100.0, 100.0, 3.0, 1.0, 2.0, 5.0, 4.0] {
            remember(&file, kind(4, Work::All), &record(&[("Bundle 1.37.1", 600.0), ("machines", took), ("etcd", 0.5)])).unwrap();
        }
        remember(&file, kind(4, Work::Nothing), &record(&[("machines", 0.1)])).unwrap();
        remember(&file, kind(1, Work::All), &record(&[("machines", 0.2)])).unwrap();
        let four = expected(&file, &kind(4, Work::All)).unwrap();
        assert_eq!((four.runs, four.total.0), (5, 3.5), "the bundle is not part of it, nor are runs of long ago");
        let steps: Vec<_> = four.steps.iter().map(|(title, s)| (title.as_str(), s.0)).collect();
        assert_eq!(steps, [("etcd", 0.5), ("machines", 3.0)]);
        assert_eq!(expected(&file, &kind(4, Work::Nothing)).unwrap().total.0, 0.1);
        assert_eq!(expected(&file, &kind(2, Work::All)), None);
        remember(&file, kind(1, Work::All), &record(&[("machines", 0.4)])).unwrap();
        let between = expected(&file, &kind(1, Work::All)).unwrap().total.0;
        assert!((between - 0.3).abs() < 1e-9, "of two it is what is between them, not {between}");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn what_is_made_on_aws_counts_and_the_time_for_an_answer_does_not() {
        let mut record = Record::default();
        for (id, (title, of, took)) in (1..).zip([("plan", "", 0.5), ("your answer", "", 60.0), ("vpc", "resource", 2.0)]) {
            let at = Seconds(record.now);
            record.now += took;
            let (title, after) = (title.to_owned(), Seconds(record.now));
            record.tree.apply(&Event::Started { id, parent: None, title, of, released_by: None, at }, 0.0);
            record.tree.apply(&Event::Done { id, result: None, took: Seconds(took), at: after }, 0.0);
        }
        let run = run(&record);
        assert_eq!((run.total.0, run.steps.len()), (2.5, 2), "{:?}", run.steps);
    }

    #[test]
    fn the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("times.json");
        for minions in 0..KINDS as u32 + 3 {
            remember(&file, kind(minions, Work::All), &record(&[("machines", 1.0)])).unwrap();
            remember(&file, kind(0, Work::All), &record(&[("machines", 1.0)])).unwrap();
        }
        assert_eq!(read(&file).kinds.len(), KINDS);
        assert!(expected(&file, &kind(0, Work::All)).is_some(), "what runs often stays");
        assert_eq!(expected(&file, &kind(2, Work::All)), None);
    }

    #[test]
    fn a_damaged_file_counts_as_absent_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("times.json");
        let good = |total: &str| {
            format!(
                r#"{{"kinds":[{{"kind":{{"provider":"local","masters":1,"minions":1,"work":"all"}},"runs":[{{"total":{total},"steps":{{}}}}]}}]}}"#
            )
        };
        std::fs::write(&file, good("7.5")).unwrap();
        assert_eq!(expected(&file, &kind(1, Work::All)).map(|e| e.total.0), Some(7.5));
        for bad in [
            String::new(),
            "{".into(),
            "[]".into(),
            good("-1"),
            good("1e9"),
            good("\"x\""),
            " ".repeat(BYTES as usize) + &good("1"),
        ] {
            std::fs::write(&file, &bad).unwrap();
            assert_eq!(expected(&file, &kind(1, Work::All)), None, "{bad:.60}");
            remember(&file, kind(1, Work::All), &record(&[("machines", 1.0)])).unwrap();
            assert!(expected(&file, &kind(1, Work::All)).is_some(), "{bad:.60}");
        }
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(expected(&file, &kind(1, Work::All)), None);
    }
}
