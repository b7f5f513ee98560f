//! A master's public address. It outlives the machine, and so certificates and kubeconfigs stay right.

use aws_sdk_ec2::types::{Address as Ip, DomainType, ResourceType};

use super::AwsResource;
use super::internet_gateway::InternetGateway;
use super::network_interface::NetworkInterface;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::once::{alone, once};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// A master's Elastic IP.
#[derive(Debug, Clone)]
pub struct ElasticIp {
    /// Its name among addresses: `master-1`.
    pub name: String,
    /// What it leads to.
    pub interface: Ref<NetworkInterface>,
    /// The way in, which has to be there first; a given VPC has its own.
    pub gateway: Option<Ref<InternetGateway>>,
}

/// An Elastic IP as it was found.
#[derive(Debug, Clone)]
pub struct ElasticIpFound {
    name: String,
    id: String,
    /// The address itself.
    pub address: String,
    /// The id of the network interface that it leads to.
    pub interface: Option<String>,
    association: Option<String>,
}

impl Found for ElasticIpFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for ElasticIp {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeAddresses", Scope::Any),
        need("ec2:AllocateAddress", Scope::Creates),
        implied("ec2:CreateTags", "ec2:AllocateAddress", Scope::Creates),
        need("ec2:AssociateAddress", Scope::Tagged),
        need("ec2:DisassociateAddress", Scope::Tagged),
        need("ec2:ReleaseAddress", Scope::Tagged),
    ];
}

impl Resource for ElasticIp {
    type Cloud = Aws;
    type Found = ElasticIpFound;
    const KIND: &'static str = "elastic ip";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        std::iter::once(self.interface.address()).chain(self.gateway.iter().map(Ref::address)).collect()
    }

    fn detail(&self) -> String {
        "a public address".to_owned()
    }

    fn diff(&self, found: &ElasticIpFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let wanted = cx.look(&self.interface).map(|interface| interface.id().to_owned());
        if wanted.is_some() && wanted == found.interface {
            return Vec::new();
        }
        let nothing = || "nothing".to_owned();
        let wanted = wanted.unwrap_or_else(|| format!("the new {}", self.interface.address()));
        vec![Change::in_place("leads to", found.interface.clone().unwrap_or_else(nothing), wanted)]
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<ElasticIpFound> {
        let made =
            self.allocate(cx.cloud).await.map_err(|f| f.error(format!("no public address could be had for {}", self.name)))?;
        self.update(&made, &[], cx).await
    }

    async fn update(&self, found: &ElasticIpFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<ElasticIpFound> {
        let interface = cx.get(&self.interface)?;
        if found.interface.as_deref() == Some(interface.id()) {
            return Ok(found.clone());
        }
        let what = format!("the address {} could not be led to {}", found.address, self.name);
        let made = cx
            .cloud
            .until_unblocked(&what, || async {
                let ask = cx.cloud.ec2.associate_address().allocation_id(&found.id).network_interface_id(interface.id());
                ask.send().await.failure().map_err(Failure::fresh)
            })
            .await?;
        Ok(ElasticIpFound { interface: Some(interface.id().to_owned()), association: made.association_id, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<ElasticIpFound>> {
        let addresses = aws.ec2.describe_addresses().filters(tags::ec2::ours(aws)).send().await;
        let addresses = addresses.explain("public addresses could not be listed")?.addresses.unwrap_or_default();
        Ok(addresses.into_iter().map(found).collect())
    }

    async fn delete(aws: &Aws, found: &ElasticIpFound) -> Result<()> {
        let what = format!("the public address {} could not be released", found.address);
        aws.until_unblocked(&what, || async {
            if let Some(association) = &found.association {
                unless_gone(aws.ec2.disassociate_address().association_id(association).send().await.failure())?;
            }
            match unless_gone(aws.ec2.release_address().allocation_id(&found.id).send().await.failure()) {
                Ok(_) => Ok(()),
                // What EC2 says of an address that is released already, as if it had always been somebody else's.
                Err(failure) if failure.code == "AuthFailure" => {
                    let filter = tags::ec2::by("allocation-id", &found.id);
                    let still = aws.ec2.describe_addresses().filters(filter).send().await.failure()?;
                    if still.addresses().is_empty() { Ok(()) } else { Err(failure) }
                }
                Err(failure) => Err(failure),
            }
        })
        .await
    }
}

impl ElasticIp {
    /// Gets an address, for which AWS takes no token.
    async fn allocate(&self, aws: &Aws) -> Result<ElasticIpFound, Failure> {
        let make = || async {
            let specification = tags::ec2::specification(aws, ResourceType::ElasticIp, &self.name, Some("master"));
            let ask = aws.ec2.allocate_address().domain(DomainType::Vpc).tag_specifications(specification);
            let made = ask.customize().config_override(alone()).send().await.failure()?;
            Ok(ElasticIpFound {
                name: self.name.clone(),
                id: made.allocation_id.unwrap_or_default(),
                address: made.public_ip.unwrap_or_default(),
                interface: None,
                association: None,
            })
        };
        let look = || async {
            let named = tags::ec2::named(aws, &self.name);
            let there = aws.ec2.describe_addresses().set_filters(Some(named)).send().await.failure()?;
            Ok(there.addresses.unwrap_or_default().into_iter().next().map(found))
        };
        once(make, look).await
    }
}

fn found(ip: Ip) -> ElasticIpFound {
    let id = ip.allocation_id.clone().unwrap_or_default();
    ElasticIpFound {
        name: tags::ec2::name(ip.tags(), &id),
        address: ip.public_ip.unwrap_or_default(),
        // Some emulators have an empty text where AWS has nothing.
        interface: ip.network_interface_id.filter(|id| !id.is_empty()),
        association: ip.association_id.filter(|id| !id.is_empty()),
        id,
    }
}

#[cfg(test)]
#[path = "elastic_ip_tests.rs"]
mod tests;
