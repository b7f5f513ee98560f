//! The port on which the API's load balancer listens.

use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, Listener as Seen, ProtocolEnum};

use super::AwsResource;
use super::load_balancer::{API, LoadBalancer, of_cluster, tags_of};
use super::target_group::TargetGroup;
use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Failure, unless_gone};
use crate::aws::permissions::{Need, Scope, implied, need};
use crate::error::Result;
use crate::graph::{Address, Change, Cx, Found, Ref, Resource};

/// A port of the load balancer.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name among listeners: `api`.
    pub name: String,
    /// Whose port.
    pub balancer: Ref<LoadBalancer>,
    /// Where it leads.
    pub target: Ref<TargetGroup>,
    /// The port.
    pub port: u16,
}

/// A listener as it was found.
#[derive(Debug, Clone)]
pub struct ListenerFound {
    name: String,
    id: String,
    port: i32,
    target: String,
}

impl Found for ListenerFound {
    fn name(&self) -> &str {
        &self.name
    }

    /// Its ARN.
    fn id(&self) -> &str {
        &self.id
    }
}

impl AwsResource for Listener {
    const NEEDS: &'static [Need] = &[
        need("elasticloadbalancing:DescribeLoadBalancers", Scope::Any),
        need("elasticloadbalancing:DescribeListeners", Scope::Any),
        need("elasticloadbalancing:CreateListener", Scope::Named),
        implied("elasticloadbalancing:AddTags", "elasticloadbalancing:CreateListener", Scope::Named),
        need("elasticloadbalancing:ModifyListener", Scope::Named),
        need("elasticloadbalancing:DeleteListener", Scope::Named),
    ];
}

impl Resource for Listener {
    type Cloud = Aws;
    type Found = ListenerFound;
    const KIND: &'static str = "listener";

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        vec![self.balancer.address(), self.target.address()]
    }

    fn detail(&self) -> String {
        format!("TCP {}", self.port)
    }

    fn diff(&self, found: &ListenerFound, cx: &Cx<'_, Aws>) -> Vec<Change> {
        let target = cx.look(&self.target).map_or_else(|| "a new one".to_owned(), |target| target.id().to_owned());
        let port = Change::if_differs("port", &found.port, &i32::from(self.port), Change::in_place);
        port.into_iter().chain(Change::if_differs("target group", &found.target, &target, Change::in_place)).collect()
    }

    async fn create(&self, cx: &Cx<'_, Aws>) -> Result<ListenerFound> {
        let (balancer, target) = (cx.get(&self.balancer)?, cx.get(&self.target)?);
        let what = format!("the load balancer {} could not be made to listen", self.name);
        // A second call of the same kind gives what the first one made.
        let made = cx
            .cloud
            .until_unblocked(&what, || async {
                let ask = cx
                    .cloud
                    .elb
                    .create_listener()
                    .load_balancer_arn(balancer.id())
                    .protocol(ProtocolEnum::Tcp)
                    .port(self.port.into());
                let ask = ask.default_actions(forward(target.id())).set_tags(Some(tags_of(cx.cloud, &self.name)));
                ask.send().await.failure().map_err(Failure::fresh)
            })
            .await?;
        let arn =
            made.listeners.unwrap_or_default().into_iter().next().and_then(|listener| listener.listener_arn).unwrap_or_default();
        Ok(ListenerFound { name: self.name.clone(), id: arn, port: self.port.into(), target: target.id().to_owned() })
    }

    async fn update(&self, found: &ListenerFound, _: &[Change], cx: &Cx<'_, Aws>) -> Result<ListenerFound> {
        let target = cx.get(&self.target)?;
        let ask = cx.cloud.elb.modify_listener().listener_arn(&found.id).protocol(ProtocolEnum::Tcp).port(self.port.into());
        let ask = ask.default_actions(forward(target.id()));
        ask.send().await.explain(format!("where the load balancer {} leads could not be changed", self.name))?;
        Ok(ListenerFound { port: self.port.into(), target: target.id().to_owned(), ..found.clone() })
    }

    async fn list(aws: &Aws) -> Result<Vec<ListenerFound>> {
        let what = |failure: Failure| failure.error("listeners could not be listed");
        let Some(arn) = of_cluster(aws).await.map_err(what)?.and_then(|balancer| balancer.load_balancer_arn) else {
            return Ok(Vec::new());
        };
        let answer = unless_gone(aws.elb.describe_listeners().load_balancer_arn(arn).send().await.failure()).map_err(what)?;
        let listeners = answer.and_then(|answer| answer.listeners).unwrap_or_default();
        // One more than kup makes goes by its own id: nobody wants it.
        Ok(listeners.into_iter().enumerate().map(|(n, listener)| found(listener, n == 0)).collect())
    }

    async fn delete(aws: &Aws, found: &ListenerFound) -> Result<()> {
        let what = format!("the listener {} could not be removed", found.id);
        aws.until_unblocked(&what, || async {
            unless_gone(aws.elb.delete_listener().listener_arn(&found.id).send().await.failure()).map(|_| ())
        })
        .await
    }
}

fn forward(target: &str) -> Action {
    let action = Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(target);
    action.build()
}

fn found(listener: Seen, first: bool) -> ListenerFound {
    let id = listener.listener_arn.clone().unwrap_or_default();
    let target = listener.default_actions().first().and_then(|action| action.target_group_arn()).unwrap_or_default().to_owned();
    ListenerFound { name: if first { API.to_owned() } else { id.clone() }, port: listener.port.unwrap_or_default(), target, id }
}
