//! The public half of the SSH key, as AWS gives it to machines. The private half is made and removed together with it.

use aws_sdk_ec2::types::ResourceType;
use std::path::PathBuf;

use aws_smithy_types::Blob;

use super::AwsResource;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Fault, unless_gone};
use crate::aws::once::taken;
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::{ssh_key, tags};
use crate::error::{Error, Result};
use crate::graph::{Change, Cx, Found, Resource};

/// The tag with the key's fingerprint, since AWS's own is of another kind for each kind of key.
const FINGERPRINT: &str = "kup.dev/fingerprint";

/// A key pair.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// Its name among key pairs.
    pub name: String,
    /// The public half, in one line.
    pub public: String,
    /// Where the private half is, or is put if it was not there yet.
    pub private: PathBuf,
}

/// A key pair as it was found.
#[derive(Debug, Clone)]
pub struct KeyPairFound {
    name: String,
    id: String,
    key_name: String,
    /// Of the public half: `SHA256:…`.
    pub fingerprint: String,
}

impl KeyPairFound {
    /// By which machines are told to use it.
    pub fn key_name(&self) -> &str {
        &self.key_name
    }
}

impl Found for KeyPairFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for KeyPair {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeKeyPairs", Scope::Any),
        need("ec2:ImportKeyPair", Scope::Creates),
        implied("ec2:CreateTags", "ec2:ImportKeyPair", Scope::Creates),
        need("ec2:DeleteKeyPair", Scope::Tagged),
    ];
}

impl Resource for KeyPair {
    type Cloud = Aws;
    type Found = KeyPairFound;
    const KIND: &'static str = "key pair";

    fn name(&self) -> &str {
        &self.name
    }

    fn detail(&self) -> String {
        self.private.display().to_string()
    }

    fn diff(&self, found: &KeyPairFound, _: &Cx<'_, Aws>) -> Vec<Change> {
        let wanted = match ssh_key::is_promised(&self.private) {
            true => {
                format!("{} is not on this machine: bring it here, or name another file in aws.sshKey", self.private.display())
            }
            false => ssh_key::fingerprint(&self.public).unwrap_or_default(),
        };
        // Machines know the key that they were made with.
        Change::if_differs("aws.sshKey", &found.fingerprint, &wanted, Change::refuse).into_iter().collect()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<KeyPairFound> {
        let aws = cx.cloud;
        // Before AWS has the public half: nobody could use it without the other one.
        let public = ssh_key::keep(&self.private, &ssh_key::fingerprint(&self.public)?, &ssh_key::user(aws))?;
        let fingerprint = ssh_key::fingerprint(&public)?;
        let key_name = aws.unique(&self.name, 255);
        let what = format!("the key pair {key_name} could not be made");
        let mut tags = tags::tags(aws, &self.name, None);
        tags.push((FINGERPRINT.to_owned(), fingerprint.clone()));
        let call = aws.ec2.import_key_pair().key_name(&key_name).public_key_material(Blob::new(public.as_bytes()));
        let call = call.tag_specifications(tags::ec2::specification_of(ResourceType::KeyPair, tags));
        match call.send().await.failure() {
            Ok(made) => {
                Ok(KeyPairFound { name: self.name.clone(), id: made.key_pair_id.unwrap_or_default(), key_name, fingerprint })
            }
            // A call whose answer was lost made it, unless it is somebody else's.
            Err(failure) if failure.fault == Fault::Exists => {
                let look = || async {
                    let all = Self::list(aws).await?;
                    Ok(all.into_iter().find(|found| found.name == self.name && found.fingerprint == fingerprint))
                };
                taken(look).await?.ok_or_else(|| {
                    Error::new(what)
                        .why("there is one of that name which is not tagged as this cluster's")
                        .hint(format!("remove it, if nothing uses it: `aws ec2 delete-key-pair --key-name {key_name}`"))
                })
            }
            Err(failure) => Err(failure.error(what)),
        }
    }

    async fn update(&self, found: &KeyPairFound, _: &[Change], _: &Cx<'_, Aws>) -> Result<KeyPairFound> {
        Ok(found.clone())
    }

    async fn list(aws: &Aws) -> Result<Vec<KeyPairFound>> {
        let answer =
            aws.ec2.describe_key_pairs().filters(tags::ec2::ours(aws)).send().await.explain("key pairs could not be listed")?;
        let found = |pair: aws_sdk_ec2::types::KeyPairInfo| {
            let id = pair.key_pair_id.clone().unwrap_or_default();
            KeyPairFound {
                name: tags::ec2::name(pair.tags(), &id),
                fingerprint: tags::ec2::value(pair.tags(), FINGERPRINT).unwrap_or_default().to_owned(),
                key_name: pair.key_name.unwrap_or_default(),
                id,
            }
        };
        Ok(answer.key_pairs.unwrap_or_default().into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &KeyPairFound) -> Result<()> {
        let what = format!("the key pair {} could not be removed", found.key_name);
        unless_gone(aws.ec2.delete_key_pair().key_name(&found.key_name).send().await.failure())
            .map_err(|failure| failure.error(what))?;
        ssh_key::release(&ssh_key::user(aws))
    }
}
