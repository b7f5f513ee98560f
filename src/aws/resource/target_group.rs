//! Where the API's load balancer leads: to the masters' own addresses, which stay when a machine is replaced.

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetDescription, TargetGroupAttribute, TargetTypeEnum};

use super::AwsResource;
use super::load_balancer::{API, NAME_LIMIT, tags_of};
use super::network::VpcRef;
use super::network_interface::NetworkInterface;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// What differs from how AWS makes one. A client's own address would make a master that reaches itself through the balancer hang. Each
/// of the balancer's nodes leads to the masters of all zones: else who has the address of one node gets nowhere while its zone's master
/// is gone and the balancer's name still has that address.
const ATTRIBUTES: [(&str, &str); 3] = [
    ("preserve_client_ip.enabled", "false"),
    ("deregistration_delay.timeout_seconds", "30"),
    ("load_balancing.cross_zone.enabled", "true"),
];

/// How often AWS looks whether a master answers, in seconds: as often as it does at most (CreateTargetGroup's reference: 5 to 300). Who
/// asks for the API may be sent to a master that is gone until it has not answered twice.
const CHECK_EVERY: i32 = 5;
/// How long a master may take to say that it is ready, in seconds (2 to 120): it takes milliseconds, and longer where it has just begun.
const CHECK_PATIENCE: i32 = 3;

/// The masters, as a load balancer's target.
#[derive(Debug, Clone)]
pub struct TargetGroup {
    /// Its name among target groups: `api`.
    pub name: String,
    /// Where the masters are.
    pub vpc: VpcRef,
    /// The API's port.
    pub port: u16,
    /// The masters.
    pub members: Vec<Ref<NetworkInterface>>,
}

/// A target group as it was found.
#[derive(Debug, Clone)]
pub struct TargetGroupFound {
    name: String,
    id: String,
    /// The addresses it leads to.
    pub targets: BTreeSet<String>,
    vpc: String,
    port: i32,
    set: bool,
}

impl Found for TargetGroupFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// Its ARN.
    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for TargetGroup {
    const NEEDS: &'static [Need] = &[
        need("elasticloadbalancing:DescribeTargetGroups", Scope::Any),
        need("elasticloadbalancing:DescribeTargetGroupAttributes", Scope::Any),
        need("elasticloadbalancing:DescribeTargetHealth", Scope::Any),
        need("elasticloadbalancing:CreateTargetGroup", Scope::Named),
        implied("elasticloadbalancing:AddTags", "elasticloadbalancing:CreateTargetGroup", Scope::Named),
        need("elasticloadbalancing:ModifyTargetGroupAttributes", Scope::Named),
        need("elasticloadbalancing:RegisterTargets", Scope::Named),
        need("elasticloadbalancing:DeregisterTargets", Scope::Named),
        need("elasticloadbalancing:DeleteTargetGroup", Scope::Named),
    ];
}

impl Resource for TargetGroup {
    type Cloud = Aws;
    type Found = TargetGroupFound;
    const KIND: &'static str = "target group";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        std::iter::once(self.vpc.address()).chain(self.members.iter().map(Ref::address)).collect()
    }

    fn detail(&self) -> String {
        format!("{} masters, port {}", self.members.len(), self.port)
    }

    fn diff(&self, found: &TargetGroupFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(vpc) = self.vpc.look(cx) {
            changes.extend(Change::if_differs("VPC", &found.vpc, &vpc, Change::replace));
        }
        changes.extend(Change::if_differs("port", &found.port, &i32::from(self.port), Change::replace));
        let is = found.targets.iter().cloned().collect::<Vec<_>>().join(" ");
        let wanted: Option<BTreeSet<String>> = self.members.iter().map(|member| Some(cx.look(member)?.address.clone())).collect();
        match wanted {
            Some(wanted) if wanted == found.targets => {}
            Some(wanted) => changes.push(Change::in_place("targets", is, wanted.into_iter().collect::<Vec<_>>().join(" "))),
            None => changes.push(Change::in_place("targets", is, format!("{} masters", self.members.len()))),
        }
        changes.extend(Change::if_differs("attributes set", &found.set, &true, Change::in_place));
        changes
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<TargetGroupFound> {
        let vpc = self.vpc.id(cx)?;
        let what = format!("the target group {} could not be made", self.name);
        // A second call of the same kind gives what the first one made.
        let made = cx
            .cloud
            .until_unblocked(&what, || async {
                let ask = cx
                    .cloud
                    .elb
                    .create_target_group()
                    .name(cx.cloud.unique(&self.name, NAME_LIMIT))
                    .target_type(TargetTypeEnum::Ip)
                    .protocol(ProtocolEnum::Tcp)
                    .port(self.port.into())
                    .vpc_id(&vpc)
                    .health_check_enabled(true)
                    .health_check_protocol(ProtocolEnum::Https)
                    .health_check_path("/readyz")
                    .health_check_interval_seconds(CHECK_EVERY)
                    .health_check_timeout_seconds(CHECK_PATIENCE)
                    .healthy_threshold_count(2)
                    .unhealthy_threshold_count(2)
                    .set_tags(Some(tags_of(cx.cloud, &self.name)));
                ask.send().await.failure().map_err(Failure::fresh)
            })
            .await?;
        let arn = made
            .target_groups
            .unwrap_or_default()
            .into_iter()
            .next()
            .and_then(|group| group.target_group_arn)
            .unwrap_or_default();
        let found = TargetGroupFound {
            name: self.name.clone(),
            id: arn,
            targets: BTreeSet::new(),
            vpc,
            port: self.port.into(),
            set: false,
        };
        self.update(&found, &[], cx).await
    }

    async fn update(&self, found: &TargetGroupFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<TargetGroupFound> {
        let elb = &cx.cloud.elb;
        let what = format!("the target group {} could not be set up", self.name);
        if !found.set {
            let attributes = ATTRIBUTES.map(|(key, value)| TargetGroupAttribute::builder().key(key).value(value).build());
            let ask = elb.modify_target_group_attributes().target_group_arn(&found.id).set_attributes(Some(attributes.to_vec()));
            ask.send().await.explain(&what)?;
        }
        let wanted = self.members.iter().map(|member| Ok(cx.get(member)?.address.clone())).collect::<Result<BTreeSet<_>>>()?;
        let describe = |some: Vec<&String>| -> Vec<TargetDescription> {
            some.into_iter().map(|address| TargetDescription::builder().id(address).port(self.port.into()).build()).collect()
        };
        let (new, old) =
            (wanted.difference(&found.targets).collect::<Vec<_>>(), found.targets.difference(&wanted).collect::<Vec<_>>());
        if !new.is_empty() {
            let ask = elb.register_targets().target_group_arn(&found.id).set_targets(Some(describe(new)));
            ask.send().await.explain(&what)?;
        }
        if !old.is_empty() {
            let ask = elb.deregister_targets().target_group_arn(&found.id).set_targets(Some(describe(old)));
            ask.send().await.explain(&what)?;
        }
        Ok(TargetGroupFound { targets: wanted, set: true, ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<TargetGroupFound>> {
        let what = |failure: Failure| failure.error("target groups could not be listed");
        let ask = aws.elb.describe_target_groups().names(aws.unique(API, NAME_LIMIT));
        let answer = unless_gone(ask.send().await.failure()).map_err(what)?;
        let Some(seen) = answer.and_then(|answer| answer.target_groups.unwrap_or_default().into_iter().next()) else {
            return Ok(Vec::new());
        };
        let arn = seen.target_group_arn.unwrap_or_default();
        let (health, attributes) = tokio::join!(
            aws.elb.describe_target_health().target_group_arn(&arn).send(),
            aws.elb.describe_target_group_attributes().target_group_arn(&arn).send(),
        );
        let (Some(health), Some(attributes)) =
            (unless_gone(health.failure()).map_err(what)?, unless_gone(attributes.failure()).map_err(what)?)
        else {
            return Ok(Vec::new());
        };
        // One that is being taken out is listed until it is.
        let staying = health.target_health_descriptions().iter().filter(|target| {
            target.target_health().and_then(|health| health.state()).is_none_or(|state| state.as_str() != "draining")
        });
        let targets = staying.filter_map(|target| target.target().and_then(|target| target.id().map(str::to_owned))).collect();
        let set = ATTRIBUTES.iter().all(|(key, value)| {
            attributes.attributes().iter().any(|attribute| attribute.key() == Some(*key) && attribute.value() == Some(*value))
        });
        let (vpc, port) = (seen.vpc_id.unwrap_or_default(), seen.port.unwrap_or_default());
        Ok(vec![TargetGroupFound { name: API.to_owned(), id: arn, targets, vpc, port, set }])
    }

    async fn delete(aws: &Aws, found: &TargetGroupFound) -> Result<()> {
        let what = format!("the target group {} could not be removed", found.name);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.elb.delete_target_group().target_group_arn(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}
