//! Settings of the AWS provider: the config's block `aws`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the AWS provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Aws {
    /// Region, like us-west-2; left out, it is the one of AWS_REGION or of the profile.
    pub region: Option<String>,
    /// Profile of the AWS configuration to use; left out, it is the one of AWS_PROFILE, or the default one.
    pub profile: Option<String>,
    /// Availability zones, one to four, like [us-west-2a, us-west-2b]; none for the first that offers the machine types.
    pub zones: Vec<String>,
    /// The machines' network.
    pub vpc: Vpc,
    /// Who may reach the machines.
    pub access: Access,
    /// What the machines boot from: debian-13, ubuntu-24.04, al2023 (the newest of each), or an image's id, like ami-0123456789abcdef0.
    pub image: Image,
    /// A private SSH key (OpenSSH or PEM, ed25519 or RSA), made if absent.
    pub ssh_key: PathBuf,
    /// What masters are like.
    pub masters: Machines,
    /// Each master's volume for etcd, in GiB; it outlives the machine.
    #[schemars(range(min = 1, max = 16384))]
    pub etcd_volume: u32,
    /// What the minions are like that `minions.count` counts.
    pub minions: Machines,
    /// Groups of minions, by name, instead of the one that `minions.count` and `aws.minions` describe.
    #[serde(default)]
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
    /// Subnets of the existing VPC, one a zone, like [subnet-0123456789abcdef0].
    pub subnets: Vec<String>,
    /// Domain that DHCP tells the machines; none for that of AWS.
    pub domain: Option<String>,
}

/// Who may reach the machines from outside of their network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Ranges that may reach SSH, like [198.51.100.7/32]; none for this machine's own address, as AWS sees it.
    pub ssh: Vec<String>,
    /// Ranges that may reach the API; none for this machine's own address, as AWS sees it.
    pub api: Vec<String>,
}

/// What machines are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machines {
    /// Instance type, like t3.medium.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Size of the root volume in GiB.
    #[schemars(range(min = 8, max = 16384))]
    pub root_volume: u32,
}

/// A group of minions that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Group {
    /// Instance types, like [t3.small, t3a.small]: the first that can be had, by AWS's choice among them.
    pub types: Vec<String>,
    /// How many machines.
    pub count: u16,
    /// The fewest that something else may scale it to; left out, it is count.
    pub min: Option<u16>,
    /// The most that something else may scale it to; left out, it is count.
    pub max: Option<u16>,
    /// Size of the root volume in GiB.
    #[schemars(range(min = 8, max = 16384))]
    pub root_volume: u32,
    /// Labels of its nodes, as key=value.
    pub labels: Vec<String>,
    /// Taints of its nodes, as key=value:NoSchedule or key:NoExecute.
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
#[schemars(with = "String", extend("pattern" = "^(debian-13|debian-12|ubuntu-24\\.04|al2023|ami-[0-9a-f]{8,17})$"))]
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
                Some(id) if (8..=17).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) => {
                    Ok(Image::Id(text))
                }
                _ => Err(format!("`{text}` is neither debian-13, debian-12, ubuntu-24.04 or al2023, nor an id like ami-0123456789abcdef0")),
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
