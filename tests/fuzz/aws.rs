//! Answers of AWS that are truncated, of other shapes, very long, or hostile: all that reads them ends, with what it read or with an error,
//! and no id, zone or key of them becomes more than one word. In this process, with clients that no network is behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_smithy_http_client::test_util::infallible_client_fn;
use aws_smithy_types::body::SdkBody;
use kup::aws::Aws;
use kup::aws::client::Identity;
use kup::cluster::{Cluster, defaults};
use kup::error::Error;
use kup::provider::Finder as _;
use kup::provider::aws::AwsProvider;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::answers::{NAME, Recorded, Turn, called, recorded, response, turn, turned};
use crate::engine::{self, Outcome};
use crate::holds;

const REGION: &str = "us-west-2";

/// What becomes of the answers to one call, or to all.
#[derive(Debug, Clone)]
struct Case {
    which: Index,
    all: bool,
    turns: Vec<Turn>,
    reader: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let turns = proptest::collection::vec(turn(), 1..4);
    (any::<Index>(), proptest::bool::weighted(0.1), turns, 0..READERS.len()).prop_map(|(which, all, turns, reader)| Case {
        which,
        all,
        turns,
        reader,
    })
}

/// What reads answers.
const READERS: [&str; 6] = ["plan", "found", "clusters", "discover", "look", "begun"];

/// Which answers are turned, and how.
type Turning = Arc<Mutex<(Option<String>, Vec<Turn>)>>;

struct World {
    runtime: tokio::runtime::Runtime,
    recorded: Arc<Recorded>,
    turning: Turning,
    provider: AwsProvider,
    cluster: Cluster,
    names: Vec<String>,
}

impl World {
    fn new() -> World {
        let (recorded, turning) = (recorded(), Turning::default());
        let (answers, which) = (recorded.clone(), turning.clone());
        let client = infallible_client_fn(move |request| {
            let body = request.body().bytes().unwrap_or_default().to_vec();
            let (name, about) = called(request.method(), request.uri(), request.headers(), &body);
            let (status, headers, mut body) = answers.answer(&name, about.as_deref(), false);
            let turning = which.lock().unwrap();
            if turning.0.as_ref().is_none_or(|only| *only == name) {
                body = turned(&body, &turning.1);
            }
            response(status, &headers, SdkBody::from(body))
        });
        let login = aws_sdk_ec2::config::Credentials::new("test", "test", None, None, "test");
        let config = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::from_static(REGION))
            .credentials_provider(aws_sdk_ec2::config::SharedCredentialsProvider::new(login))
            .retry_config(RetryConfig::disabled())
            .endpoint_url("http://127.0.0.1:1")
            .http_client(client)
            .build();
        let arn = "arn:aws:iam::000000000000:user/me".to_owned();
        let identity = Identity { account: "000000000000".into(), arn, partition: "aws".into() };
        let provider = AwsProvider::of(Aws::of_config(&config, REGION, identity, NAME));
        let mut cluster = defaults::kept(&String::from_utf8_lossy(&recorded.standing["s3:cluster"])).unwrap();
        cluster.aws.access.ssh = vec!["198.51.100.7/32".into()];
        cluster.aws.access.api = vec!["198.51.100.7/32".into()];
        let names: Vec<String> = recorded
            .standing
            .keys()
            .filter(|name| kup::aws::client::reads(name))
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        World { runtime, recorded, turning, provider, cluster, names }
    }

    fn case(&self, case: &Case) -> Outcome {
        let only = (!case.all).then(|| {
            let named = case.which.index(self.names.len() + 1);
            self.names.get(named).cloned().unwrap_or_else(|| "s3:GetObject".into())
        });
        *self.turning.lock().unwrap() = (only, case.turns.clone());
        let reader = READERS[case.reader];
        let provider = self.provider.clone();
        let read = async {
            match reader {
                "plan" => provider.plan(&self.cluster, &[]).await.map(|plan| drop(plan.actions())),
                "found" => provider.found().await.map(drop),
                "clusters" => provider.clusters().await.map(drop),
                "begun" => provider.begun().await.map(drop),
                "look" => kup::down::aws::look(&provider).await.map(drop),
                _ => {
                    let found = provider.discover(NAME).await;
                    found.and_then(|found| words(&found).map_err(|why| Error::new(format!("BUG: {why}"))))
                }
            }
        };
        let outcome = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), read).await });
        match outcome {
            Err(_) => Err(format!("{reader} did not end")),
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let text = error.to_string();
                holds!(!text.contains("BUG: "), "{text}");
                holds!(!error.what.trim().is_empty(), "an error without words");
                holds!(!engine::is_obeyed(&text), "a terminal would obey {text:?}");
                Ok(())
            }
        }
    }
}

/// Whether what was found of machines are words: they stand in units, in commands and in `known_hosts`.
fn words(found: &kup::provider::Found) -> Outcome {
    let word = |text: &str, more: &[u8]| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    for machine in found.machines.iter().map(|found| &found.machine) {
        holds!(word(&machine.name, b"-"), "a machine called {:?}", machine.name);
        holds!(machine.host_key.is_empty() || word(&machine.host_key, b" -+/="), "the host key {:?}", machine.host_key);
        holds!(machine.user.is_empty() || word(&machine.user, b"-_"), "the user {:?}", machine.user);
        let Some(cloud) = &machine.cloud else { continue };
        holds!(word(&cloud.provider_id, b":/-"), "the provider's id {:?}", cloud.provider_id);
        let all = cloud.called.iter().chain(&cloud.etcd_volume);
        for text in all.chain(cloud.place.iter().flat_map(|place| [&place.vpc, &place.subnet, &place.region])) {
            holds!(word(text, b".-"), "a name {text:?}");
        }
    }
    Ok(())
}

#[test]
fn as_it_was_recorded_everything_is_read() {
    let world = World::new();
    *world.turning.lock().unwrap() = (Some(String::new()), Vec::new());
    let found = world.runtime.block_on(world.provider.discover(NAME)).unwrap();
    assert!(!found.machines.is_empty() && !found.others.is_empty(), "{found:?}");
    words(&found).unwrap();
    let plan = world.runtime.block_on(world.provider.plan(&world.cluster, &[])).unwrap();
    let verbs: BTreeMap<String, usize> = plan.plan.items.iter().fold(BTreeMap::new(), |mut all, item| {
        *all.entry(format!("{:?}", item.verb)).or_default() += 1;
        all
    });
    assert!(verbs.keys().all(|verb| verb != "Create"), "of what was recorded something is not found again: {verbs:?}");
    assert_eq!(world.runtime.block_on(world.provider.clusters()).unwrap(), [NAME]);
    assert!(world.names.len() > 25, "{:?}", world.names);
    assert!(world.recorded.gone.len() > 10);
}

#[test]
fn any_answer_of_aws_is_read_or_told() {
    let world = World::new();
    engine::run("AWS", 150, cases(), |case: Case| world.case(&case));
}
