//! What of the world decides about a cluster's layout: as it stands already, else as it is chosen now.

use std::collections::BTreeMap;

use super::kept::Kept;
use crate::aws::layout::{self, Surroundings};
use crate::aws::preflight::{self, TypeFacts};
use crate::aws::resource::given::{self, GivenSubnet};
use crate::aws::resource::subnet::Subnet;
use crate::aws::{Aws, image};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::graph::{Entry, Resource as _};

/// What was learned beside, so that no check asks for it again.
#[derive(Debug, Default)]
pub struct Learned {
    /// The types' facts, if they were needed.
    pub types: Option<BTreeMap<String, TypeFacts>>,
    /// Whether the zones were checked against what they offer.
    pub offers: bool,
    /// Whether a given VPC was verified.
    pub given: bool,
}

/// The zones in which subnets stand, in the order in which they were made.
fn standing_zones(found: &[Entry], kept: Option<&Kept>) -> Result<Vec<String>> {
    let mut zones = Vec::new();
    for entry in found.iter().filter(|entry| entry.address.kind == Subnet::KIND) {
        zones.push(entry.value::<Subnet>()?.zone.clone());
    }
    zones.sort();
    zones.dedup();
    // Zones are told in order in what was kept: the subnets' ranges follow it.
    if let Some(kept) = kept.filter(|kept| !kept.zones.is_empty() && zones.iter().all(|zone| kept.zones.contains(zone))) {
        return Ok(kept.zones.clone());
    }
    Ok(zones)
}

/// The zones of given subnets, if all of them carry the cluster's tag already.
fn given_zones(cluster: &Cluster, found: &[Entry]) -> Result<Option<Vec<String>>> {
    let mut zones = Vec::new();
    for id in &cluster.aws.vpc.subnets {
        match found.iter().find(|entry| entry.address.kind == GivenSubnet::KIND && entry.id == *id) {
            Some(entry) => zones.push(entry.value::<GivenSubnet>()?.zone.clone()),
            None => return Ok(None),
        }
    }
    Ok(Some(zones))
}

/// Finds them out, asking only for what neither the config nor what stands says.
pub async fn find(
    aws: &Aws,
    cluster: &Cluster,
    found: &[Entry],
    kept: Option<&Kept>,
    caller: Option<std::net::Ipv4Addr>,
    ssh_public: String,
) -> Result<(Surroundings, Learned)> {
    let mut learned = Learned::default();
    let wanted = preflight::types(cluster);
    let missing = layout::missing(cluster, found)?;
    let zones = async {
        if let Some(wanted) = layout::given(cluster, missing) {
            return match given_zones(cluster, found)? {
                Some(zones) => Ok((zones, false, false)),
                None => {
                    let verified = aws.deadlines.needed(preflight::GIVEN, given::verify(aws, &wanted)).await?;
                    Ok((verified.subnets.into_iter().map(|subnet| subnet.zone).collect(), false, true))
                }
            };
        }
        let standing = standing_zones(found, kept)?;
        if !cluster.aws.zones.is_empty() && (!standing.is_empty() || kept.is_some()) {
            // Whether they exist is checked if the plan makes anything in them.
            return Ok((cluster.aws.zones.clone(), false, false));
        }
        if !standing.is_empty() {
            return Ok((standing, false, false));
        }
        if let Some(kept) = kept.filter(|kept| !kept.zones.is_empty()) {
            return Ok((kept.zones.clone(), false, false));
        }
        let offers = aws.deadlines.needed(preflight::ZONES, preflight::offers(aws, &wanted)).await?;
        Ok::<_, Error>((preflight::choose_zones(cluster, &aws.region, &offers)?, true, false))
    };
    let known = kept.filter(|kept| kept.cluster.aws.image == cluster.aws.image).and_then(|kept| kept.image.clone());
    let image = async {
        // The same types have the same architecture.
        if let Some(image) = known.filter(|_| kept.is_some_and(|kept| preflight::types(&kept.cluster) == wanted)) {
            return Ok((image, None));
        }
        let facts = aws.deadlines.needed(preflight::TYPES, preflight::type_facts(aws, &wanted)).await?;
        let architecture = preflight::architecture(cluster, &facts)?;
        let known = kept.filter(|kept| kept.cluster.aws.image == cluster.aws.image).and_then(|kept| kept.image.clone());
        let image = match known.filter(|image| image.architecture == architecture) {
            Some(image) => image,
            None => aws.deadlines.needed("which image it is", image::find(aws, &cluster.aws.image, &architecture)).await?,
        };
        Ok::<_, Error>((image, Some(facts)))
    };
    let (zones, image) = tokio::join!(zones, image);
    // A type that is not known at all is the better word for one that no zone has.
    let (image, types) = image?;
    let (zones, offers, given) = zones?;
    (learned.types, learned.offers, learned.given) = (types, offers, given);
    let around = Surroundings {
        account: aws.identity.account.clone(),
        partition: aws.identity.partition.clone(),
        region: aws.region.clone(),
        s3_endpoint: aws.s3_endpoint.clone(),
        zones,
        image,
        caller,
        ssh_public,
        missing,
    };
    Ok((around, learned))
}
