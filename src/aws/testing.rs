//! AWS as unit tests have it: clients that answer by rules, and no network at all.

use std::collections::BTreeMap;

use super::Aws;
use super::client::Identity;

/// A client of one service that answers by these rules. Without any, every call fails.
///
/// `aws_smithy_mocks::mock_client!` would do, but for a feature of the SDK's crates that would have them built twice.
macro_rules! mocked {
    ($service:ident, $mode:ident, [$($rule:expr),* $(,)?]) => {{
        #[allow(unused_mut)]
        let mut rules = aws_smithy_mocks::MockResponseInterceptor::new().rule_mode(aws_smithy_mocks::RuleMode::$mode);
        $(rules = rules.with_rule($rule);)*
        $service::Client::from_conf(
            $service::Config::builder()
                .behavior_version($service::config::BehaviorVersion::latest())
                .region($service::config::Region::from_static("us-west-2"))
                .allow_no_auth()
                .http_client(aws_smithy_mocks::create_mock_http_client())
                .interceptor(rules)
                .build(),
        )
    }};
}
pub(crate) use mocked;

/// The cluster `kubernetes` in us-west-2, with no service that answers: a test puts its own clients in.
pub(crate) fn aws() -> Aws {
    let config = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::from_static("us-west-2"))
        .http_client(aws_smithy_mocks::create_mock_http_client())
        .build();
    let identity =
        Identity { account: "123456789012".into(), arn: "arn:aws:iam::123456789012:user/me".into(), partition: "aws".into() };
    Aws::of_config(&config, "us-west-2", identity, "kubernetes")
}

/// An error of EC2's, by its code: for `then_error`-like rules, which want the operation's own type.
pub(crate) fn coded(code: &str, message: &str) -> aws_smithy_types::error::ErrorMetadata {
    aws_smithy_types::error::ErrorMetadata::builder().code(code).message(message).build()
}

/// Tags by key, as tests write them.
pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
