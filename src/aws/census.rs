//! What there is of kup's clusters in an account and a region, service by service: independent of the kinds' own lists, so that it can
//! check them. It is how clusters are found by `get`, leftovers by `gc`, and how `down` proves that nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::Tag;
use serde::Serialize;

use super::Aws;
use super::permissions::{Need, Scope, implied, need};
use super::tags::{CLUSTER, KEPT, NAME};
use crate::error::Result;
use crate::graph::resource::listed;

mod list;

pub(super) use list::balancers;
pub use list::buckets;

/// How the key of kup's tag on what clusters share begins; the cluster's name follows.
const SHARED: &str = "kup.dev/shared/";

/// What a census calls. All of it is read only.
pub const NEEDS: &[Need] = &[
    need("ec2:DescribeVpcs", Scope::Any),
    need("ec2:DescribeSubnets", Scope::Any),
    need("ec2:DescribeSecurityGroups", Scope::Any),
    need("ec2:DescribeInternetGateways", Scope::Any),
    need("ec2:DescribeRouteTables", Scope::Any),
    need("ec2:DescribeDhcpOptions", Scope::Any),
    need("ec2:DescribeVpcEndpoints", Scope::Any),
    need("ec2:DescribeNetworkInterfaces", Scope::Any),
    need("ec2:DescribeAddresses", Scope::Any),
    need("ec2:DescribeKeyPairs", Scope::Any),
    need("ec2:DescribeVolumes", Scope::Any),
    need("ec2:DescribeInstances", Scope::Any),
    need("ec2:DescribeLaunchTemplates", Scope::Any),
    need("autoscaling:DescribeAutoScalingGroups", Scope::Any),
    need("elasticloadbalancing:DescribeLoadBalancers", Scope::Any),
    need("elasticloadbalancing:DescribeTargetGroups", Scope::Any),
    need("elasticloadbalancing:DescribeTags", Scope::Any),
    implied("s3:ListAllMyBuckets", "s3:ListBuckets", Scope::Any),
    need("iam:ListRoles", Scope::Any),
    need("iam:ListUsers", Scope::Any),
    need("iam:ListPolicies", Scope::Any),
    need("iam:ListInstanceProfiles", Scope::Any),
];

/// Who made a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// kup.
    Kup,
    /// The cluster itself: load balancers and volumes that its users asked for.
    Kubernetes,
}

/// What a thing is paid by, where it costs anything while nobody uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Billed {
    /// Nothing, or next to it.
    No,
    /// The hour, by instance type.
    Instance(String),
    /// GiB and month, by volume type.
    Volume {
        /// Its size in GiB.
        size: u32,
        /// `gp3`.
        of: String,
    },
    /// The hour.
    Address,
    /// The hour, by its type: `network`, `application`.
    LoadBalancer(String),
}

/// One thing of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Thing {
    /// Whose it is.
    pub cluster: String,
    /// What it is, as the kinds of resources are called.
    pub kind: &'static str,
    /// By which AWS knows it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Who made it.
    pub maker: Maker,
    /// What it costs by.
    pub billed: Billed,
    /// The VPC it is in, if it is in one and AWS says so.
    pub vpc: Option<String>,
    /// The name of a machine, volume or interface, for its Name tag may say something else.
    #[serde(skip)]
    pub tags: BTreeMap<String, String>,
}

impl Thing {
    /// `volume vol-0123 (data, 20 GiB)`
    pub fn line(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if !self.name.is_empty() && self.name != self.id {
            words.push(self.name.clone());
        }
        match &self.billed {
            Billed::Instance(of) | Billed::LoadBalancer(of) => words.push(of.clone()),
            Billed::Volume { size, of } => words.push(format!("{size} GiB {of}")),
            Billed::No | Billed::Address => {}
        }
        let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
        format!("{} {}{words}", self.kind, self.id)
    }
}

/// Which tags make a thing a cluster's: kup's own, or the one that Kubernetes' controllers set on what they make.
fn owner(tags: &BTreeMap<String, String>) -> Option<(String, Maker)> {
    if let Some(cluster) = tags.get(CLUSTER) {
        return Some((cluster.clone(), Maker::Kup));
    }
    let owned = tags.iter().find(|(key, value)| key.starts_with("kubernetes.io/cluster/") && *value == "owned")?;
    Some((owned.0.trim_start_matches("kubernetes.io/cluster/").to_owned(), Maker::Kubernetes))
}

fn thing(
    kind: &'static str,
    id: Option<String>,
    vpc: Option<String>,
    tags: BTreeMap<String, String>,
    billed: Billed,
) -> Option<Thing> {
    let ((cluster, maker), id) = (owner(&tags)?, id?);
    let name = tags.get("Name").or_else(|| tags.get(NAME)).cloned().unwrap_or_default();
    Some(Thing { cluster, kind, id, name, maker, billed, vpc, tags })
}

/// A thing of a cluster's own, or one for each of the clusters that share it.
fn own_and_shared(
    own: &'static str,
    shared: &'static str,
    id: String,
    vpc: Option<String>,
    tags: BTreeMap<String, String>,
) -> Vec<Thing> {
    let by = |cluster: &str| Thing { vpc: vpc.clone(), ..by_name(shared, id.clone(), String::new(), cluster.to_owned()) };
    let mut things: Vec<Thing> = tags.keys().filter_map(|key| key.strip_prefix(SHARED)).map(by).collect();
    if things.is_empty() {
        things.extend(thing(own, Some(id), vpc, tags, Billed::No));
    }
    things
}

fn map(tags: Option<Vec<Tag>>) -> BTreeMap<String, String> {
    tags.into_iter().flatten().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
}

/// Everything of one cluster, or of all of this region that kup made or whose machines made it.
///
/// # Errors
/// Any service that can't be asked: a census that is not whole proves nothing.
pub async fn take(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    listed("what there is of clusters", all(aws, only)).await
}

async fn all(aws: &Aws, only: Option<&str>) -> Result<Vec<Thing>> {
    // One key a question: some endpoints take several for things that have all of them.
    let keys = only.map_or_else(|| "kup.dev/*".to_owned(), kubernetes_key);
    let made = async {
        match only {
            Some(_) => Ok(Vec::new()),
            None => list::by_kubernetes(aws, &[kubernetes_key("*")]).await,
        }
    };
    let (ec2, made, groups, balancers, buckets, iam) = tokio::try_join!(
        list::ec2(aws, std::slice::from_ref(&keys)),
        made,
        list::groups(aws, only),
        balancers(aws),
        buckets(aws),
        list::iam(aws, only)
    )?;
    let mut things: Vec<Thing> = [ec2, made, groups, balancers, buckets, iam].into_iter().flatten().collect();
    match only {
        Some(only) => things.retain(|t| t.cluster == only),
        None => retain_kups(&mut things),
    }
    things.sort_by(|a, b| (&a.cluster, a.kind, &a.id).cmp(&(&b.cluster, b.kind, &b.id)));
    things.dedup_by(|a, b| (&a.cluster, a.kind, &a.id) == (&b.cluster, b.kind, &b.id));
    Ok(things)
}

/// Takes away what Kubernetes made of clusters of somebody else's (kops, EKS), which is none of kup's business. Of a cluster of kup's of
/// which nothing else is there, that is known of volumes that were kept.
fn retain_kups(things: &mut Vec<Thing>) {
    let kups: BTreeSet<String> = things.iter().filter(|t| t.maker == Maker::Kup).map(|t| t.cluster.clone()).collect();
    things.retain(|t| kups.contains(&t.cluster) || t.tags.contains_key(KEPT));
}

/// What Kubernetes made for the users of one cluster.
pub async fn by_kubernetes(aws: &Aws) -> Result<Vec<Thing>> {
    let keys = [kubernetes_key(&aws.cluster)];
    let both = async { tokio::try_join!(list::by_kubernetes(aws, &keys), balancers(aws)) };
    let (ec2, balancers) = listed("what Kubernetes made", both).await?;
    let all = ec2.into_iter().chain(balancers);
    Ok(all.filter(|thing| thing.maker == Maker::Kubernetes && thing.cluster == aws.cluster).collect())
}

/// The key of the tag that Kubernetes' controllers set on what they make.
fn kubernetes_key(cluster: &str) -> String {
    format!("kubernetes.io/cluster/{cluster}")
}

fn by_name(kind: &'static str, id: String, name: String, cluster: String) -> Thing {
    Thing { cluster, kind, id, name, maker: Maker::Kup, billed: Billed::No, vpc: None, tags: BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::map;

    #[test]
    fn a_thing_is_whose_its_tags_say() {
        let whose = |pairs: &[(&str, &str)]| owner(&map(pairs));
        assert_eq!(whose(&[("kup.dev/cluster", "a"), ("kubernetes.io/cluster/a", "owned")]), Some(("a".into(), Maker::Kup)));
        assert_eq!(whose(&[("kubernetes.io/cluster/a", "owned")]), Some(("a".into(), Maker::Kubernetes)));
        for near_miss in
            [&[("kubernetes.io/cluster/a", "shared")][..], &[("KubernetesCluster", "a")], &[("kup.dev/clusters", "a")], &[]]
        {
            assert_eq!(whose(near_miss), None, "{near_miss:?}");
        }
    }

    #[test]
    fn what_kubernetes_made_is_kups_by_what_kup_made_or_kept() {
        let volume = |id: &str, pairs: &[(&str, &str)]| thing("volume", Some(id.into()), None, map(pairs), Billed::No).unwrap();
        let mut things = vec![
            volume("of-kops", &[("kubernetes.io/cluster/k", "owned")]),
            volume("kept", &[("kubernetes.io/cluster/a", "owned"), ("kup.dev/kept", "a")]),
            volume("not-marked", &[("kubernetes.io/cluster/a", "owned")]),
            volume("of-b", &[("kubernetes.io/cluster/b", "owned")]),
            by_name("role", "r".into(), "r".into(), "b".into()),
        ];
        retain_kups(&mut things);
        assert_eq!(things.iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), ["kept", "of-b", "r"]);
    }

    #[test]
    fn what_clusters_share_is_a_thing_of_each_of_them() {
        let tags = map(&[("kup.dev/shared/a", "tagged"), ("kup.dev/shared/b", "tagged before"), ("Name", "office")]);
        let things = own_and_shared("vpc", "given vpc", "vpc-1".into(), Some("vpc-1".into()), tags);
        let told: Vec<_> = things.iter().map(|t| (t.cluster.as_str(), t.kind, t.id.as_str())).collect();
        assert_eq!(told, [("a", "given vpc", "vpc-1"), ("b", "given vpc", "vpc-1")]);
    }

    #[test]
    fn a_line_says_what_a_thing_is_and_how_large() {
        let volume = Billed::Volume { size: 20, of: "gp3".into() };
        let tags = map(&[("kubernetes.io/cluster/a", "owned"), ("Name", "data")]);
        let volume = thing("volume", Some("vol-1".into()), None, tags, volume).unwrap();
        assert_eq!(volume.line(), "volume vol-1 (data, 20 GiB gp3)");
        assert_eq!(by_name("role", "arn:x".into(), "arn:x".into(), "a".into()).line(), "role arn:x");
    }
}
