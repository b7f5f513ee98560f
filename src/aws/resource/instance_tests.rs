#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::run_instances::{RunInstancesError, RunInstancesInput, RunInstancesOutput};
use aws_sdk_ec2::types::{Instance as Seen, Reservation};
use aws_smithy_mocks::{Rule, mock};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;

use super::*;
use crate::aws::testing::{aws, coded, mocked};

fn wanted() -> Instance {
    let image =
        Image { id: "ami-1".into(), architecture: "x86_64".into(), root_device: "/dev/xvda".into(), user: "admin".into() };
    Instance {
        name: "master-1".into(),
        types: vec!["t3.medium".into()],
        zone: "us-west-2a".into(),
        image,
        image_name: "debian-13".into(),
        root_volume: 20,
        interface: Ref::to("master-1"),
        volume: Ref::to("etcd-1"),
        profile: Ref::to("master"),
        key: Ref::to("ssh"),
        address: None,
        rules: Vec::new(),
        routes: None,
    }
}

fn refusal(code: &'static str, message: &'static str) -> Rule {
    mock!(aws_sdk_ec2::Client::run_instances).then_error(move || RunInstancesError::generic(coded(code, message)))
}

fn run(id: &'static str) -> Rule {
    mock!(aws_sdk_ec2::Client::run_instances)
        .then_output(move || RunInstancesOutput::builder().instances(Seen::builder().instance_id(id).build()).build())
}

async fn start(aws: &Aws) -> Result<String> {
    wanted().run(aws, "eni-1", "kup-key", "kup-profile").await
}

#[tokio::test]
async fn it_waits_for_ec2_to_know_the_profile() {
    let unknown = || {
        refusal(
            "InvalidParameterValue",
            "Value (kup-profile) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
        )
    };
    let (first, second, third) = (unknown(), unknown(), run("i-1"));
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&first, &second, &third]);
    assert_eq!(start(&aws).await.unwrap(), "i-1");
}

#[tokio::test]
async fn no_capacity_is_said_at_once() {
    let refused =
        refusal("InsufficientInstanceCapacity", "We currently do not have sufficient t3.medium capacity in us-west-2a.");
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&refused]);
    let error = start(&aws).await.unwrap_err();
    insta::assert_snapshot!(error, @r"
    the instance master-1 (t3.medium in us-west-2a) could not be started
      because: InsufficientInstanceCapacity: We currently do not have sufficient t3.medium capacity in us-west-2a.
      next: try again later, or give other types to take instead, like `--set aws.masters.otherTypes=[t3a.medium,m5.large]` (aws.minions.otherTypes for minions); another zone in aws.zones needs `kup down --provider aws` first, since volumes stay in theirs
    ");
}

/// What EC2 answers: it calls that an error of its own.
fn lacking(kind: &'static str) -> Rule {
    mock!(aws_sdk_ec2::Client::run_instances)
        .match_requests(move |input| input.instance_type() == Some(&InstanceType::from(kind)))
        .then_http_response(move || {
            let message = format!("We currently do not have sufficient {kind} capacity.");
            let code = "InsufficientInstanceCapacity";
            let body =
                format!("<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>");
            HttpResponse::new(500u16.try_into().unwrap(), SdkBody::from(body))
        })
}

#[tokio::test]
async fn where_one_type_has_run_out_the_next_is_asked_for() {
    let several = Instance { types: ["t3.medium", "t3a.medium", "m5.large"].map(str::to_owned).to_vec(), ..wanted() };
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&lacking("t3.medium"), &lacking("t3a.medium"), &run("i-third")]);
    assert_eq!(several.run(&aws, "eni-1", "kup-key", "kup-profile").await.unwrap(), "i-third");
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&lacking("t3.medium"), &lacking("t3a.medium"), &lacking("m5.large")]);
    let error = several.run(&aws, "eni-1", "kup-key", "kup-profile").await.unwrap_err();
    assert_eq!(error.what, "the instance master-1 (t3.medium or t3a.medium or m5.large in us-west-2a) could not be started");
    let said: Vec<bool> = several.types.iter().zip(&error.why).map(|(kind, why)| why.contains(kind)).collect();
    assert_eq!((said, error.why.len()), (vec![true; 3], 3), "{error}");
    // What is wrong with all of them is not tried with each.
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&refusal("VcpuLimitExceeded", "You have requested more vCPU capacity")]);
    let error = several.run(&aws, "eni-1", "kup-key", "kup-profile").await.unwrap_err();
    assert!(error.what.contains("(t3.medium in us-west-2a)"), "{error}");
}

#[tokio::test]
async fn one_that_a_call_made_whose_answer_was_lost_is_taken_over() {
    let used = || refusal("InvalidNetworkInterface.InUse", "Interface: [eni-1] in use.");
    let (leaving, used) = (used(), used());
    let none = mock!(aws_sdk_ec2::Client::describe_instances).then_output(|| DescribeInstancesOutput::builder().build());
    let ours = mock!(aws_sdk_ec2::Client::describe_instances).then_output(|| {
        let reservation = Reservation::builder().instances(Seen::builder().instance_id("i-earlier").build()).build();
        DescribeInstancesOutput::builder().reservations(reservation).build()
    });
    let mut aws = aws();
    // At first a predecessor has the interface, which is on its way out and not to be taken over.
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&leaving, &none, &used, &ours]);
    assert_eq!(start(&aws).await.unwrap(), "i-earlier");
}

#[tokio::test]
async fn a_master_is_as_strict_as_it_can_be_and_says_its_host_key() {
    let asked: Arc<Mutex<Option<RunInstancesInput>>> = Arc::default();
    let keep = asked.clone();
    let rule = mock!(aws_sdk_ec2::Client::run_instances)
        .match_requests(move |input| {
            *keep.lock().unwrap() = Some(input.clone());
            true
        })
        .then_output(|| RunInstancesOutput::builder().build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&rule]);
    start(&aws).await.unwrap();
    let input = asked.lock().unwrap().take().unwrap();
    let metadata = input.metadata_options().unwrap();
    assert_eq!((metadata.http_tokens(), metadata.http_put_response_hop_limit()), (Some(&HttpTokensState::Required), Some(1)));
    let disk = input.block_device_mappings()[0].ebs().unwrap();
    assert_eq!((disk.encrypted(), disk.volume_size()), (Some(true), Some(20)));
    assert!(input.client_token().is_some_and(|token| !token.is_empty()), "a retry after a lost answer makes no second one");
    let tags = input.tag_specifications()[0].tags();
    let public = tags::ec2::value(tags, HOST_KEY).unwrap();
    let user_data = base64::engine::general_purpose::STANDARD.decode(input.user_data().unwrap()).unwrap();
    assert!(String::from_utf8(user_data).unwrap().contains(public), "the tag names the key that the machine boots with");
    assert!(public.len() < 256, "a tag holds no more");
}

#[test]
fn what_differs_is_told() {
    let found = InstanceFound {
        name: "master-1".into(),
        id: "i-1".into(),
        state: "stopped".into(),
        instance_type: "t3.large".into(),
        zone: "us-west-2a".into(),
        private_address: "172.20.0.10".into(),
        public_address: None,
        host_key: None,
        own_host_key: None,
        vpc: String::new(),
        subnet: String::new(),
        launched: None,
        image: Some("debian-12/x86_64".into()),
        root_volume: Some("20".into()),
        volumes: vec!["vol-root".into()],
    };
    let aws = aws();
    // One of the types that it may be of stays what it is, the first or not.
    let fits = Instance { types: vec!["t3.medium".into(), "t3.large".into()], ..wanted() };
    let changes = crate::graph::resource::testing::diff(&fits, &found, &aws);
    assert!(changes.iter().all(|change| change.field != "aws.masters.type"), "{changes:?}");
    let changes = crate::graph::resource::testing::diff(&wanted(), &found, &aws);
    let told: Vec<String> = changes.iter().map(|c| format!("{}: {} → {} ({:?})", c.field, c.from, c.to, c.effect)).collect();
    assert_eq!(
        told,
        [
            "aws.masters.type: t3.large → t3.medium (Replace)",
            "aws.image: debian-12/x86_64 → debian-13/x86_64 (Replace)",
            "state: stopped → running (InPlace)",
            "etcd volume: not attached → a new one (InPlace)",
        ]
    );
}
