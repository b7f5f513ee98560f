//! What all kinds of IAM things share: names, tags, and policies as they are written and compared.

use aws_sdk_iam::types::Tag;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::fault::{Failure, Fault};
use super::permissions::Whose;
use super::{Aws, tags};
use crate::error::{Context as _, Error, Result};
use crate::templates;

/// The longest name of a role or a user.
pub const NAME: usize = 64;

/// The tags of a thing, as IAM takes them.
pub fn tags(aws: &Aws, name: &str, role: Option<&str>) -> Vec<Tag> {
    // A tag without key or value can't come out of `tags::tags`.
    tags::tags(aws, name, role).into_iter().filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok()).collect()
}

/// The name among its kind of what IAM calls `real`: the one of `names` that it was made from, or else IAM's own.
///
/// Lists tell no tags, so that reading them would take a call for each thing.
pub fn name_of(aws: &Aws, names: &[&str], real: &str) -> String {
    names.iter().find(|name| aws.unique(name, NAME) == real).map_or_else(|| real.to_owned(), |name| (*name).to_owned())
}

/// Something of that name stands outside of the cluster's path: names are unique in the whole account.
pub fn foreign(what: &str, real: &str, path: &str, ours: &str) -> Error {
    Error::new(format!("the {what} {real} is not this cluster's"))
        .why(format!("it stands at {path}, and not at {ours}"))
        .hint("rename or remove it, or give the cluster another --name; kup does not touch it")
}

/// What was just made, or just needs something that was, is not known everywhere in IAM yet: not found means not yet.
pub fn soon(failure: Failure) -> Failure {
    if failure.fault == Fault::Gone { Failure { fault: Fault::NotYet, ..failure } } else { failure }
}

/// A policy from its template.
pub fn policy(template: &str, whose: &Whose) -> Result<Value> {
    let path = format!("iam/{template}.json");
    let values = minijinja::context! {
        cluster => &whose.cluster,
        bucket => whose.arn_of_bucket(),
        ec2 => whose.regional("ec2"),
        elb => whose.regional("elasticloadbalancing"),
        iam => whose.global("iam"),
        service => if whose.partition == "aws-cn" { "ec2.amazonaws.com.cn" } else { "ec2.amazonaws.com" },
    };
    serde_json::from_str(&templates::render(&path, values)?).with_context(|| format!("the template {path} is no JSON"))
}

/// A policy that IAM gives: its JSON is percent-encoded. Some endpoints leave that out, or quote the JSON as a string once more.
pub fn decoded(document: &str) -> Value {
    let text = percent_encoding::percent_decode_str(document).decode_utf8_lossy();
    // What is no JSON differs from every policy, and so is replaced.
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    match read(&text) {
        Value::String(inner) => read(&inner),
        policy => policy,
    }
}

/// A few digits by which two policies can be told apart in a plan.
pub fn digest(policy: &Value) -> String {
    let mut hash = hex::encode(Sha256::digest(sorted(policy).to_string()));
    hash.truncate(8);
    hash
}

/// The same with all keys in order: what means the same has the same digest.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_compared_by_what_they_say() {
        let ours = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*"}]});
        let theirs = decoded(
            "%7B%22Statement%22%3A%5B%7B%22Action%22%3A%22s3%3A%2A%22%2C%22Effect%22%3A%22Allow%22%7D%5D%2C%22Version%22%3A%222012-10-17%22%7D",
        );
        assert_eq!(ours, theirs);
        assert_eq!(digest(&ours), digest(&theirs));
        assert_ne!(digest(&ours), digest(&json!({"Version": "2012-10-17", "Statement": []})));
        assert_ne!(decoded("half a pol"), ours);
        let text = ours.to_string();
        assert_eq!(decoded(&text), ours);
        assert_eq!(decoded(&Value::String(text).to_string()), ours);
    }
}
