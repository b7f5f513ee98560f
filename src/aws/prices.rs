//! What a cluster costs on AWS: its billed parts, and the table of prices, each with its source and date. What no source states is unknown.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::census::Billed;
use super::layout::Surroundings;
use super::resource::auto_scaling_group::AutoScalingGroup;
use super::resource::elastic_ip::ElasticIp;
use super::resource::instance::Instance;
use super::resource::load_balancer::LoadBalancer;
use super::resource::volume::Volume;
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::graph::{Address, Ref};

/// Hours of a month, as AWS reckons.
pub const MONTH: f64 = 730.0;

const TABLE: &str = include_str!("../../config/prices.yaml");

/// Something that AWS has a price for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// An hour of a machine of this type, on demand.
    Instance(String),
    /// An hour of a spot machine of one of these types: its price is no list's.
    Spot(String),
    /// A month of a GiB of a gp3 volume.
    Gp3,
    /// An hour of a public IPv4 address.
    PublicIpv4,
    /// An hour of a network load balancer.
    NetworkLoadBalancer,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Instance(kind) => f.write_str(kind),
            Item::Spot(types) => write!(f, "{types} as a spot instance"),
            Item::Gp3 => f.write_str("gp3 volumes"),
            Item::PublicIpv4 => f.write_str("public IPv4 addresses"),
            Item::NetworkLoadBalancer => f.write_str("network load balancers"),
        }
    }
}

/// A price, in US dollars for the item's own unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// The price.
    pub usd: f64,
    /// Of which day it is.
    pub date: String,
    /// Where it stands.
    pub source: String,
}

/// The prices of one region.
#[derive(Debug, Clone, Default)]
pub struct Prices(BTreeMap<Item, Price>);

/// What one source says of one region.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Block {
    region: String,
    source: String,
    date: String,
    #[serde(default)]
    instances: BTreeMap<String, f64>,
    gp3: Option<f64>,
    public_ipv4: Option<f64>,
    network_load_balancer: Option<f64>,
}

impl Prices {
    /// Those that are compiled in; none for a region that the table does not name.
    pub fn in_region(region: &str) -> Result<Prices> {
        Prices::read(TABLE, region)
    }

    /// From a table in the form of `config/prices.yaml`.
    ///
    /// # Errors
    /// It is not one, has a price that is none, a row without a source or date, or two prices for one thing.
    pub fn read(table: &str, region: &str) -> Result<Prices> {
        let blocks: Vec<Block> = serde_yaml::from_str(table).context("the table of prices is not one")?;
        let mut prices = BTreeMap::new();
        for block in blocks.into_iter().filter(|block| block.region == region) {
            let bad = |what: &str| Error::new(format!("the table of prices has {what} for {region}")).why(&block.source);
            if !block.source.starts_with("https://") || !is_date(&block.date) {
                return Err(bad("a row without a source or date"));
            }
            let named = block.instances.iter().map(|(name, usd)| (Item::Instance(name.clone()), *usd));
            let rest = [
                (Item::Gp3, block.gp3),
                (Item::PublicIpv4, block.public_ipv4),
                (Item::NetworkLoadBalancer, block.network_load_balancer),
            ];
            for (item, usd) in named.chain(rest.into_iter().filter_map(|(item, usd)| Some((item, usd?)))) {
                if !(usd.is_finite() && usd > 0.0) {
                    return Err(bad(&format!("a price that is none, {usd} of {item},")));
                }
                let price = Price { usd, date: block.date.clone(), source: block.source.clone() };
                if prices.insert(item.clone(), price).is_some() {
                    return Err(bad(&format!("two prices of {item}")));
                }
            }
        }
        Ok(Prices(prices))
    }

    /// A thing's price.
    pub fn of(&self, item: &Item) -> Option<&Price> {
        self.0.get(item)
    }
}

/// `2026-11-25`.
fn is_date(text: &str) -> bool {
    let shape = |(n, b): (usize, u8)| if n == 4 || n == 7 { b == b'-' } else { b.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(shape)
}

/// What a thing has that is billed.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// What.
    pub item: Item,
    /// How many of it at a time: machines, GiB, addresses.
    pub quantity: f64,
}

/// The billed things of a cluster, by their addresses. What is paid by use (traffic, requests, what is in the bucket) is not among them.
pub fn usage(cluster: &Cluster, around: &Surroundings) -> BTreeMap<Address, Vec<Usage>> {
    let of = |item: Item, quantity: u32| Usage { item, quantity: f64::from(quantity) };
    let aws = &cluster.aws;
    let mut usage = BTreeMap::new();
    for n in 1..=cluster.masters.count {
        let name = format!("master-{n}");
        let machine = vec![of(Item::Instance(aws.masters.instance_type.clone()), 1), of(Item::Gp3, aws.masters.root_volume)];
        usage.insert(Ref::<Instance>::to(&name).address(), machine);
        usage.insert(Ref::<Volume>::to(format!("etcd-{n}")).address(), vec![of(Item::Gp3, aws.etcd_volume)]);
        usage.insert(Ref::<ElasticIp>::to(&name).address(), vec![of(Item::PublicIpv4, 1)]);
    }
    if cluster.masters.count > 1 {
        // It has an address in each zone.
        let zones = u32::try_from(around.zones.len()).unwrap_or(u32::MAX);
        let balancer = vec![of(Item::NetworkLoadBalancer, 1), of(Item::PublicIpv4, zones)];
        usage.insert(Ref::<LoadBalancer>::to("api").address(), balancer);
    }
    for group in cluster.groups() {
        let count = u32::from(group.count);
        // Of a machine that can't be divided, AWS takes the part on demand.
        let on_demand = (count * (100 - u32::from(group.spot.min(100)))).div_ceil(100);
        let kind = group.types.first().cloned().unwrap_or_default();
        let parts = [
            of(Item::Instance(kind), on_demand),
            of(Item::Spot(group.types.join(" or ")), count - on_demand),
            of(Item::Gp3, count * group.root_volume),
            of(Item::PublicIpv4, count),
        ];
        let parts = parts.into_iter().filter(|usage| usage.quantity > 0.0).collect();
        usage.insert(Ref::<AutoScalingGroup>::to(&group.name).address(), parts);
    }
    usage
}

/// What some of it costs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cost {
    /// US dollars an hour, for all that has a price.
    pub per_hour: f64,
    /// What has none, in words.
    pub unknown: Vec<String>,
    /// The day of the oldest of the prices used.
    pub as_of: Option<String>,
}

impl Cost {
    /// Of these.
    pub fn of(usage: &[Usage], prices: &Prices) -> Cost {
        let mut cost = Cost::default();
        for Usage { item, quantity } in usage {
            let Some(price) = prices.of(item) else {
                cost.unknown.push(item.to_string());
                continue;
            };
            let hours = if *item == Item::Gp3 { MONTH } else { 1.0 };
            cost.add(&Cost { per_hour: price.usd * quantity / hours, unknown: Vec::new(), as_of: Some(price.date.clone()) });
        }
        cost
    }

    /// Takes this in too.
    pub fn add(&mut self, other: &Cost) {
        self.per_hour += other.per_hour;
        for unknown in &other.unknown {
            if !self.unknown.contains(unknown) {
                self.unknown.push(unknown.clone());
            }
        }
        self.as_of = match (self.as_of.take(), other.as_of.clone()) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }

    /// US dollars a month.
    pub fn per_month(&self) -> f64 {
        self.per_hour * MONTH
    }

    /// In words: `about $0.123 an hour, $89.79 a month`; `at least` if something has no price, and unknown if nothing has one.
    pub fn words(&self) -> String {
        if self.per_hour <= 0.0 {
            return if self.unknown.is_empty() {
                "nothing that is paid by the hour".into()
            } else {
                "at an unknown price".into()
            };
        }
        let about = if self.unknown.is_empty() { "about" } else { "at least" };
        format!("{about} ${:.3} an hour, ${:.2} a month", self.per_hour, self.per_month())
    }
}

/// US dollars an hour for one thing that was found, with no config at hand: none if it is not paid by the hour, and none within if its
/// price is not known.
pub fn of_thing(region: &str, billed: &Billed) -> Option<Option<f64>> {
    let usage = match billed {
        Billed::No => return None,
        Billed::Instance(of) => Usage { item: Item::Instance(of.clone()), quantity: 1.0 },
        Billed::Volume { size, of } if of == "gp3" => Usage { item: Item::Gp3, quantity: f64::from(*size) },
        Billed::LoadBalancer(of) if of == "network" => Usage { item: Item::NetworkLoadBalancer, quantity: 1.0 },
        Billed::Address => Usage { item: Item::PublicIpv4, quantity: 1.0 },
        // kup makes no others, and its table has no prices for them.
        Billed::Volume { .. } | Billed::LoadBalancer(_) => return Some(None),
    };
    // A table that can't be read is one without prices here: this is said beside something worse.
    let cost = Cost::of(&[usage], &Prices::in_region(region).unwrap_or_default());
    Some(cost.unknown.is_empty().then_some(cost.per_hour))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const SMALL: &str = "\
- {region: r, source: https://a, date: 2026-01-02, instances: {t3.small: 0.02}, gp3: 0.073}
- {region: r, source: https://b, date: 2025-03-04, publicIpv4: 0.005}
- {region: other, source: https://c, date: 2024-03-04, publicIpv4: 1, networkLoadBalancer: 2}
";

    fn usage(item: Item, quantity: f64) -> Usage {
        Usage { item, quantity }
    }

    #[test]
    fn the_table_that_is_compiled_in_is_sound_and_knows_the_default_cluster() {
        let blocks: Vec<Block> = serde_yaml::from_str(TABLE).unwrap();
        assert!(!blocks.is_empty());
        for block in &blocks {
            Prices::in_region(&block.region).unwrap();
        }
        let prices = Prices::in_region("us-west-2").unwrap();
        for item in [Item::Instance("t3.medium".into()), Item::Instance("t3.small".into()), Item::Gp3, Item::PublicIpv4] {
            assert!(prices.of(&item).is_some(), "{item}");
        }
    }

    #[test]
    fn costs_are_sums_with_the_oldest_date() {
        let prices = Prices::read(SMALL, "r").unwrap();
        let cost = Cost::of(
            &[usage(Item::Instance("t3.small".into()), 3.0), usage(Item::Gp3, 100.0), usage(Item::PublicIpv4, 3.0)],
            &prices,
        );
        // 3 × 0.02 + 100 × 0.073 ÷ 730 + 3 × 0.005
        assert!((cost.per_hour - 0.085).abs() < 1e-12, "{cost:?}");
        assert_eq!((cost.unknown.len(), cost.as_of.as_deref()), (0, Some("2025-03-04")));
        assert_eq!(cost.words(), "about $0.085 an hour, $62.05 a month");
    }

    #[test]
    fn what_has_no_price_is_named_and_makes_the_sum_a_least_one() {
        let prices = Prices::read(SMALL, "r").unwrap();
        let parts = [
            usage(Item::NetworkLoadBalancer, 1.0),
            usage(Item::PublicIpv4, 2.0),
            usage(Item::Spot("m5.large or m5a.large".into()), 1.0),
        ];
        let mut cost = Cost::of(&parts, &prices);
        cost.add(&cost.clone());
        assert_eq!(cost.unknown, ["network load balancers", "m5.large or m5a.large as a spot instance"]);
        assert_eq!(cost.words(), "at least $0.020 an hour, $14.60 a month");
        assert_eq!(Cost::of(&parts[..1], &prices).words(), "at an unknown price");
        assert!(Prices::read(SMALL, "nowhere").unwrap().of(&Item::Gp3).is_none());
    }

    #[test]
    fn a_found_thing_has_a_price_an_unknown_one_or_none() {
        let of = |billed: Billed| of_thing("us-west-2", &billed);
        assert_eq!(of(Billed::No), None);
        assert_eq!(of(Billed::Instance("t3.medium".into())), Some(Some(0.0416)));
        assert_eq!(of(Billed::Instance("x9.huge".into())), Some(None));
        assert_eq!(of(Billed::Address), Some(Some(0.005)));
        let disk = of(Billed::Volume { size: 73, of: "gp3".into() }).unwrap().unwrap();
        assert!((disk - 0.008).abs() < 1e-12, "{disk}");
        assert_eq!(of(Billed::Volume { size: 73, of: "io2".into() }), Some(None));
        assert_eq!(of_thing("nowhere", &Billed::Address), Some(None));
    }

    #[test]
    fn tables_that_are_none_are_refused() {
        for (table, part) in [
            ("{", "is not one"),
            ("- {region: r, source: https://a, date: 2026-01-02, gp2: 1}", "is not one"),
            ("- {region: r, source: '', date: 2026-01-02, gp3: 1}", "without a source or date"),
            ("- {region: r, source: https://a, date: soon, gp3: 1}", "without a source or date"),
            ("- {region: r, source: https://a, date: 2026-01-02, gp3: 0}", "a price that is none"),
            ("- {region: r, source: https://a, date: 2026-01-02, gp3: .nan}", "a price that is none"),
            ("- &a {region: r, source: https://a, date: 2026-01-02, gp3: 1}\n- *a", "two prices of gp3 volumes"),
        ] {
            let error = Prices::read(table, "r").unwrap_err();
            assert!(error.what.contains(part), "`{part}` is not in: {error}");
        }
    }
}
