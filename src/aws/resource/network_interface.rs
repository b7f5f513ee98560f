//! A master's place in the network: its fixed address and its security groups. It outlives the machine.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types::ResourceType;

use super::AwsResource;
use super::network::SubnetRef;
use super::security_group::SecurityGroup;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, Fault, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::aws::tags;
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// A master's network interface.
#[derive(Debug, Clone)]
pub struct NetworkInterface {
    /// Its name among network interfaces: `master-1`.
    pub name: String,
    /// The subnet it is in.
    pub subnet: SubnetRef,
    /// Its address; none for one that AWS chooses, and that is kept.
    pub address: Option<Ipv4Addr>,
    /// Its security groups.
    pub groups: Vec<Ref<SecurityGroup>>,
}

/// A network interface as it was found.
#[derive(Debug, Clone)]
pub struct NetworkInterfaceFound {
    name: String,
    id: String,
    /// Its private address.
    pub address: String,
    /// Its subnet's id.
    pub subnet: String,
    /// Its zone.
    pub zone: String,
    /// The ids of its security groups.
    pub groups: Vec<String>,
}

impl Found for NetworkInterfaceFound {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for NetworkInterface {
    const NEEDS: &'static [Need] = &[
        need("ec2:DescribeNetworkInterfaces", Scope::Any),
        need("ec2:CreateNetworkInterface", Scope::Creates),
        implied("ec2:CreateTags", "ec2:CreateNetworkInterface", Scope::Creates),
        need("ec2:ModifyNetworkInterfaceAttribute", Scope::Tagged),
        need("ec2:DeleteNetworkInterface", Scope::Tagged),
    ];
}

impl Resource for NetworkInterface {
    type Cloud = Aws;
    type Found = NetworkInterfaceFound;
    const KIND: &'static str = "network interface";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        std::iter::once(self.subnet.address()).chain(self.groups.iter().map(Ref::address)).collect()
    }

    fn detail(&self) -> String {
        self.address.map_or_else(|| "an address of AWS's choice".to_owned(), |address| address.to_string())
    }

    fn diff(&self, found: &NetworkInterfaceFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(address) = self.address {
            changes.extend(Change::if_differs("address", &found.address, &address.to_string(), Change::refuse));
        }
        if let Some(subnet) = self.subnet.look(cx) {
            changes.extend(Change::if_differs("subnet", &found.subnet, &subnet, Change::refuse));
        }
        let wanted: Option<Vec<String>> = self.groups.iter().map(|group| Some(cx.look(group)?.id().to_owned())).collect();
        let is = sorted(found.groups.clone());
        match wanted.map(sorted) {
            Some(wanted) if wanted == is => {}
            Some(wanted) => changes.push(Change::in_place("security groups", is.join(" "), wanted.join(" "))),
            None => changes.push(Change::in_place("security groups", is.join(" "), "new ones")),
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<NetworkInterfaceFound> {
        let subnet = self.subnet.id(cx)?;
        let groups = self.group_ids(cx)?;
        let what = format!("the network interface of {} could not be made", self.name);
        let made = cx
            .cloud
            .until_unblocked(&what, || async {
                let made = cx
                    .cloud
                    .ec2
                    .create_network_interface()
                    .subnet_id(&subnet)
                    .set_private_ip_address(self.address.map(|address| address.to_string()))
                    .set_groups(Some(groups.clone()))
                    .description(format!("{} of the Kubernetes cluster {}", self.name, cx.cloud.cluster))
                    .tag_specifications(tags::ec2::specification(
                        cx.cloud,
                        ResourceType::NetworkInterface,
                        &self.name,
                        Some("master"),
                    ))
                    .send()
                    .await
                    .failure();
                match made {
                    Ok(made) => Ok(made.network_interface),
                    // Whoever has the address may be the one that an earlier call made, of which listing did not know yet.
                    Err(failure) if failure.code == "InvalidIPAddress.InUse" => match of_name(cx.cloud, &self.name).await? {
                        Some(ours) => Ok(Some(ours)),
                        None => Err(Failure { fault: Fault::Invalid, ..failure }),
                    },
                    Err(failure) => Err(failure.fresh()),
                }
            })
            .await?;
        Ok(found(made.unwrap_or_else(|| aws_sdk_ec2::types::NetworkInterface::builder().build()), Some(&self.name)))
    }

    async fn update(&self, found: &NetworkInterfaceFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<NetworkInterfaceFound> {
        let groups = self.group_ids(cx)?;
        let what = format!("the security groups of {} could not be changed", found.id);
        cx.cloud
            .until_unblocked(&what, || async {
                let ask = cx.cloud.ec2.modify_network_interface_attribute().network_interface_id(&found.id);
                ask.set_groups(Some(groups.clone())).send().await.failure().map_err(Failure::fresh)
            })
            .await?;
        Ok(NetworkInterfaceFound { groups, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<NetworkInterfaceFound>> {
        let ask = aws.ec2.describe_network_interfaces().filters(tags::ec2::ours(aws)).filters(masters());
        let interfaces: Vec<_> =
            ask.into_paginator().items().send().try_collect().await.explain("network interfaces could not be listed")?;
        Ok(interfaces.into_iter().map(|interface| found(interface, None)).collect())
    }

    async fn delete(aws: &Aws, found: &NetworkInterfaceFound) -> Result<()> {
        let what = format!("the network interface {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            let call = aws.ec2.delete_network_interface().network_interface_id(&found.id);
            unless_gone(call.send().await.failure()).map(|_| ()).map_err(in_use)
        })
        .await
    }
}

impl NetworkInterface {
    fn group_ids(&self, cx: &Cx<'_, Aws>) -> Result<Vec<String>> {
        self.groups.iter().map(|group| Ok(cx.get(group)?.id().to_owned())).collect()
    }
}

/// EC2 has no code of its own for one whose machine is still on its way out: "InvalidParameterValue: Network interface 'eni-…' is currently
/// in use." It is let go when the machine has ended, which an earlier run may have asked for.
fn in_use(failure: Failure) -> Failure {
    let is = failure.code == "InvalidParameterValue" && failure.message.contains("in use");
    if is { Failure { fault: Fault::Blocked, ..failure } } else { failure }
}

/// Those that kup makes: all others in the cluster's VPC (of load balancers, of pods' networks) are somebody else's, whatever their tags.
fn masters() -> aws_sdk_ec2::types::Filter {
    tags::ec2::by(&format!("tag:{}", tags::ROLE), "master")
}

async fn of_name(aws: &Aws, name: &str) -> Result<Option<aws_sdk_ec2::types::NetworkInterface>, Failure> {
    let ask = aws.ec2.describe_network_interfaces().filters(tags::ec2::ours(aws)).filters(masters());
    let ask = ask.filters(tags::ec2::by(&format!("tag:{}", tags::NAME), name));
    Ok(ask.send().await.failure()?.network_interfaces.unwrap_or_default().into_iter().next())
}

fn found(interface: aws_sdk_ec2::types::NetworkInterface, name: Option<&str>) -> NetworkInterfaceFound {
    let id = interface.network_interface_id.clone().unwrap_or_default();
    NetworkInterfaceFound {
        name: name.map_or_else(|| tags::ec2::name(interface.tag_set(), &id), str::to_owned),
        groups: interface.groups().iter().filter_map(|group| group.group_id().map(str::to_owned)).collect(),
        address: interface.private_ip_address.unwrap_or_default(),
        subnet: interface.subnet_id.unwrap_or_default(),
        zone: interface.availability_zone.unwrap_or_default(),
        id,
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aws_sdk_ec2::operation::delete_network_interface::{DeleteNetworkInterfaceError, DeleteNetworkInterfaceOutput};
    use aws_smithy_mocks::mock;

    use super::*;
    use crate::aws::testing::{aws, coded, mocked};

    #[tokio::test]
    async fn one_of_a_machine_on_its_way_out_is_waited_for() {
        let found = NetworkInterfaceFound {
            name: "master-1".into(),
            id: "eni-1".into(),
            address: "172.20.0.10".into(),
            subnet: "subnet-1".into(),
            zone: "us-west-2a".into(),
            groups: Vec::new(),
        };
        let refused = |why: &'static str| {
            mock!(aws_sdk_ec2::Client::delete_network_interface)
                .then_error(move || DeleteNetworkInterfaceError::generic(coded("InvalidParameterValue", why)))
        };
        let gone =
            mock!(aws_sdk_ec2::Client::delete_network_interface).then_output(|| DeleteNetworkInterfaceOutput::builder().build());
        let busy = refused("Network interface 'eni-1' is currently in use.");
        let mut aws = aws();
        aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&busy, &gone]);
        NetworkInterface::delete(&aws, &found).await.unwrap();
        // What else is invalid does not pass.
        aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&refused("eni-1 is managed by a service"), &gone]);
        assert!(NetworkInterface::delete(&aws, &found).await.is_err());
    }
}
