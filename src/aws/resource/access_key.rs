//! The operator's access key, if it is to have one: made here, and stored here as an AWS profile.
//!
//! AWS tells a key's secret once, in the answer to the call that makes it. So the user carries a tag that says how far that came: a key
//! whose secret reached no file is removed and made anew, one that another machine keeps is left alone, and so is one made by hand.

use std::collections::BTreeSet;
use std::path::PathBuf;

use aws_sdk_iam::types::Tag;

use super::AwsResource;
use super::operator_policy::OPERATOR;
use super::operator_user::OperatorUser;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::permissions::{Need, Scope, need};
use crate::aws::profile::{self, Key};
use crate::aws::{Aws, iam};
use crate::error::{Context as _, Error, Result};
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// The user's tag: `making` and the ids of the keys from before, or the id and the host that keeps the secret.
const MARK: &str = "kup.dev/access-key";

/// The word for a key that is being made.
const MAKING: &str = "making";

/// The operator's access key.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Its name among access keys: [`OPERATOR`].
    pub name: String,
    /// Whose it is.
    pub user: Ref<OperatorUser>,
}

/// Where a key's secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In this machine's credentials file.
    Here,
    /// In another machine's, by its host name.
    Elsewhere(String),
    /// It was here, and is no more.
    Lost,
    /// The key was made, and then kup was killed. Whether the file has it.
    Unfinished(bool),
}

/// An access key as it was found.
#[derive(Debug, Clone)]
pub struct AccessKeyFound {
    name: String,
    /// By which AWS knows it.
    pub key: String,
    /// What IAM calls its user.
    pub user: String,
    /// Where its other half is.
    pub secret: Secret,
}

impl Found for AccessKeyFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// The key's public half.
    fn id(&self) -> &str {
        &self.key
    }
}

impl AwsResource for AccessKey {
    const NEEDS: &'static [Need] = &[
        need("iam:ListAccessKeys", Scope::IamPath),
        need("iam:ListUserTags", Scope::IamPath),
        need("iam:TagUser", Scope::IamPath),
        need("iam:CreateAccessKey", Scope::IamPath),
        need("iam:DeleteAccessKey", Scope::IamPath),
    ];
}

impl Resource for AccessKey {
    type Cloud = Aws;
    type Found = AccessKeyFound;
    const KIND: &'static str = "access key";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.user.address()]
    }

    fn detail(&self) -> String {
        "stored as an AWS profile".to_owned()
    }

    fn diff(&self, found: &AccessKeyFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        match &found.secret {
            Secret::Here | Secret::Elsewhere(_) => Vec::new(),
            Secret::Lost => vec![Change::in_place("secret", "no longer in the credentials file", "a new key's")],
            Secret::Unfinished(true) => vec![Change::in_place("secret", "stored, but not marked so", "marked")],
            Secret::Unfinished(false) => vec![Change::in_place("secret", "never stored", "a new key's")],
        }
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<AccessKeyFound> {
        let (aws, user) = (cx.cloud, cx.get(&self.user)?.user.clone());
        let what = format!("the user {user} could not get an access key");
        let (file, profile) = (profile::file()?, profile::name(&aws.cluster));
        let before = ids(aws, &user).await.map_err(|failure| iam::soon(failure).error(&what))?;
        // Before there is anything to lose.
        if let Some(id) = profile::key_id(&file, &profile)? {
            let marked = marked(aws, &user).await.map_err(|failure| iam::soon(failure).error(&what))?.unwrap_or_default();
            if before.contains(&id) || marked.split('@').next() != Some(&id) {
                return Err(profile::taken(&file, &profile));
            }
            // It was kup's, and somebody removed it from AWS alone.
            delete(aws, &user, &id).await?;
        }
        if before.len() >= 2 {
            return Err(Error::new(what)
                .why(format!("it has two already, which is all that AWS allows: {}", listed(&before)))
                .hint(format!("`aws iam delete-access-key --user-name {user} --access-key-id …` removes one that nobody uses")));
        }
        mark(aws, &user, format!("{MAKING} {}", before.iter().cloned().collect::<Vec<_>>().join(" "))).await?;
        let made = aws
            .until_unblocked(&what, || async {
                aws.iam.create_access_key().user_name(&user).send().await.failure().map_err(iam::soon)
            })
            .await?;
        let made = made.access_key.ok_or_else(|| Error::new(&what).why("AWS's answer has no key"))?;
        let key = Key { id: made.access_key_id, secret: made.secret_access_key };
        // A call whose answer was lost, and which was then sent again, made one that nobody knows the secret of.
        let lost = |id: &String| !before.contains(id) && *id != key.id;
        for id in ids(aws, &user).await.map_err(|failure| failure.error(&what))?.into_iter().filter(lost) {
            delete(aws, &user, &id).await?;
        }
        if let Err(e) = store(file, profile, key.clone()).await {
            // The error counts: this key is found as unfinished by the next call, whether or not it could be removed.
            return match delete(aws, &user, &key.id).await {
                Ok(()) => Err(e),
                Err(other) => Err(e.why(other.what)),
            };
        }
        self.finish(aws, user, key.id).await
    }

    async fn update(&self, found: &AccessKeyFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<AccessKeyFound> {
        match found.secret {
            Secret::Unfinished(true) => self.finish(cx.cloud, found.user.clone(), found.key.clone()).await,
            _ => {
                delete(cx.cloud, &found.user, &found.key).await?;
                self.create(cx).await
            }
        }
    }

    async fn list(aws: &Aws) -> Result<Vec<AccessKeyFound>> {
        let user = aws.unique(OPERATOR, iam::NAME);
        let what = format!("the access keys of the user {user} could not be listed");
        let keys = unless_gone(ids(aws, &user).await).map_err(|failure| failure.error(&what))?.unwrap_or_default();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mark = unless_gone(marked(aws, &user).await).map_err(|failure| failure.error(&what))?.flatten();
        let Some(mark) = mark else { return Ok(Vec::new()) };
        let stored = profile::key_id(&profile::file()?, &profile::name(&aws.cluster))?;
        let found = |(key, secret)| AccessKeyFound { name: OPERATOR.into(), key, user: user.clone(), secret };
        Ok(judge(&mark, &keys, stored.as_deref(), &host()).into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &AccessKeyFound) -> Result<()> {
        delete(aws, &found.user, &found.key).await
    }
}

impl AccessKey {
    /// Says that the secret is stored, and where.
    async fn finish(&self, aws: &Aws, user: String, key: String) -> Result<AccessKeyFound> {
        mark(aws, &user, format!("{key}@{}", host())).await?;
        Ok(AccessKeyFound { name: self.name.clone(), key, user, secret: Secret::Here })
    }
}

/// Which of a user's keys are kup's, and where their secrets are.
fn judge(mark: &str, keys: &BTreeSet<String>, stored: Option<&str>, host: &str) -> Vec<(String, Secret)> {
    let is_here = |key: &str| stored == Some(key);
    if let Some(before) = mark.strip_prefix(MAKING) {
        let before: Vec<&str> = before.split_whitespace().collect();
        let new = keys.iter().filter(|key| !before.contains(&key.as_str()));
        return new.map(|key| (key.clone(), Secret::Unfinished(is_here(key)))).collect();
    }
    match mark.split_once('@') {
        Some((key, keeper)) if keys.contains(key) => {
            let secret = match keeper {
                _ if is_here(key) => Secret::Here,
                keeper if keeper == host => Secret::Lost,
                keeper => Secret::Elsewhere(keeper.to_owned()),
            };
            vec![(key.to_owned(), secret)]
        }
        _ => Vec::new(),
    }
}

/// This machine's name, in the characters that a tag may have.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(128).collect()
}

fn listed(keys: &BTreeSet<String>) -> String {
    keys.iter().cloned().collect::<Vec<_>>().join(", ")
}

async fn ids(aws: &Aws, user: &str) -> std::result::Result<BTreeSet<String>, Failure> {
    let keys: Vec<_> =
        aws.iam.list_access_keys().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    Ok(keys.into_iter().filter_map(|key| key.access_key_id).collect())
}

/// What the user's mark says.
async fn marked(aws: &Aws, user: &str) -> std::result::Result<Option<String>, Failure> {
    let tags: Vec<Tag> =
        aws.iam.list_user_tags().user_name(user).into_paginator().items().send().try_collect().await.failure()?;
    Ok(tags.into_iter().find(|tag| tag.key == MARK).map(|tag| tag.value))
}

async fn mark(aws: &Aws, user: &str, text: String) -> Result<()> {
    let what = format!("the user {user} could not be tagged");
    let tag = Tag::builder().key(MARK).value(text.trim()).build().context(&what)?;
    aws.until_unblocked(&what, || async {
        aws.iam.tag_user().user_name(user).tags(tag.clone()).send().await.failure().map_err(iam::soon).map(|_| ())
    })
    .await
}

/// Removes a key, and then the profile that holds it.
async fn delete(aws: &Aws, user: &str, key: &str) -> Result<()> {
    aws.until_unblocked(&format!("the access key {key} of the user {user} could not be removed"), || async {
        unless_gone(aws.iam.delete_access_key().user_name(user).access_key_id(key).send().await.failure()).map(|_| ())
    })
    .await?;
    let (file, profile, key) = (profile::file()?, profile::name(&aws.cluster), key.to_owned());
    let removed = tokio::task::spawn_blocking(move || profile::remove(&file, &profile, &key)).await;
    removed.context("the AWS profile could not be removed")?.map(|_| ())
}

async fn store(file: PathBuf, profile: String, key: Key) -> Result<()> {
    let stored = tokio::task::spawn_blocking(move || profile::put(&file, &profile, &key)).await;
    stored.context("the AWS profile could not be written")?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(mark: &str, keys: &[&str], stored: Option<&str>) -> Vec<(String, Secret)> {
        judge(mark, &keys.iter().map(|key| (*key).to_owned()).collect(), stored, "here")
    }

    #[test]
    fn a_key_is_kups_by_its_mark_alone() {
        assert_eq!(judged("AKIA1@here", &["AKIA1", "AKIA2"], Some("AKIA1")), [("AKIA1".into(), Secret::Here)]);
        assert_eq!(judged("AKIA1@here", &["AKIA1"], None), [("AKIA1".into(), Secret::Lost)]);
        assert_eq!(judged("AKIA1@there", &["AKIA1"], None), [("AKIA1".into(), Secret::Elsewhere("there".into()))]);
        assert_eq!(judged("AKIA1@there", &["AKIA1"], Some("AKIA1")), [("AKIA1".into(), Secret::Here)], "it was copied");
        assert_eq!(judged("AKIA1@here", &["AKIA2"], None), [], "one that was removed, and one made by hand");
    }

    #[test]
    fn a_key_that_was_cut_off_is_known_from_those_before() {
        assert_eq!(judged("making AKIA1", &["AKIA1", "AKIA2"], None), [("AKIA2".into(), Secret::Unfinished(false))]);
        assert_eq!(judged("making", &["AKIA2"], Some("AKIA2")), [("AKIA2".into(), Secret::Unfinished(true))]);
        assert_eq!(judged("making AKIA1", &["AKIA1"], None), []);
    }
}
