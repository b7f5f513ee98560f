//! The minions that Auto Scaling groups make: who they are now, and what they say on their consoles.

use std::collections::BTreeMap;

use base64::Engine as _;
use futures::future::BoxFuture;

use crate::aws::Aws;
use crate::aws::fault::{Explain as _, Fault};
use crate::aws::permissions::{Need, Scope, need};
use crate::aws::resource::auto_scaling_group::AutoScalingGroup;
use crate::bootstrap::Minions;
use crate::error::{Context as _, Result};
use crate::graph::Resource as _;

/// What it calls beside what the groups' own kind does.
pub const NEEDS: &[Need] = &[need("ec2:GetConsoleOutput", Scope::Tagged)];

/// The minions of one cluster.
pub struct OfGroups(pub Aws);

impl Minions for OfGroups {
    fn now(&self) -> BoxFuture<'_, Result<BTreeMap<String, String>>> {
        Box::pin(async {
            let groups = AutoScalingGroup::list(&self.0).await?;
            let members = groups.into_iter().flat_map(|group| group.members);
            // Those on their way out are no longer the cluster's.
            let stays = members.filter(|member| !member.leaves());
            Ok(stays.map(|member| (member.id, member.state)).collect())
        })
    }

    fn console<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let what = || format!("the console of {name} could not be read");
            // Only machines of the Nitro kind can be asked for their newest words; others tell those of their last boot.
            let ask = |latest| self.0.ec2.get_console_output().instance_id(name).latest(latest).send();
            let said = match ask(true).await.failure() {
                Err(failure) if failure.fault == Fault::Invalid => ask(false).await.failure(),
                other => other,
            };
            let said = match said {
                Ok(said) => said.output.unwrap_or_default(),
                Err(failure) if failure.fault == Fault::Gone => return Ok(String::new()),
                Err(failure) => return Err(failure.error(what())),
            };
            let bytes = base64::engine::general_purpose::STANDARD.decode(said.trim()).with_context(what)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    fn remedy(&self, reason: &str) -> Option<String> {
        // Objects are named by what they should be, so that one of that name is taken for what it should be.
        let object = reason.split_whitespace().find(|word| word.starts_with("bundle/"))?;
        let object = reason.contains("is not what node/manifest names").then_some(object)?;
        Some(format!("`aws s3 rm s3://{}/{object}` removes what is wrong, and `kup up` brings it again", self.0.bucket()))
    }
}
