//! Owner tags: how everything of a cluster is found again, with no file at hand. Set in the creating call.

use super::Aws;

/// The tag with the cluster's name.
pub const CLUSTER: &str = "kup.dev/cluster";
/// The tag with a thing's name among its kind: how a wanted thing and a found one are the same.
pub const NAME: &str = "kup.dev/name";
/// The tag with what a thing is for: `master`, `minion`, `etcd`.
pub const ROLE: &str = "kup.dev/role";
/// The tag of a minion with the name of its group.
pub const GROUP: &str = "kup.dev/group";
/// The tag of a master with the public half of the SSH host key that it boots with: who has credentials knows it before logging in.
pub const HOST_KEY: &str = "kup.dev/ssh-host-key";
/// The tag of a master with the public half of the SSH host key that it made for itself at kup's first login.
pub const OWN_HOST_KEY: &str = "kup.dev/ssh-host-key-own";
/// The tag of a machine with what `aws.image` said, and the processor that was for.
pub const IMAGE: &str = "kup.dev/image";
/// The tag of a machine with the size of its root volume, in GiB.
pub const ROOT_VOLUME: &str = "kup.dev/root-volume";
/// The tag of a group with the count of the config that it was made or changed with last: something else may scale it since.
pub const COUNT: &str = "kup.dev/count";

/// The tag of a volume that a pod claimed and `down` kept, with the cluster's name: by it `gc` tells it from those of other tools' clusters,
/// which Kubernetes' tag alone does not.
pub const KEPT: &str = "kup.dev/kept";

/// A thing's tags: whose it is (for kup, for Kubernetes' cloud controller, and for kube-up's users), what it is called, what it is for.
pub fn tags(aws: &Aws, name: &str, role: Option<&str>) -> Vec<(String, String)> {
    let cluster = aws.cluster.as_str();
    let mut tags = vec![
        ("Name".to_owned(), format!("{cluster}-{name}")),
        ("KubernetesCluster".to_owned(), cluster.to_owned()),
        (format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned()),
        (CLUSTER.to_owned(), cluster.to_owned()),
        (NAME.to_owned(), name.to_owned()),
    ];
    tags.extend(role.map(|role| (ROLE.to_owned(), role.to_owned())));
    tags
}

/// As EC2 takes them.
pub mod ec2 {
    use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

    use super::{Aws, CLUSTER, NAME};

    /// For the creating call of a thing of this type.
    pub fn specification(aws: &Aws, kind: ResourceType, name: &str, role: Option<&str>) -> TagSpecification {
        specification_of(kind, super::tags(aws, name, role))
    }

    /// As [`specification`], with more tags than every thing has.
    pub fn specification_of(kind: ResourceType, tags: Vec<(String, String)>) -> TagSpecification {
        let tag = |(key, value): (String, String)| Tag::builder().key(key).value(value).build();
        TagSpecification::builder().resource_type(kind).set_tags(Some(tags.into_iter().map(tag).collect())).build()
    }

    /// Finds what is the cluster's.
    pub fn ours(aws: &Aws) -> Filter {
        Filter::builder().name(format!("tag:{CLUSTER}")).values(&aws.cluster).build()
    }

    /// Filters for the cluster's thing of this name.
    pub fn named(aws: &Aws, name: &str) -> Vec<Filter> {
        vec![ours(aws), by(&format!("tag:{NAME}"), name)]
    }

    /// A filter by one value.
    pub fn by(name: &str, value: &str) -> Filter {
        Filter::builder().name(name).values(value).build()
    }

    /// A filter by several values.
    pub fn among(name: &str, values: &[String]) -> Filter {
        Filter::builder().name(name).set_values(Some(values.to_vec())).build()
    }

    /// A tag's value.
    pub fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
        tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value)
    }

    /// The name of a thing among its kind; its id stands in for one whose tag somebody took away.
    pub fn name(tags: &[Tag], id: &str) -> String {
        value(tags, NAME).unwrap_or(id).to_owned()
    }
}
