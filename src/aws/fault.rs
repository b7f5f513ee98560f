//! AWS's errors, sorted once: by what can be done about them.

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};

use super::{capacity, permissions};
use crate::error::{Error, Kind, Result};

/// What an error means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It does not exist (any more, or not yet).
    Gone,
    /// It exists already.
    Exists,
    /// Something else uses it: it can be removed later.
    Blocked,
    /// Too many calls; the SDK has already tried again.
    Throttled,
    /// Something that was just made is not known everywhere yet.
    NotYet,
    /// The caller may not do this.
    Denied,
    /// The account has as many as it may have.
    Quota,
    /// AWS has no machine of this type in this zone now.
    Capacity,
    /// The request itself is wrong.
    Invalid,
    /// The login is missing, wrong or expired.
    Login,
    /// The service was not reached, or broke off.
    Network,
    /// The service itself fails at the moment.
    Down,
    /// Anything else.
    Other,
}

impl Fault {
    /// Sorts an error code of any of the services.
    pub fn of_code(code: &str) -> Fault {
        match code {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "InvalidClientTokenId"
            | "AuthFailure"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
            | "InvalidAccessKeyId"
            | "RequestTimeTooSkewed"
            | "MissingAuthenticationToken"
            | "IncompleteSignature" => Fault::Login,
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "UnauthorizedAccess" | "OptInRequired" => {
                Fault::Denied
            }
            "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "SlowDown"
            | "TooManyRequestsException"
            | "RequestThrottled"
            | "ThrottledException"
            | "RequestThrottledException"
            | "PriorRequestNotComplete" => Fault::Throttled,
            "InternalError" | "InternalFailure" | "ServiceUnavailable" | "Unavailable" | "InternalServerError" => Fault::Down,
            "DependencyViolation"
            | "DeleteConflict"
            | "ResourceInUse"
            | "ResourceInUseException"
            | "ResourceInUseFault"
            | "VolumeInUse"
            | "InvalidNetworkInterface.InUse"
            | "InvalidIPAddress.InUse"
            | "Gateway.NotAttached.InUse"
            | "ScalingActivityInProgress"
            | "ResourceContention"
            | "BucketNotEmpty"
            | "InvalidGroup.InUse"
            | "CannotDelete"
            | "OperationNotPermitted"
            | "ConcurrentModification"
            | "OperationAborted"
            | "Resource.AlreadyAssociated"
            | "IncorrectState"
            | "IncorrectInstanceState"
            | "VolumeIsAttached"
            | "InvalidInternetGatewayId.InUse" => Fault::Blocked,
            "InsufficientInstanceCapacity"
            | "InsufficientHostCapacity"
            | "InsufficientReservedInstanceCapacity"
            | "InsufficientCapacity"
            | "InsufficientCapacityOnHost"
            | "SpotMaxPriceTooLow"
            | "MaxSpotInstanceCountExceeded" => Fault::Capacity,
            "VpcLimitExceeded"
            | "VcpuLimitExceeded"
            | "InstanceLimitExceeded"
            | "AddressLimitExceeded"
            | "LimitExceeded"
            | "LimitExceededException"
            | "SecurityGroupLimitExceeded"
            | "RulesPerSecurityGroupLimitExceeded"
            | "InternetGatewayLimitExceeded"
            | "SubnetLimitExceeded"
            | "RouteTableLimitExceeded"
            | "VolumeLimitExceeded"
            | "TooManyBuckets"
            | "TooManyLoadBalancers"
            | "TooManyTargetGroups"
            | "VpcEndpointLimitExceeded"
            | "MaxIOPSLimitExceeded"
            | "NetworkInterfaceLimitExceeded" => Fault::Quota,
            "EntityAlreadyExists"
            | "AlreadyExists"
            | "AlreadyExistsFault"
            | "InvalidGroup.Duplicate"
            | "InvalidKeyPair.Duplicate"
            | "InvalidPermission.Duplicate"
            | "BucketAlreadyOwnedByYou"
            | "BucketAlreadyExists"
            | "RouteAlreadyExists"
            | "InvalidLaunchTemplateName.AlreadyExistsException"
            | "DuplicateLoadBalancerName"
            | "DuplicateTargetGroupName"
            | "DuplicateListener"
            | "PreconditionFailed"
            | "ConditionalRequestConflict" => Fault::Exists,
            "NoSuchEntity"
            | "NoSuchBucket"
            | "NoSuchKey"
            | "NoSuchVersion"
            | "NotFound"
            | "NoSuchBucketPolicy"
            | "LoadBalancerNotFound"
            | "TargetGroupNotFound"
            | "ListenerNotFound"
            | "NoSuchResourceException"
            | "ParameterNotFound"
            | "NoSuchTagSet"
            | "NoSuchPublicAccessBlockConfiguration"
            | "ServerSideEncryptionConfigurationNotFoundError"
            | "NoSuchUpload"
            | "Gateway.NotAttached" => Fault::Gone,
            code if code.contains("NotFound") || code.ends_with(".Malformed") && code.starts_with("Invalid") => Fault::Gone,
            code if code.contains("LimitExceeded") => Fault::Quota,
            code if code.starts_with("Invalid")
                || code.starts_with("Missing")
                || code.starts_with("Malformed")
                || code.starts_with("Validation")
                || code.starts_with("Unsupported")
                || code == "IdempotentParameterMismatch" =>
            {
                Fault::Invalid
            }
            _ => Fault::Other,
        }
    }

    /// Sorts an error by code and, where AWS has one code for several things, by its words.
    pub fn of(metadata: &ErrorMetadata) -> Fault {
        let (code, message) = (metadata.code().unwrap_or_default(), metadata.message().unwrap_or_default());
        match code {
            // EC2 and Auto Scaling say so of a profile that IAM has made but not told them of yet.
            "InvalidParameterValue" | "ValidationError"
                if message.contains("Invalid IAM Instance Profile") || message.contains("Invalid IamInstanceProfile") =>
            {
                Fault::NotYet
            }
            // IAM says so of a role or user in a policy that is too new.
            "MalformedPolicyDocument" | "MalformedPolicy" if message.contains("Invalid principal") => Fault::NotYet,
            // Auto Scaling's only code for what does not exist.
            "ValidationError" if message.contains("not found") => Fault::Gone,
            _ => Fault::of_code(code),
        }
    }
}

/// What failed in a call to AWS.
#[derive(Debug)]
pub struct Failure {
    /// What can be done about it.
    pub fault: Fault,
    /// AWS's code for it, empty if there is none.
    pub code: String,
    /// AWS's own words, or the network's.
    pub message: String,
    /// By which AWS's support finds the call.
    pub request: Option<String>,
    /// Which call it was, as IAM names services: `ec2:CreateVpc`; none if it is not known.
    pub call: Option<String>,
}

impl Failure {
    /// From the SDK's error.
    pub fn of<E, R>(error: SdkError<E, R>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let call = call_of(std::any::type_name::<E>());
        match &error {
            SdkError::ServiceError(service) => {
                let metadata = service.err().meta();
                let code = metadata.code().unwrap_or_default().to_owned();
                let message = metadata.message().map_or_else(|| service.err().to_string(), str::to_owned);
                let request = metadata.extra("aws_request_id").map(str::to_owned);
                Failure { fault: Fault::of(metadata), code, message, request, call }
            }
            _ => {
                let message = chain(&error);
                let login = ["credential", "SSO", "Token", "token"].iter().any(|word| message.contains(word))
                    && !matches!(error, SdkError::DispatchFailure(ref e) if e.is_io() || e.is_timeout());
                let fault = if login { Fault::Login } else { Fault::Network };
                Failure { fault, code: String::new(), message, request: None, call }
            }
        }
    }

    /// The same of a call about things whose ids AWS has only just given us: what it does not find, not all of it knows yet.
    #[must_use]
    pub fn fresh(mut self) -> Failure {
        if self.fault == Fault::Gone {
            self.fault = Fault::NotYet;
        }
        self
    }

    /// Whether it is about the clock: AWS's and this machine's are too far apart.
    fn is_skew(&self) -> bool {
        matches!(self.code.as_str(), "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture")
            || self.message.contains("Signature expired")
            || self.message.contains("Signature not yet current")
    }

    /// AWS's own words, or the network's.
    pub fn said(&self) -> String {
        if self.code.is_empty() { self.message.clone() } else { format!("{}: {}", self.code, self.message) }
    }

    /// As the user reads it: what failed, AWS's words, and what to type where that is known.
    pub fn error(self, what: impl Into<String>) -> Error {
        self.error_as(what, None)
    }

    /// As [`Failure::error`], for calls by a profile that was asked for by name: what to type names it too.
    fn error_as(self, what: impl Into<String>, profile: Option<&str>) -> Error {
        let error = Error::new(what).why(self.said());
        match self.fault {
            Fault::Login if self.is_skew() => error
                .kind(Kind::Credentials)
                .hint("AWS takes no call that is more than five minutes off: set this machine's clock; `timedatectl` shows what it says"),
            Fault::Login => {
                let (with, perhaps, likewise) = match profile {
                    Some(profile) => (format!(" --profile {profile}"), "", ""),
                    None => (String::new(), " (with the same --profile, if you use one)", " (with --profile likewise)"),
                };
                error
                    .kind(Kind::Credentials)
                    .hint(format!("`aws sts get-caller-identity{with}` shows what your credentials are worth{perhaps}"))
                    .hint(format!("`aws sso login{with}`{likewise} renews a login of IAM Identity Center; `aws configure{with}` sets keys"))
            }
            Fault::Denied => {
                let error = error.kind(Kind::Credentials);
                // EC2 often keeps to itself what was denied; the call tells.
                let action = self.call.as_deref().map(|call| permissions::action_of(call).unwrap_or(call));
                let error = match denied(&self.message).or(action.map(|action| (action, "*"))) {
                    Some((action, resource)) => error.hint(format!(
                        r#"have this added to a policy of yours: {{"Effect": "Allow", "Action": "{action}", "Resource": "{resource}"}}"#
                    )),
                    None => error,
                };
                error.hint("`kup iam policy` prints all that kup needs for this cluster, by action")
            }
            Fault::Quota => error.hint("ask for more in the console of Service Quotas, or remove what is no longer used; then `kup up` goes on"),
            Fault::Capacity => error.hint(capacity::HINT),
            Fault::Throttled => error.hint("other programs use up this account's calls: try again in a minute"),
            Fault::Down => error.hint("AWS itself fails at the moment: try again in a few minutes; https://health.aws.amazon.com/health/status shows what is known"),
            Fault::Network => error.hint("check the network, AWS_ENDPOINT_URL if you set it, and the region's name; then try again"),
            _ => error,
        }
    }
}

/// The call whose error has this name in the SDK: `aws_sdk_ec2::operation::create_vpc::CreateVpcError` is one of `ec2:CreateVpc`.
fn call_of(error: &str) -> Option<String> {
    let service = match error.split("::").next()?.strip_prefix("aws_sdk_")? {
        "elasticloadbalancingv2" => "elasticloadbalancing",
        other => other,
    };
    let operation = error.rsplit("::").next()?.strip_suffix("Error")?;
    Some(format!("{service}:{operation}"))
}

/// The action and the resource that AWS's words about a denial name; any resource if they name none.
fn denied(message: &str) -> Option<(&str, &str)> {
    let word = |after: &str| message.split_once(after)?.1.split([' ', ',']).next().map(|word| word.trim_end_matches('.'));
    let action = word("to perform: ").filter(|action| action.contains(':'))?;
    Some((action, word("on resource: ").map_or("*", |resource| resource.trim_matches('"'))))
}

/// An error and its causes in one line. The SDK's own way of printing them adds their inner structure.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}

/// Turns the SDK's errors into kup's by saying what was being done.
pub trait Explain<T> {
    /// `what` names the failed action, as one sentence without a full stop.
    fn explain(self, what: impl Into<String>) -> Result<T>;
    /// The failure, for callers that can do something about some of its kinds.
    fn failure(self) -> std::result::Result<T, Failure>;
}

impl<T, E, R> Explain<T> for std::result::Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    fn explain(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| Failure::of(e).error(what))
    }

    fn failure(self) -> std::result::Result<T, Failure> {
        self.map_err(Failure::of)
    }
}

/// A removal of something that is gone already has done its work.
pub fn unless_gone<T>(outcome: std::result::Result<T, Failure>) -> std::result::Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.fault == Fault::Gone => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Where, and as whom, the very first call was made, and how it was answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct First<'a> {
    /// The profile that was asked for by name.
    pub profile: Option<&'a str>,
    /// The endpoint that is set, if it is not AWS's own.
    pub endpoint: Option<&'a str>,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
}

/// The error of the very first call: whatever goes wrong there is about logging in, unless AWS was not reached, or has too much to do.
pub fn login<E, R>(what: &str, first: First<'_>, error: SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let mut failure = Failure::of(error);
    // AWS has a code for whatever it says.
    let other = first.status.filter(|_| failure.code.is_empty());
    if let Some(status) = other {
        failure.fault = Fault::Network;
        failure.message = format!("the answer, HTTP {status}, is none of AWS's");
    }
    if !matches!(failure.fault, Fault::Network | Fault::Throttled | Fault::Down) {
        failure.fault = Fault::Login;
    }
    let Some(url) = first.endpoint.filter(|_| failure.fault == Fault::Network) else {
        return failure.error_as(what, first.profile);
    };
    let does = if other.is_some() { "is not AWS" } else { "does not answer" };
    Error::new(format!("{url}, which is to be called in place of AWS, {does}"))
        .why(failure.said())
        .hint("start what is to answer there; or `unset AWS_ENDPOINT_URL` (or endpoint_url of the profile), to call AWS itself")
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
