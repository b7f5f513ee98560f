//! Answers of AWS: those that an emulator gave when a cluster called `fuzz` stood in it, and what can become of them.
//!
//! `replies/standing/` has the body of each call's answer by the call's name (`ec2.DescribeVpcs.xml`; with `@master` if it asked for those),
//! `replies/gone/` those of the removal, and of lists after it. They were recorded between kup and `scripts/aws-emulator`, of
//! `kup up --until infrastructure`, `kup status`, `kup get clusters`, `kup gc` and `kup down`. Keys are not among them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use kup::pki::Pki;
use kup::pki::files::Memory;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::mutation::{Change, Style, any_change, changed, hostile};
use crate::wire;

/// The cluster whose answers these are.
pub const NAME: &str = "fuzz";

/// What becomes of an answer.
#[derive(Debug, Clone)]
pub enum Turn {
    /// As of any text.
    Text(Change),
    /// The text of an element is another one.
    Leaf(Index, String),
    /// This stands in the middle of an element's text.
    Inside(Index, Index, String),
    /// An element is gone.
    Gone(Index),
    /// An element stands so many times.
    Many(Index, usize),
    /// An element stands so deep in others of its name.
    Deep(Index, usize),
    /// Nothing at all.
    Empty,
    /// Spaces, as much as that.
    Long(usize),
}

pub fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => any_change().prop_map(Turn::Text),
        5 => (any::<Index>(), hostile()).prop_map(|(at, text)| Turn::Leaf(at, text)),
        2 => (any::<Index>(), any::<Index>(), hostile()).prop_map(|(at, point, text)| Turn::Inside(at, point, text)),
        4 => any::<Index>().prop_map(Turn::Gone),
        1 => (any::<Index>(), 2..400_usize).prop_map(|(at, times)| Turn::Many(at, times)),
        1 => (any::<Index>(), prop_oneof![1..50_usize, 1000..20_000_usize]).prop_map(|(at, depth)| Turn::Deep(at, depth)),
        1 => Just(Turn::Empty),
        1 => (1_usize..2_000_000).prop_map(Turn::Long),
    ]
}

/// An answer's body after these.
pub fn turned(body: &[u8], turns: &[Turn]) -> Vec<u8> {
    turns.iter().fold(body.to_vec(), |body, turn| turn.apply(&body))
}

impl Turn {
    fn apply(&self, body: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(body).into_owned();
        let put = |range: std::ops::Range<usize>, with: &str| {
            let mut text = text.clone();
            text.replace_range(range, with);
            text.into_bytes()
        };
        match self {
            Turn::Text(change) => changed(&text, std::slice::from_ref(change), Style::Json),
            Turn::Leaf(at, with) => match nth(leaves(&text), *at) {
                Some(leaf) => put(leaf, &escaped(with)),
                None => body.to_vec(),
            },
            Turn::Inside(at, point, with) => match nth(leaves(&text), *at) {
                Some(leaf) => {
                    let point = text.floor_char_boundary(leaf.start + point.index(leaf.len() + 1)).max(leaf.start);
                    put(point..point, &escaped(with))
                }
                None => body.to_vec(),
            },
            Turn::Gone(at) => match nth(elements(&text), *at) {
                Some(element) => put(element, ""),
                None => body.to_vec(),
            },
            Turn::Many(at, times) => match nth(elements(&text), *at) {
                Some(element) => {
                    let times = (*times).min(2_000_000 / element.len().max(1)).max(1);
                    let many = text[element.clone()].repeat(times);
                    put(element, &many)
                }
                None => body.to_vec(),
            },
            Turn::Deep(at, depth) => match nth(elements(&text), *at) {
                Some(element) => {
                    let name: String = text[element.start + 1..].chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
                    let (open, close) = (format!("<{name}>").repeat(*depth), format!("</{name}>").repeat(*depth));
                    let deep = format!("{open}{}{close}", &text[element.clone()]);
                    put(element, &deep)
                }
                None => body.to_vec(),
            },
            Turn::Empty => Vec::new(),
            Turn::Long(size) => [body, " ".repeat(*size).as_bytes()].concat(),
        }
    }
}

fn nth<T>(mut all: Vec<T>, at: Index) -> Option<T> {
    (!all.is_empty()).then(|| all.swap_remove(at.index(all.len())))
}

/// As XML writes what it would else read. Characters that it knows no way to write stay.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where the texts of elements are that have no others in them.
fn leaves(text: &str) -> Vec<std::ops::Range<usize>> {
    let starts = text.match_indices('>').map(|(at, _)| at + 1);
    let leaf = |start: usize| {
        let end = start + text[start..].find('<')?;
        (text[end..].starts_with("</") && !text[start..end].trim().is_empty()).then_some(start..end)
    };
    starts.filter_map(leaf).collect()
}

/// Where elements are, with all that is in them.
fn elements(text: &str) -> Vec<std::ops::Range<usize>> {
    let starts =
        text.match_indices('<').map(|(at, _)| at).filter(|at| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic()));
    let element = |start: usize| {
        let name: String = text[start + 1..].chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (mut at, mut depth) = (start, 0);
        loop {
            let end = at + text[at..].find(&close)?;
            depth += text[at..end].matches(&open).count();
            at = end + close.len();
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return Some(start..at);
            }
        }
    };
    // The outermost ones leave nothing.
    starts.skip(1).take(400).filter_map(element).collect()
}

/// The recorded answers.
pub struct Recorded {
    /// By the call, while the cluster stands.
    pub standing: BTreeMap<String, Vec<u8>>,
    /// By the call, once it is gone.
    pub gone: BTreeMap<String, Vec<u8>>,
    /// What `pki/keys.json` holds.
    keys: Vec<u8>,
    /// Where the key is by which kup would log in.
    _home: tempfile::TempDir,
}

/// The key that the cluster was made with, and where it was: both are others in each run.
const FINGERPRINT: &str = "@FINGERPRINT@";
const KEY: &str = "/home/me/.ssh/kube_aws_rsa";

/// A key in that directory. Returns its path and its fingerprint.
fn key(dir: &Path) -> (String, String) {
    let path = dir.join("key");
    let key = ssh_key::PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519).unwrap();
    std::fs::write(&path, key.to_openssh(ssh_key::LineEnding::LF).unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let fingerprint = kup::aws::ssh_key::fingerprint(&key.public_key().to_openssh().unwrap()).unwrap();
    (path.display().to_string(), fingerprint)
}

fn read(name: &str, (key, fingerprint): &(String, String)) -> BTreeMap<String, Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/replies").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let named = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().replacen('.', ":", 1);
        let text = std::fs::read_to_string(path).unwrap().replace(KEY, key).replace(FINGERPRINT, fingerprint);
        (name, text.into_bytes())
    };
    entries.map(|entry| named(entry.unwrap().path())).collect()
}

/// Reads them, once.
pub fn recorded() -> Arc<Recorded> {
    static ONCE: OnceLock<Arc<Recorded>> = OnceLock::new();
    let make = || {
        let files = Arc::new(Memory::default());
        Pki::of(files.clone()).unwrap();
        let keys = serde_json::to_vec(&files.all()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let key = key(home.path());
        Arc::new(Recorded { standing: read("standing", &key), gone: read("gone", &key), keys, _home: home })
    };
    ONCE.get_or_init(make).clone()
}

/// A call's name, as IAM calls it, with the object's key if it is about one, or whether it is about masters, minions or groups.
pub fn called(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> (String, Option<String>) {
    let name = wire::name(method, uri, headers, body);
    if name.starts_with("s3:") {
        let key = uri.path().trim_start_matches('/').split_once('/').map(|(_, key)| key.to_owned());
        let object = name.ends_with("Object");
        return (name, key.filter(|key| object && !key.is_empty()));
    }
    let text = String::from_utf8_lossy(body);
    let is = |pair: &str, role: &str| {
        pair.ends_with(&format!("={role}")) || (pair.starts_with("RoleName=") && pair.contains(&format!("-{role}-")))
    };
    let role =
        ["master", "minion"].into_iter().find(|role| text.split('&').any(|pair| is(pair, role))).map(|role| format!("@{role}"));
    // Who asks by group asks for what has not ended.
    let group = text.contains("tag%3Akup.dev%2Fgroup").then(|| "@group".to_owned());
    (name, group.or(role))
}

impl Recorded {
    /// The answer to a call, before anything becomes of it: the status, headers, the body.
    pub fn answer(&self, name: &str, about: Option<&str>, gone: bool) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
        let there = |body: &[u8], kind: &str| (200, vec![("content-type", kind.to_owned())], body.to_vec());
        let missing = |code: &str| {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>not there</Message></Error>");
            (404, vec![("content-type", "application/xml".to_owned())], body.into_bytes())
        };
        match (name, about) {
            ("s3:GetObject" | "s3:HeadObject", Some(_)) if gone => missing("NoSuchBucket"),
            ("s3:GetObject", Some("pki/keys.json")) => there(&self.keys, "application/json"),
            ("s3:GetObject", Some("cluster.yaml")) => {
                let (status, mut headers, body) = there(&self.standing["s3:cluster"], "application/yaml");
                let about = String::from_utf8_lossy(&self.standing["s3:about"]).into_owned();
                let about = about.lines().filter_map(|line| line.split_once(": "));
                for (name, value) in about {
                    let known = ["x-amz-meta-kup-image", "x-amz-meta-kup-zones", "x-amz-meta-kup-kinds"];
                    headers.extend(known.into_iter().find(|known| *known == name).map(|name| (name, value.to_owned())));
                }
                (status, headers, body)
            }
            ("s3:GetObject" | "s3:HeadObject", _) => missing("NoSuchKey"),
            _ => {
                let of = |all: &'_ BTreeMap<String, Vec<u8>>| {
                    let narrow = all.get(&format!("{name}{}", about.unwrap_or_default()));
                    narrow.or_else(|| all.get(name)).or_else(|| all.get(&format!("{name}@master"))).cloned()
                };
                let recorded = if gone {
                    of(&self.gone).or_else(|| of(&self.standing))
                } else {
                    of(&self.standing).or_else(|| of(&self.gone))
                };
                let json = name.starts_with("ssm:") || name.starts_with("servicequotas:");
                let kind = if json { "application/x-amz-json-1.1" } else { "text/xml" };
                // What was never answered is answered as a change is: with nothing to tell.
                recorded.map_or_else(|| there(b"", kind), |body| there(&body, kind))
            }
        }
    }
}

/// As an answer of HTTP's.
pub fn response<B>(status: u16, headers: &[(&'static str, String)], body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    for (name, value) in headers {
        // What no header can say is not said.
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}
