//! The config of a cluster's last `up`, in the cluster's bucket: `cluster.yaml`, as a user would write it, without passwords. Beside it, as
//! the object's metadata, what was chosen for it: so that the next `up` chooses the same.

use std::collections::BTreeSet;

use aws_sdk_s3::primitives::ByteStream;

use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Fault};
use crate::aws::layout::{Image, Surroundings};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::cluster::aws::{is_id, region_of};
use crate::cluster::{Cluster, defaults};
use crate::error::{Context as _, Result};

/// What keeping it calls.
pub const NEEDS: &[Need] = &[
    need("s3:GetObject", Scope::Bucket),
    // Without it S3 says "denied" of an object that is not there.
    implied("s3:ListBucket", "s3:GetObject", Scope::Bucket),
    need("s3:PutObject", Scope::Bucket),
];

/// The object's name.
const KEY: &str = "cluster.yaml";
/// The metadata with the image's facts, as JSON.
const IMAGE: &str = "kup-image";
/// The metadata with the zones, in order.
const ZONES: &str = "kup-zones";

/// The metadata with the names of all kinds that were ever wanted: nothing else can be there.
const KINDS: &str = "kup-kinds";

/// What was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The config.
    pub cluster: Cluster,
    /// The image that was chosen, if that is known.
    pub image: Option<Image>,
    /// The zones that were chosen.
    pub zones: Vec<String>,
    /// The kinds that were ever wanted; none if that is not known.
    pub kinds: BTreeSet<String>,
}

/// Reads it. None if there is no such bucket or object.
pub async fn load(aws: &Aws) -> Result<Option<Kept>> {
    let what = || format!("the config of cluster {} could not be read from its bucket {}", aws.cluster, aws.bucket());
    let call = aws.s3.get_object().bucket(aws.bucket()).key(KEY).expected_bucket_owner(&aws.identity.account);
    let object = match call.send().await.failure() {
        Ok(object) => object,
        Err(failure) if failure.fault == Fault::Gone => return Ok(None),
        Err(failure) => return Err(failure.error(what())),
    };
    let metadata = object.metadata.clone().unwrap_or_default();
    let bytes = object.body.collect().await.with_context(what)?.to_vec();
    let cluster = defaults::kept(&String::from_utf8(bytes).with_context(what)?).with_context(what)?;
    let words = |key: &str| {
        let text = metadata.get(key).map(String::as_str).unwrap_or_default();
        text.split(',').filter(|word| !word.is_empty()).map(str::to_owned)
    };
    Ok(Some(Kept {
        cluster,
        // What is missing or from another kup is chosen anew, and so is what can't be.
        image: metadata.get(IMAGE).and_then(|text| serde_json::from_str(text).ok()).filter(shaped),
        zones: words(ZONES).filter(|zone| region_of(zone).is_some()).collect(),
        kinds: words(KINDS).collect(),
    }))
}

/// Whether an image is shaped as AWS and distributions shape them: its user becomes a word of a command.
fn shaped(image: &Image) -> bool {
    let word = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    let user = image.user.starts_with(|c: char| c.is_ascii_alphabetic()) && word(&image.user, b"-_");
    user && is_id(&image.id, "ami-") && word(&image.architecture, b"_") && word(&image.root_device, b"/-_")
}

/// Writes it. With `new` only if there is none yet: then nobody has made anything of this cluster, since everybody keeps this first.
/// Says whether it was written.
pub async fn save(aws: &Aws, cluster: &Cluster, around: &Surroundings, kinds: &BTreeSet<String>, new: bool) -> Result<bool> {
    let kept =
        Kept { cluster: cluster.clone(), image: Some(around.image.clone()), zones: around.zones.clone(), kinds: kinds.clone() };
    write(aws, &kept, new).await
}

/// Writes what was read and changed, by somebody who holds the cluster's lock.
pub async fn change(aws: &Aws, kept: &Kept) -> Result<()> {
    write(aws, kept, false).await.map(drop)
}

async fn write(aws: &Aws, kept: &Kept, new: bool) -> Result<bool> {
    let what = || format!("the config of cluster {} could not be kept in its bucket {}", aws.cluster, aws.bucket());
    let text = serde_yaml::to_string(&kept.cluster).with_context(what)?;
    let image = kept.image.as_ref().map(serde_json::to_string).transpose().with_context(what)?;
    let mut call = aws
        .s3
        .put_object()
        .bucket(aws.bucket())
        .key(KEY)
        .expected_bucket_owner(&aws.identity.account)
        .content_type("application/yaml")
        .metadata(ZONES, kept.zones.join(","))
        .metadata(KINDS, kept.kinds.iter().map(String::as_str).collect::<Vec<_>>().join(","))
        .body(ByteStream::from(text.into_bytes()));
    if let Some(image) = image {
        call = call.metadata(IMAGE, image);
    }
    if new {
        call = call.if_none_match("*");
    }
    match call.send().await.failure() {
        Ok(_) => Ok(true),
        Err(failure) if new && failure.fault == Fault::Exists => Ok(false),
        Err(failure) => Err(failure.error(what())),
    }
}
