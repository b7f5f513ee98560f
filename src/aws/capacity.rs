//! What there is to do where AWS has no machine of a type: not to ask for the same again, but for another.

use std::fmt;
use std::marker::PhantomData;

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::fault::Fault;

/// What can be done where AWS has no machine of a type.
pub const HINT: &str = "try again later, or give other types to take instead, like `--set aws.masters.otherTypes=[t3a.medium,m5.large]` (aws.minions.otherTypes for minions); another zone in aws.zones needs `kup down --provider aws` first, since volumes stay in theirs";

/// Settings for a call that starts machines, whose errors are `E`. AWS calls their lack an error of its own (HTTP status 500), which the SDK
/// would try again for half a minute.
pub fn told_at_once<E>() -> aws_sdk_ec2::config::Builder
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    aws_sdk_ec2::config::Builder::new().retry_classifier(NoneLeft::<E>(PhantomData))
}

/// Ends the SDK's tries where there is no machine of the type.
struct NoneLeft<E>(PhantomData<fn() -> E>);

impl<E> fmt::Debug for NoneLeft<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoneLeft")
    }
}

impl<E> ClassifyRetry for NoneLeft<E>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(|outcome| outcome.err()).and_then(|error| error.as_operation_error());
        let code = error.and_then(|error| error.downcast_ref::<E>()).and_then(ProvideErrorMetadata::code);
        match code.map(Fault::of_code) {
            Some(Fault::Capacity) => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "no machine of the type is left"
    }
}
