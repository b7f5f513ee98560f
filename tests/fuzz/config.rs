//! Configs: each is refused with the place, the field and the fix, or is a cluster whose files are harmless.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use kup::cluster::{Loaded, Source, load};
use kup::error::{Error, Kind};
use proptest::prelude::*;
use proptest::sample::select;

use crate::engine::{self, Outcome};
use crate::holds;
use crate::mutation::{Change, Style, any_change, changed, hostile, style, texts};
use crate::render;

/// Configs with every kind of field, beside the examples.
const OWN: [&str; 3] = [
    kup::cluster::defaults::TEXT,
    "name: fuzz\nnetwork: {domain: cluster.local, pods: 10.244.0.0/16}\nlocal: {image: registry.example.com/kup-node:1, sshKey: keys/id}\nregistries:\n  docker.io:\n    mirrors: ['https://mirror.example.com:5000/v2/hub', 'http://127.0.0.1:5001']\n    username: me\n    password: word\n  registry.example.com:5000: {username: other, password: 'a b'}\nmasters: {count: 3}\nminions: {count: 2}\n",
    "name: fuzz\nprovider: aws\nnetwork: {domain: example.org}\naws:\n  region: us-west-2\n  profile: work\n  zones: [us-west-2a, us-west-2b]\n  vpc: {cidr: 172.20.0.0/16, domain: example.internal}\n  access: {ssh: [198.51.100.7/32], api: [0.0.0.0/0]}\n  image: ami-0123456789abcdef0\n  sshKey: keys/id\n  masters: {type: t3.medium, otherTypes: [m5.large], rootVolume: 20}\n  groups:\n    web: {types: [t3.small], count: 2, labels: [tier=web, example.com/pool=a], taints: []}\n    batch: {types: [m5.large], count: 1, max: 3, labels: [tier=batch], taints: ['batch=yes:NoSchedule', 'example.com/x:NoExecute']}\nregistries:\n  docker.io: {mirrors: ['https://mirror.example.com'], username: me, password: word}\n",
];

/// Configs that were taken for something else than they said, or ended badly.
const REGRESSIONS: [&str; 10] = [
    // The kubelet would have been told a truth value, and a number, for its domain.
    "network: {domain: 'true'}\n",
    "network: {domain: '1e3'}\n",
    "network: {domain: 'on'}\n",
    "name: '1e3'\n",
    "name: 'null'\n",
    // What another provider would not take is no matter of this one's.
    "aws: {groups: {web: {taints: ['a:NoSchedule', 'a:NoSchedule']}}}\n",
    "a: &a [x, x]\nb: &b [*a, *a]\nname: *b\n",
    "name: \"a\\nEND\\ntouch KUPMARK\"\n",
    "provider: aws\naws: {groups: {on: {labels: ['a=$(touch KUPMARK)']}}}\n",
    "registries: {\"a.b/../../x\": {mirrors: [\"https://a'b\"]}}\n",
];

fn corpus() -> Vec<String> {
    let examples = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")).unwrap();
    let mut paths: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read_to_string(path).unwrap()).chain(OWN.map(str::to_owned)).collect()
}

/// How often a config was valid after all.
#[derive(Default)]
struct Accepted(Cell<u32>, Cell<u32>);

impl Accepted {
    fn case(&self, dir: &Path, text: &[u8]) -> Outcome {
        let file = dir.join("kup.yaml");
        fs::write(&file, text).map_err(|e| e.to_string())?;
        self.1.set(self.1.get() + 1);
        let shown = || String::from_utf8_lossy(text).chars().take(3000).collect::<String>();
        match load(Source { file: Some(file), ..Source::default() }) {
            Err(error) => refused(&error).map_err(|why| format!("{why}\n{error}\nof\n{}", shown())),
            Ok(loaded) => {
                self.0.set(self.0.get() + 1);
                taken(dir, &loaded).map_err(|why| format!("{why}\nof\n{}", shown()))
            }
        }
    }
}

/// Whether a refusal names the place, and what to write, in words that a terminal can be shown.
fn refused(error: &Error) -> Outcome {
    let text = error.to_string();
    holds!(error.kind == Kind::Usage, "this is no error of usage, but {:?}", error.kind);
    holds!(!engine::is_obeyed(&text), "the message has control characters: {text:?}");
    holds!(!text.contains("built-in"), "the defaults are blamed");
    let place = |line: &str| {
        let behind = line.split_once("kup.yaml:").map(|(_, behind)| behind);
        behind.is_some_and(|behind| behind.starts_with(|c: char| c.is_ascii_digit()))
    };
    if error.why.is_empty() {
        holds!(place(&error.what), "it names no place");
        holds!(!error.hints.is_empty() && error.hints.iter().all(|hint| !hint.is_empty()), "it names no fix");
        return Ok(());
    }
    if error.what.starts_with("cannot read the config") {
        holds!(!error.hints.is_empty(), "it names no fix");
        return Ok(());
    }
    for problem in error.why.iter().filter(|why| !why.starts_with("and ")) {
        holds!(place(problem), "a problem without its place: {problem}");
        holds!(
            problem.split_once("\nfix: ").is_some_and(|(_, fix)| !fix.trim().is_empty()),
            "a problem without its fix: {problem}"
        );
    }
    Ok(())
}

/// Whether what was accepted is said again alike, and makes no file that does more than it says.
fn taken(dir: &Path, loaded: &Loaded) -> Outcome {
    let kept = serde_yaml::to_string(&loaded.cluster.with_secrets().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let file = dir.join("again.yaml");
    fs::write(&file, &kept).map_err(|e| e.to_string())?;
    let again =
        load(Source { file: Some(file), ..Source::default() }).map_err(|e| format!("refused when read again: {e}\n{kept}"))?;
    holds!(again.cluster == loaded.cluster, "another cluster when read again");
    loaded.fields().map_err(|e| e.to_string())?;
    let from_bucket = kup::cluster::defaults::kept(&kept).map_err(|e| format!("it can't be kept: {e}"))?;
    holds!(from_bucket.name == loaded.cluster.name, "it is kept under another name");
    render::harmless(dir, &loaded.cluster)
}

#[test]
fn what_was_wrong_once_is_right() {
    let (dir, accepted) = (tempfile::tempdir().unwrap(), Accepted::default());
    for text in REGRESSIONS.map(str::to_owned).into_iter().chain(corpus()) {
        accepted.case(dir.path(), text.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(accepted.0.get() >= 11, "the examples are no longer valid");
}

#[test]
fn any_config_is_refused_with_its_place_or_harmless() {
    let (corpus, dir, accepted) = (corpus(), tempfile::tempdir().unwrap(), Accepted::default());
    let cases = (select(corpus), proptest::collection::vec(any_change(), 1..5), style());
    engine::run("config", 250, cases, |(text, changes, style): (String, Vec<Change>, Style)| {
        accepted.case(dir.path(), &changed(&text, &changes, style))
    });
    eprintln!("fuzz  config: {} of {} were valid", accepted.0.get(), accepted.1.get());
}

#[test]
fn hostile_words_in_valid_configs_are_refused_or_harmless() {
    let (dir, accepted) = (tempfile::tempdir().unwrap(), Accepted::default());
    let cases = (select(corpus()), proptest::collection::vec(texts(), 1..3));
    engine::run("config's words", 300, cases, |(text, changes): (String, Vec<Change>)| {
        accepted.case(dir.path(), &changed(&text, &changes, Style::Yaml))
    });
    eprintln!("fuzz  config's words: {} of {} were valid", accepted.0.get(), accepted.1.get());
    assert!(accepted.0.get() > 5, "hardly any was valid, so that hardly any file was looked at");
}

#[test]
fn hostile_flags_and_variables_are_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let paths = kup::cluster::schema::Schema::new().leaves();
    let cases = (proptest::collection::vec((select(paths), hostile()), 1..3), hostile(), any::<bool>());
    engine::run("flags", 100, cases, |(sets, name, aws): (Vec<(String, String)>, String, bool)| {
        let mut source = Source::default();
        source.overrides.sets = sets.iter().map(|(path, value)| format!("{path}={value}")).collect();
        if aws {
            source.overrides.sets.push("provider=aws".into());
        }
        // A variable holds no NUL.
        source.variables.insert("NUM_NODES".into(), name.replace('\0', "").into());
        match load(source) {
            Ok(loaded) => render::harmless(dir.path(), &loaded.cluster),
            Err(error) => {
                let text = error.to_string();
                holds!(error.kind == Kind::Usage, "{error}");
                holds!(!engine::is_obeyed(&text), "the message has control characters: {text:?}");
                Ok(())
            }
        }
    });
}
