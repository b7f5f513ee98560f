//! Settings of the AWS provider: the config's block `aws`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cluster;

/// The group of minions there is if the config names none.
pub const DEFAULT_GROUP: &str = "minions";

/// Settings of the AWS provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Aws {
    /// Region, like us-west-2; left out, it is that of `zones`, else the one of AWS_REGION or of the profile.
    pub region: Option<String>,
    /// Profile of the AWS configuration to use; left out, it is the one of AWS_PROFILE, or the default one.
    pub profile: Option<String>,
    /// Availability zones, one to four, like [us-west-2a, us-west-2b]; none for the first that offers the machine types.
    #[schemars(extend("examples" = [["us-west-2a", "us-west-2b"]]))]
    pub zones: Vec<String>,
    /// The machines' network.
    pub vpc: Vpc,
    /// Who may reach the machines.
    pub access: Access,
    /// What the machines boot from: debian-13, ubuntu-24.04, al2023 (the newest of each), or an image's id, like ami-0123456789abcdef0.
    pub image: Image,
    /// How kup logs in to masters.
    pub ssh: Ssh,
    /// A private SSH key (OpenSSH or PEM, ed25519 or RSA), made if absent.
    pub ssh_key: PathBuf,
    /// What masters are like.
    pub masters: Machines,
    /// Each master's volume for etcd, in GiB; it outlives the machine.
    #[schemars(range(min = 1, max = 16384))]
    pub etcd_volume: u32,
    /// What the minions are like that `minions.count` counts, and those of groups that don't say otherwise.
    pub minions: Machines,
    /// Groups of minions, by name, instead of the one that `minions.count` counts.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "title": "group", "pattern": "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$" }))]
    pub groups: BTreeMap<String, Group>,
    /// The IAM user for running this cluster.
    pub operator: Operator,
}

/// The machines' network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vpc {
    /// Range of a VPC of the cluster's own; each zone takes a public /24 of it, and one beside it is kept for private machines.
    #[schemars(with = "String", extend("format" = "ipv4-range"))]
    pub cidr: Ipv4Net,
    /// An existing VPC to use instead, like vpc-0123456789abcdef0. It is checked and tagged, and otherwise never changed.
    pub id: Option<String>,
    /// Subnets of the existing VPC, one a zone and in their order, like [subnet-0123456789abcdef0].
    #[schemars(extend("examples" = [["subnet-0123456789abcdef0"]]))]
    pub subnets: Vec<String>,
    /// Domain that DHCP tells the machines; none for that of AWS.
    pub domain: Option<String>,
}

/// Who may reach the machines from outside of their network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Ranges that may reach SSH, like [198.51.100.7/32]; none for this machine's own address, as AWS sees it.
    #[schemars(extend("examples" = [["198.51.100.7/32"]]))]
    pub ssh: Vec<String>,
    /// Ranges that may reach the API; none for this machine's own address, as AWS sees it.
    #[schemars(extend("examples" = [["198.51.100.7/32"]]))]
    pub api: Vec<String>,
}

/// How kup logs in to masters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ssh {
    /// By which of their addresses kup and you reach them: public, or private over a VPN or a network that is connected to theirs.
    pub address: Route,
}

/// Which of its addresses a machine is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// The one outside of its network.
    Public,
    /// The one in its network.
    Private,
}

/// What machines are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machines {
    /// Instance type, like t3.medium.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Types of the same architecture to take instead where AWS has no machine of `type`, in this order, like [t3a.medium, m5.large].
    #[serde(default)]
    #[schemars(extend("examples" = [["t3a.medium", "m5.large"]]))]
    pub other_types: Vec<String>,
    /// Size of the root volume in GiB.
    #[schemars(range(min = 8, max = 16384))]
    pub root_volume: u32,
}

/// A group of minions that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Group {
    /// Instance types, like [t3.small, t3a.small]: AWS chooses among them; left out, they are those of `aws.minions`.
    #[schemars(extend("examples" = [["t3.small", "t3a.small"]]))]
    pub types: Vec<String>,
    /// How many machines.
    pub count: u16,
    /// The fewest that something else may scale it to; left out, it is count.
    pub min: Option<u16>,
    /// The most that something else may scale it to; left out, it is count.
    pub max: Option<u16>,
    /// Size of the root volume in GiB; left out, it is that of `aws.minions`.
    #[schemars(range(min = 8, max = 16384))]
    pub root_volume: u32,
    /// Labels of its nodes, as key=value.
    #[schemars(extend("examples" = [["tier=web"]]))]
    pub labels: Vec<String>,
    /// Taints of its nodes, as key=value:NoSchedule or key:NoExecute.
    #[schemars(extend("examples" = [["batch=yes:NoSchedule"]]))]
    pub taints: Vec<String>,
    /// The share of its machines, in percent, that are spot instances.
    #[schemars(range(min = 0, max = 100))]
    pub spot: u8,
}

impl Default for Group {
    fn default() -> Self {
        Group {
            types: vec!["t3.small".into()],
            count: 1,
            min: None,
            max: None,
            root_volume: 32,
            labels: Vec::new(),
            taints: Vec::new(),
            spot: 0,
        }
    }
}

/// A group as it is to be: the one of the config, or the one that `minions.count` counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedGroup {
    /// Its name, a DNS label.
    pub name: String,
    /// Instance types, at least one.
    pub types: Vec<String>,
    /// How many machines.
    pub count: u16,
    /// The fewest it may be scaled to.
    pub min: u16,
    /// The most it may be scaled to.
    pub max: u16,
    /// Size of the root volume in GiB.
    pub root_volume: u32,
    /// Labels of its nodes, as key=value.
    pub labels: Vec<String>,
    /// Taints of its nodes, as key=value:effect or key:effect.
    pub taints: Vec<String>,
    /// The share of its machines, in percent, that are spot instances.
    pub spot: u8,
}

impl NamedGroup {
    fn new(name: &str, group: &Group) -> NamedGroup {
        NamedGroup {
            name: name.to_owned(),
            types: group.types.clone(),
            count: group.count,
            min: group.min.unwrap_or(group.count),
            max: group.max.unwrap_or(group.count),
            root_volume: group.root_volume,
            labels: group.labels.clone(),
            taints: group.taints.clone(),
            spot: group.spot,
        }
    }
}

impl Cluster {
    /// The groups of minions, by name; none if there are no minions.
    pub fn groups(&self) -> Vec<NamedGroup> {
        let aws = &self.aws;
        if !aws.groups.is_empty() {
            return aws.groups.iter().map(|(name, group)| NamedGroup::new(name, group)).collect();
        }
        let count = self.minions.count;
        let group = Group { types: aws.minions.types(), count, root_volume: aws.minions.root_volume, ..Group::default() };
        (count > 0).then(|| NamedGroup::new(DEFAULT_GROUP, &group)).into_iter().collect()
    }
}

impl Machines {
    /// The types that such a machine may be of, in the order in which they are asked for.
    pub fn types(&self) -> Vec<String> {
        std::iter::once(&self.instance_type).chain(&self.other_types).cloned().collect()
    }
}

impl Aws {
    /// How many minions the groups have together, if there are groups.
    pub fn minion_count(&self) -> Option<u16> {
        let sum = || self.groups.values().fold(0, |sum: u16, group| sum.saturating_add(group.count));
        (!self.groups.is_empty()).then(sum)
    }
}

/// The region of a zone: `us-west-2` of `us-west-2a`. None if it is no zone's name.
pub fn region_of(zone: &str) -> Option<&str> {
    let region = zone.strip_suffix(|c: char| c.is_ascii_lowercase())?;
    is_region(region).then_some(region)
}

/// Whether a text is shaped like a region's name: `us-west-2`, `us-gov-east-1`.
pub fn is_region(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('-').collect();
    let number = parts.pop().unwrap_or_default();
    let is = |part: &str, allowed: fn(&u8) -> bool| !part.is_empty() && part.bytes().all(|b| allowed(&b));
    parts.len() >= 2
        && text.len() <= 32
        && is(number, u8::is_ascii_digit)
        && parts.iter().all(|part| is(part, u8::is_ascii_lowercase))
}

/// Whether a text is an id of AWS: the prefix (`vpc-`), then eight to seventeen hexadecimal digits.
pub fn is_id(text: &str, prefix: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix(prefix).is_some_and(|id| (8..=17).contains(&id.len()) && id.bytes().all(hex))
}

/// The IAM user for running this cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// Whether it gets an access key, which is stored as an AWS profile named kup-<cluster>.
    pub access_key: bool,
}

/// What the machines boot from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "aws-image", "pattern" = "^(debian-13|debian-12|ubuntu-24\\.04|al2023|ami-[0-9a-f]{8,17})$"))]
pub enum Image {
    /// Debian 13.
    Debian13,
    /// Debian 12.
    Debian12,
    /// Ubuntu 24.04 LTS.
    Ubuntu2404,
    /// Amazon Linux 2023.
    AmazonLinux2023,
    /// This one.
    Id(String),
}

impl TryFrom<String> for Image {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "debian-13" => Ok(Image::Debian13),
            "debian-12" => Ok(Image::Debian12),
            "ubuntu-24.04" => Ok(Image::Ubuntu2404),
            "al2023" => Ok(Image::AmazonLinux2023),
            _ => match text.strip_prefix("ami-") {
                Some(id)
                    if (8..=17).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
                {
                    Ok(Image::Id(text))
                }
                _ => Err(format!(
                    "`{text}` is neither debian-13, debian-12, ubuntu-24.04 or al2023, nor an id like ami-0123456789abcdef0"
                )),
            },
        }
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        match image {
            Image::Debian13 => "debian-13".into(),
            Image::Debian12 => "debian-12".into(),
            Image::Ubuntu2404 => "ubuntu-24.04".into(),
            Image::AmazonLinux2023 => "al2023".into(),
            Image::Id(id) => id,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::cluster::defaults;

    #[test]
    fn groups_are_those_of_the_config_or_the_one_that_is_counted() {
        let mut cluster = defaults::cluster().unwrap();
        let [only] = &cluster.groups()[..] else { panic!("one group") };
        assert_eq!((only.name.as_str(), only.count, only.min, only.max), ("minions", 4, 4, 4));
        assert_eq!((&only.types[..], only.root_volume), (&["t3.small".to_owned()][..], 32));
        assert_eq!(cluster.aws.minion_count(), None);
        cluster.aws.minions.other_types = vec!["t3a.small".into()];
        assert_eq!(cluster.groups()[0].types, ["t3.small", "t3a.small"]);
        cluster.minions.count = 0;
        assert_eq!(cluster.groups(), []);
        let group = Group { count: 3, max: Some(9), ..Group::default() };
        cluster.aws.groups = [("b".to_owned(), group.clone()), ("a".to_owned(), Group { min: Some(1), ..group })].into();
        let bounds: Vec<_> = cluster.groups().into_iter().map(|g| (g.name, g.count, g.min, g.max)).collect();
        assert_eq!(bounds, [("a".to_owned(), 3, 1, 9), ("b".to_owned(), 3, 3, 9)]);
        assert_eq!(cluster.aws.minion_count(), Some(6));
        cluster.aws.groups.values_mut().for_each(|group| group.count = u16::MAX);
        assert_eq!(cluster.aws.minion_count(), Some(u16::MAX));
    }

    #[test]
    fn a_zone_names_its_region() {
        for (zone, region) in [
            ("us-west-2a", Some("us-west-2")),
            ("us-gov-east-1b", Some("us-gov-east-1")),
            ("ap-southeast-7c", Some("ap-southeast-7")),
            ("us-west-2", None),
            ("us-west-a", None),
            ("us-west-2-lax-1a", None),
            ("us-west-2aa", None),
            ("us-west-2A", None),
            ("a", None),
            ("", None),
            ("-2a", None),
            ("ü-west-2a", None),
        ] {
            assert_eq!(region_of(zone), region, "{zone}");
        }
    }

    #[test]
    fn images_are_words_or_ids() {
        for good in ["debian-13", "debian-12", "ubuntu-24.04", "al2023", "ami-01234567", "ami-0123456789abcdef0"] {
            assert_eq!(String::from(Image::try_from(good.to_owned()).unwrap()), good);
        }
        for bad in ["", "debian", "ami-", "ami-0123456", "ami-0123456789ABCDEF0", "ami-0123456789abcdef01"] {
            assert!(Image::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
