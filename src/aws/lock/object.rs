//! The object that is the lock: how it is read, and written on a condition.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use serde::{Deserialize, Serialize};

use super::Holder;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault};

/// The object.
const KEY: &str = "lock";

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Content {
    /// Who holds the lock now.
    pub(super) holder: Option<Holder>,
    /// Another one in each write: S3 tells contents apart by their hash, and so the same one again would be taken for the old.
    pub(super) nonce: String,
}

/// The lock as it was found.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Seen {
    NoBucket,
    NoLock,
    There { content: Option<Content>, etag: String, age: Duration },
}

/// Reads it.
pub(super) async fn look(aws: &Aws) -> std::result::Result<Seen, Failure> {
    let answered = ServerDate::default();
    let call = aws.s3.get_object().bucket(aws.bucket()).key(KEY).expected_bucket_owner(&aws.identity.account);
    let there = match call.customize().interceptor(answered.clone()).send().await.failure() {
        Ok(there) => there,
        Err(failure) if failure.code == "NoSuchBucket" => return Ok(Seen::NoBucket),
        Err(failure) if failure.fault == Fault::Gone => return Ok(Seen::NoLock),
        Err(failure) => return Err(failure),
    };
    let etag = there.e_tag.unwrap_or_default();
    // By S3's clock alone: ours may be wrong.
    let age = match (answered.get(), there.last_modified) {
        (Some(now), Some(written)) => Duration::from_secs(u64::try_from(now.secs() - written.secs()).unwrap_or_default()),
        _ => Duration::ZERO,
    };
    let body = there.body.collect().await;
    let body = body.map_err(|e| Failure {
        fault: Fault::Network,
        code: String::new(),
        message: e.to_string(),
        request: None,
        call: None,
    })?;
    Ok(Seen::There { content: serde_json::from_slice(&body.into_bytes()).ok(), etag, age })
}

/// Writes the lock if it is still as it was seen: the object of this tag, or none. Gives the new tag.
/// `nonce` tells this write from all others.
pub(super) async fn put(
    aws: &Aws,
    holder: Option<&Holder>,
    old: Option<&str>,
    nonce: &str,
) -> std::result::Result<String, Failure> {
    let broken = |e: &dyn std::fmt::Display| Failure {
        fault: Fault::Other,
        code: String::new(),
        message: e.to_string(),
        request: None,
        call: None,
    };
    let content = Content { holder: holder.cloned(), nonce: nonce.to_owned() };
    let body = serde_json::to_vec(&content).map_err(|e| broken(&e))?;
    let call = aws.s3.put_object().bucket(aws.bucket()).key(KEY).expected_bucket_owner(&aws.identity.account).body(body.into());
    let call = match old {
        Some(etag) => call.if_match(etag),
        None => call.if_none_match("*"),
    };
    Ok(call.content_type("application/json").send().await.failure()?.e_tag.unwrap_or_default())
}

/// When S3 answered, by its own clock.
#[derive(Debug, Clone, Default)]
struct ServerDate(Arc<Mutex<Option<DateTime>>>);

impl ServerDate {
    fn get(&self) -> Option<DateTime> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[dyn_dispatch_hint]
impl Intercept for ServerDate {
    fn name(&self) -> &'static str {
        "ServerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
