//! One client per service, all of one configuration, and whose cluster they work for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeSerializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use backon::{ExponentialBuilder, Retryable as _};
use sha2::{Digest as _, Sha256};

use super::deadline::Deadlines;
use super::fault::{self, Failure, Fault, First};
use super::watch::Watch;
use crate::cluster::aws::is_region;
use crate::cluster::problem::quoted;
use crate::error::{Error, Kind, Result};
use crate::graph::Cloud;
use crate::machine::ssh;

/// How often a call is tried: the SDK's own three are too few for a fresh account's throttling. Each waits by itself, a second at first and
/// twice as long each time: the SDK's adaptive mode holds back all calls of a client for 10 s and more after a single one was throttled.
const ATTEMPTS: u32 = 8;

/// How often the very first call is tried.
const FIRST_ATTEMPTS: u32 = 3;

/// How long one try of a call may take. RunInstances and CreateAutoScalingGroup were seen to take above 10 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long something may be in the way of a removal: a network interface of a load balancer was seen to take minutes to go.
const BLOCKED: Duration = Duration::from_secs(300);

/// The same once something could not be removed: what stands before it in a removal waits in vain, as a rule.
const BLOCKED_AGAIN: Duration = Duration::from_secs(15);

/// How long this waits until nothing is in the way of what it does. Clones share what happened.
#[derive(Debug, Clone)]
pub struct Patience {
    at_first: Duration,
    then: Duration,
    /// Whether something could not be removed.
    stuck: Arc<AtomicBool>,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { at_first: BLOCKED, then: BLOCKED_AGAIN, stuck: Arc::default() }
    }
}

impl Patience {
    /// Something could not be removed: who waits already waits less from now on too.
    fn lose(&self) {
        self.stuck.store(true, Ordering::Relaxed);
    }

    fn limit(&self) -> Duration {
        if self.stuck.load(Ordering::Relaxed) { self.then } else { self.at_first }
    }
}

/// The calls that were made, by `service:Operation` as IAM names services, with how often.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<BTreeMap<String, u32>>>);

impl Calls {
    /// A copy of what was counted until now.
    pub fn counted(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls there were, and how many of them could change something.
    pub fn sums(&self) -> (u32, u32) {
        let counted = self.counted();
        let mutating = counted.iter().filter(|(call, _)| !reads(call)).map(|(_, n)| n).sum();
        (counted.values().sum(), mutating)
    }
}

/// Whether a call (`ec2:DescribeVpcs`) only reads, by the first word of its name.
pub fn reads(call: &str) -> bool {
    let name = call.split(':').next_back().unwrap_or_default();
    ["Describe", "Get", "List", "Head", "Simulate", "Decode"].iter().any(|word| name.starts_with(word))
}

/// IAM's word for a service, as its actions begin with it.
fn service(id: &str) -> &str {
    match id {
        "EC2" => "ec2",
        "IAM" => "iam",
        "Auto Scaling" => "autoscaling",
        "Elastic Load Balancing v2" => "elasticloadbalancing",
        "S3" => "s3",
        "STS" => "sts",
        "SSM" => "ssm",
        "Service Quotas" => "servicequotas",
        other => other,
    }
}

#[dyn_dispatch_hint]
impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        if let Some(metadata) = config.load::<Metadata>() {
            let call = format!("{}:{}", service(metadata.service()), metadata.name());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
        }
        Ok(())
    }
}

/// AWS, as one cluster's owner sees it. Cheap to clone: clones share clients, and so their connections and their retry budgets.
#[derive(Debug, Clone)]
pub struct Aws {
    /// Networks, addresses, volumes, instances.
    pub ec2: aws_sdk_ec2::Client,
    /// Users, roles, policies. One for the whole account, whatever the region.
    pub iam: aws_sdk_iam::Client,
    /// Groups of minions.
    pub autoscaling: aws_sdk_autoscaling::Client,
    /// Network load balancers.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// The cluster's bucket.
    pub s3: aws_sdk_s3::Client,
    /// Public parameters: images.
    pub ssm: aws_sdk_ssm::Client,
    /// Who calls.
    pub sts: aws_sdk_sts::Client,
    /// What the account may have.
    pub quotas: aws_sdk_servicequotas::Client,
    /// What was called.
    pub calls: Calls,
    /// Waits for what AWS does in its own time.
    pub watch: Watch,
    /// Where S3 is, if an endpoint of somebody else's is set for it: the machines are to look there too.
    pub s3_endpoint: Option<String>,
    /// Where all services are, if that is set.
    pub endpoint: Option<String>,
    /// The region of everything but IAM.
    pub region: String,
    /// Who calls, and for which account.
    pub identity: Identity,
    /// The cluster's name.
    pub cluster: String,
    /// The profile that was asked for by name, which the next command has to name too.
    pub profile: Option<String>,
    /// How long it waits for what is in the way.
    pub patience: Patience,
    /// How long answers may take that are asked for before anything is made.
    pub deadlines: Deadlines,
}

impl Cloud for Aws {
    fn something_stays(&self) {
        self.patience.lose();
    }
}

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// The caller's own ARN.
    pub arn: String,
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
}

/// Where and as whom to call: what the config says of it. All else (environment, profiles, SSO, endpoints) is the SDK's own way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Region, instead of the SDK's.
    pub region: Option<String>,
    /// Profile, instead of the SDK's.
    pub profile: Option<String>,
}

impl Aws {
    /// Connects, and asks who calls: the first of all calls, so that wrong credentials are told before anything else.
    ///
    /// # Errors
    /// No region (the ways to set it are named), no or wrong or expired credentials (of kind credentials), an endpoint that does not answer.
    pub async fn connect(login: &Login, cluster: &str) -> Result<Aws> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build());
        if let Some(region) = &login.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &login.profile {
            loader = loader.profile_name(profile);
            // Keys in the environment would come first, and be another account's perhaps; whoever names a profile means it.
            let mut around = ProviderConfig::default();
            if let Some(region) = &login.region {
                around = around.with_region(Some(Region::new(region.clone())));
            }
            loader = loader
                .credentials_provider(ProfileFileCredentialsProvider::builder().configure(&around).profile_name(profile).build());
        }
        let config = loader.load().await;
        let Some(region) = config.region().map(ToString::to_string).filter(|region| !region.is_empty()) else {
            return Err(Error::usage("no AWS region is set")
                .why("neither the config, nor the environment, nor the profile names one")
                .hint("add --region us-west-2, or write aws.region into the config")
                .hint("or `export AWS_REGION=us-west-2`, or `aws configure set region us-west-2`"));
        };
        places(&region, [config.endpoint_url().map(str::to_owned), std::env::var("AWS_ENDPOINT_URL_S3").ok()])?;
        // Who calls is known once that is asked.
        let mut aws = Aws::of_config(&config, &region, Identity::default(), cluster);
        aws.profile.clone_from(&login.profile);
        aws.identity = aws.caller().await?;
        Ok(aws)
    }

    /// All clients of one configuration, for whom this identity calls. Asks nothing.
    pub fn of_config(config: &SdkConfig, region: &str, identity: Identity, cluster: &str) -> Aws {
        let calls = Calls::default();
        macro_rules! client {
            ($service:ident) => {
                $service::Client::from_conf($service::config::Builder::from(config).interceptor(calls.clone()).build())
            };
        }
        // Buckets as host names need a DNS that knows them: no endpoint but AWS's own has that.
        let s3_endpoint = std::env::var("AWS_ENDPOINT_URL_S3").ok().or_else(|| config.endpoint_url().map(str::to_owned));
        let s3 = aws_sdk_s3::config::Builder::from(config).interceptor(calls.clone()).force_path_style(s3_endpoint.is_some());
        Aws {
            ec2: client!(aws_sdk_ec2),
            iam: client!(aws_sdk_iam),
            autoscaling: client!(aws_sdk_autoscaling),
            elb: client!(aws_sdk_elasticloadbalancingv2),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            ssm: client!(aws_sdk_ssm),
            quotas: client!(aws_sdk_servicequotas),
            sts: client!(aws_sdk_sts),
            calls,
            s3_endpoint,
            endpoint: config.endpoint_url().map(str::to_owned),
            watch: Watch::default(),
            region: region.to_owned(),
            identity,
            cluster: cluster.to_owned(),
            profile: None,
            patience: Patience::default(),
            deadlines: Deadlines::default(),
        }
    }

    /// Who calls, as AWS says.
    pub(super) async fn caller(&self) -> Result<Identity> {
        // An endpoint that does not answer at first is told at once: nobody has begun to wait for anything yet.
        let soon = aws_sdk_sts::config::Config::builder().retry_config(RetryConfig::standard().with_max_attempts(FIRST_ATTEMPTS));
        let what = "AWS does not say who we are";
        let call = self.sts.get_caller_identity().customize().config_override(soon);
        let endpoint = std::env::var("AWS_ENDPOINT_URL_STS").ok().or_else(|| self.endpoint.clone());
        let call = async {
            call.send().await.map_err(|error| {
                let status = error.raw_response().map(|response| response.status().as_u16());
                fault::login(what, First { profile: self.profile.as_deref(), endpoint: endpoint.as_deref(), status }, error)
            })
        };
        let at = endpoint.as_ref().map(|url| format!(", at {url}")).unwrap_or_default();
        let caller = self.deadlines.needed(&format!("who calls it{at}"), call).await?;
        let (Some(account), Some(arn)) = (caller.account, caller.arn) else {
            return Err(Error::new(what).why("the answer names no account").kind(Kind::Credentials));
        };
        let partition = arn.split(':').nth(1).unwrap_or("aws").to_owned();
        // Both become words of policies, and of scripts that machines run.
        let known = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !known || !partition.starts_with("aws") || !partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            let why = format!("it says {} in the account {}, which can't be", quoted(&arn), quoted(&account));
            return Err(Error::new(what).why(why).kind(Kind::Credentials).hint("check AWS_ENDPOINT_URL, if it is set"));
        }
        Ok(Identity { account, arn, partition })
    }

    /// Does `work` until nothing is in its way any more: AWS needs a while to notice that what used a thing is gone, and to tell all of
    /// itself about what is new. Other failures end it at once.
    ///
    /// # Errors
    /// After [`BLOCKED`] the last failure, with AWS's own words about what is in the way; after [`BLOCKED_AGAIN`] if something else could
    /// not be removed before or meanwhile.
    pub async fn until_unblocked<T, F>(&self, what: &str, work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Failure>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter();
        let begun = Instant::now();
        let passes = |failure: &Failure| {
            matches!(failure.fault, Fault::Blocked | Fault::NotYet) && begun.elapsed() < self.patience.limit()
        };
        work.retry(pauses).when(passes).await.map_err(|failure| {
            if failure.fault == Fault::Blocked {
                self.patience.lose();
            }
            failure.error(what)
        })
    }

    /// The same login, for another cluster.
    #[must_use]
    pub fn of(&self, cluster: &str) -> Aws {
        Aws { cluster: cluster.to_owned(), watch: Watch::default(), patience: Patience::default(), ..self.clone() }
    }

    /// The flags by which the next command finds this cluster: `--provider aws --region us-west-2 --name kubernetes`.
    pub fn flags(&self) -> String {
        let profile = self.profile.as_ref().map(|profile| format!(" --profile {}", ssh::quoted(profile))).unwrap_or_default();
        format!("--provider aws{profile} --region {} --name {}", self.region, self.cluster)
    }

    /// The path below which everything of this cluster stands in IAM, which knows no regions: `/kup/us-west-2/kubernetes/`.
    pub fn iam_path(&self) -> String {
        format!("/kup/{}/{}/", self.region, self.cluster)
    }

    /// A name that is the cluster's own in an account with many regions: `kubernetes-master-1a2b3c4d`, of at most `limit` characters.
    pub fn unique(&self, what: &str, limit: usize) -> String {
        unique(&self.region, &self.cluster, what, limit)
    }

    /// The name of the cluster's bucket, which is unique in the world: it has a hash of account and region.
    pub fn bucket(&self) -> String {
        bucket(&self.identity.account, &self.region, &self.cluster)
    }
}

/// Whether region and endpoints are such: the config's own region was checked with it, but not that of the environment or of a profile. They
/// stand in scripts and units of machines, between quotes.
fn places(region: &str, endpoints: impl IntoIterator<Item = Option<String>>) -> Result<()> {
    if !is_region(region) {
        return Err(Error::usage(format!("{} is no AWS region", quoted(region)))
            .hint("set one like us-west-2: in the config (aws.region), by AWS_REGION, or in the profile"));
    }
    let plain = |url: &str| url.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b));
    match endpoints.into_iter().flatten().find(|url| !plain(url)) {
        None => Ok(()),
        Some(url) => Err(Error::usage(format!("{} is no endpoint that machines can be told", quoted(&url)))
            .hint("set AWS_ENDPOINT_URL to a plain address like http://127.0.0.1:4566, or unset it")),
    }
}

/// As [`Aws::bucket`].
pub fn bucket(account: &str, region: &str, cluster: &str) -> String {
    format!("kup-{}-{cluster}", short_hash(&[account, region, cluster], 12))
}

/// As [`Aws::unique`].
pub fn unique(region: &str, cluster: &str, what: &str, limit: usize) -> String {
    let hash = short_hash(&[region, cluster], 8);
    let room = limit.saturating_sub(hash.len() + what.len() + 2);
    let cluster: String = cluster.chars().take(room).collect();
    format!("{}-{what}-{hash}", cluster.trim_end_matches('-'))
}

/// The first `digits` hexadecimal digits of a hash of these words.
fn short_hash(words: &[&str], digits: usize) -> String {
    let mut hash = hex::encode(Sha256::digest(words.join("/").as_bytes()));
    hash.truncate(digits);
    hash
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
