#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use aws_sdk_ec2::config::Credentials;
use tokio::net::TcpListener;

use super::*;
use crate::aws::client::Identity;
use crate::aws::quota::{self, Adds};
use crate::aws::{Aws, layout, preflight};
use crate::graph::Plan;
use crate::provider::aws::checks;
use crate::provider::aws::surroundings::Learned;
use crate::report::{Event, Report};

/// Long enough for nothing: who is asked never answers.
const SHORT: Duration = Duration::from_millis(50);

/// An AWS that takes every connection and says nothing. What does not end by itself lasts as long as the test may.
async fn silent() -> Aws {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let login = Credentials::new("key", "secret", None, None, "test");
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::from_static("us-west-2"))
        .endpoint_url(url)
        .credentials_provider(login)
        .load()
        .await;
    let identity =
        Identity { account: "123456789012".into(), arn: "arn:aws:iam::123456789012:user/me".into(), partition: "aws".into() };
    let mut aws = Aws::of_config(&config, "us-west-2", identity, "kubernetes");
    aws.deadlines = Deadlines { needed: SHORT, spare: SHORT };
    aws
}

fn notes(mut events: tokio::sync::mpsc::UnboundedReceiver<Event>) -> Vec<String> {
    let mut notes = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Note { text } = event {
            notes.push(text);
        }
    }
    notes
}

#[tokio::test]
async fn what_has_to_be_known_is_named_if_it_is_not_said() {
    let aws = silent().await;
    let types = BTreeSet::from(["t3.small".to_owned()]);
    let error = aws.deadlines.needed(preflight::ZONES, preflight::offers(&aws, &types)).await.unwrap_err();
    insta::assert_snapshot!(error, @r"
    AWS did not say within 0.05 s which zones there are, and what they offer
      because: without that nothing can be made
      next: try again; if it stays so, check the network, and AWS_ENDPOINT_URL if you set it
    ");
    let who = aws.caller().await.unwrap_err();
    let place = aws.endpoint.unwrap_or_default();
    assert_eq!(who.what, format!("AWS did not say within 0.05 s who calls it, at {place}"));
}

#[tokio::test]
async fn quotas_that_are_not_said_are_passed_over_and_that_is_said() {
    let aws = silent().await;
    let (report, events) = Report::channel();
    quota::check(&aws, Adds { vcpus: 10, vpcs: 1, ..Adds::default() }, 0, &report).await.unwrap();
    assert_eq!(
        notes(events),
        [
            "the account's quotas are not known (no answer within 0.05 s): whether the machines fit in them shows when they are made"
        ]
    );
}

/// All that a preflight asks has an end: of a new cluster, that asks for everything, some question is named.
#[tokio::test]
async fn a_preflight_ends_whatever_is_silent() {
    let aws = silent().await;
    let (cluster, around) = (crate::cluster::defaults::cluster().unwrap(), layout::tests::around(&["a"]));
    let plan = Plan::new(layout::layout(&cluster, &around).unwrap(), Vec::new(), &aws, |_| false).unwrap();
    let learned = Learned::default();
    let error = checks::run(&aws, &cluster, &around, &learned, &plan, &Report::silent()).await.unwrap_err();
    assert!(error.what.starts_with("AWS did not say within 0.05 s "), "{error}");
    // Only what the caller may do is asked without anything to make, and that can be passed over.
    let (report, events) = Report::channel();
    let empty = Plan { items: Vec::new() };
    checks::run(&aws, &cluster, &around, &learned, &empty, &report).await.unwrap();
    let said = notes(events);
    assert!(said.len() == 1 && said[0].starts_with("IAM did not say within 0.05 s"), "{said:?}");
}
