//! The commands themselves, before an AWS whose answers are wrong: each ends in time, with a code of its own, and an error says why and what
//! to type. What the other parts try thousands of times in this process is tried here by the real binary, a few times.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use kup::aws::client::reads;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::process::Command;

use crate::answers::{NAME, Recorded, Turn, called, recorded, response, turn, turned};
use crate::engine::{self, Outcome};
use crate::holds;
use crate::support::cluster::KUP;

/// How long a command may take: it takes a second, and `kup status` some more until it knows that no machine answers. Some answers make the
/// SDK ask again, which takes a minute.
const ENDLESS: Duration = Duration::from_secs(110);

/// How long what may wait for minutes is left to wait, where an answer says of something that it is still going: then it is interrupted.
const PATIENCE: Duration = Duration::from_secs(15);

const COMMANDS: [&[&str]; 6] = [
    &["get", "clusters", "--provider", "aws"],
    &["plan", "--provider", "aws", "--name", NAME],
    &["gc", "--region", "us-west-2"],
    &["get", "nodes", "--provider", "aws", "--name", NAME],
    &["status", "--provider", "aws", "--name", NAME],
    &["down", "--provider", "aws", "--region", "us-west-2", "--name", NAME, "-y"],
];

#[derive(Default)]
struct Shared {
    /// The call whose answers are turned, or all, and how.
    turning: (Option<String>, Vec<Turn>),
    /// Whether something was removed.
    gone: bool,
    calls: Vec<String>,
}

#[derive(Clone)]
struct Answers(Arc<Recorded>, Arc<Mutex<Shared>>);

async fn answer(State(answers): State<Answers>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let (name, about) = called(&method, &uri, &headers, &body);
    let mut shared = answers.1.lock().unwrap();
    shared.calls.push(name.clone());
    if name
        .split(':')
        .next_back()
        .is_some_and(|name| ["Delete", "Terminate", "Release"].iter().any(|word| name.starts_with(word)))
    {
        shared.gone = true;
    }
    let (status, headers, mut body) = answers.0.answer(&name, about.as_deref(), shared.gone);
    if shared.turning.0.as_ref().is_none_or(|only| *only == name) {
        body = turned(&body, &shared.turning.1);
    }
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(body) };
    response(status, &headers, body)
}

struct World {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Mutex<Shared>>,
    url: String,
    home: tempfile::TempDir,
    names: Vec<String>,
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (recorded, shared) = (recorded(), Arc::<Mutex<Shared>>::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Answers(recorded.clone(), shared.clone()));
        runtime.spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        let names = recorded.standing.keys().filter(|name| reads(name));
        let names = names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect();
        World { runtime, shared, url, home: tempfile::tempdir().unwrap(), names }
    }

    /// What a command ended with: its code, and all that it said.
    fn run(&self, words: &[&str], only: Option<String>, turns: Vec<Turn>) -> Result<(Option<i32>, String), String> {
        *self.shared.lock().unwrap() = Shared { turning: (only, turns), gone: false, calls: Vec::new() };
        let home = self.home.path();
        let mut command = Command::new(KUP);
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(home);
        for (name, value) in [
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_REGION", "us-west-2"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("KUP_CALLER_ADDRESS", "198.51.100.7"),
        ] {
            command.env(name, value);
        }
        for (name, dir) in [("HOME", ""), ("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("KUBECONFIG", "kubeconfig")]
        {
            command.env(name, home.join(dir));
        }
        // Into a file, so that one that does not end has said where it is.
        let path = home.join("said");
        let file = || std::fs::File::options().append(true).open(&path).map_err(|e| e.to_string());
        std::fs::write(&path, "").map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(file()?).stderr(file()?).kill_on_drop(true);
        let ended = self.runtime.block_on(async {
            let mut child = command.spawn()?;
            if words[0] == "down" && tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
                id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::INT)).transpose()?;
            }
            Ok::<_, std::io::Error>(tokio::time::timeout(ENDLESS, child.wait()).await)
        });
        let said = String::from_utf8_lossy(&std::fs::read(&path).map_err(|e| e.to_string())?).into_owned();
        match ended.map_err(|e| e.to_string())? {
            Ok(status) => Ok((status.map_err(|e| e.to_string())?.code(), said)),
            Err(_) => {
                let calls = &self.shared.lock().unwrap().calls;
                let last = &calls[calls.len().saturating_sub(20)..];
                Err(format!("it did not end; of {} calls the last are {last:?}:\n{said}", calls.len()))
            }
        }
    }
}

/// Whether a command ended as commands end.
fn ended(code: Option<i32>, said: &str) -> Outcome {
    holds!(!said.contains("panicked"), "it panicked:\n{said}");
    holds!(code.is_some_and(|code| (0..=4).contains(&code) || code == 130), "it ended with {code:?}:\n{said}");
    holds!(code != Some(130) || said.contains("interrupted"), "it was interrupted and says nothing of it:\n{said}");
    let failed = matches!(code, Some(1 | 2 | 4));
    let whole = said.contains("error:") && (said.contains("because:") || said.contains("next:"));
    holds!(!failed || whole, "it ended with {code:?} and without its reason:\n{said}");
    holds!(!engine::is_obeyed(said), "a terminal would obey {said:?}");
    Ok(())
}

#[test]
fn as_it_was_recorded_every_command_ends_well() {
    let world = World::new();
    for words in COMMANDS.iter().filter(|words| words[0] != "status") {
        let (code, said) = world.run(words, Some(String::new()), Vec::new()).unwrap();
        ended(code, &said).unwrap_or_else(|why| panic!("kup {}: {why}", words.join(" ")));
        assert_eq!(code, Some(0), "kup {}:\n{said}\n{:?}", words.join(" "), world.shared.lock().unwrap().calls);
    }
}

#[test]
fn whatever_aws_answers_a_command_ends_with_its_reason() {
    let world = World::new();
    let turns = proptest::collection::vec(turn(), 1..3);
    let which = prop_oneof![6 => 0..3_usize, 1 => 3..5_usize, 3 => 5..COMMANDS.len()];
    let cases = (which, any::<Index>(), proptest::bool::weighted(0.1), turns);
    engine::run("commands", 8, cases, |(command, at, all, turns): (usize, Index, bool, Vec<Turn>)| {
        let only = (!all).then(|| world.names[at.index(world.names.len())].clone());
        let words = COMMANDS[command];
        let told = format!("kup {} with another answer to {only:?}", words.join(" "));
        let (code, said) = world.run(words, only, turns).map_err(|why| format!("{told}: {why}"))?;
        ended(code, &said).map_err(|why| format!("{told}: {why}"))
    });
}
