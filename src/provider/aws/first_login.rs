//! The first login to a master: it is known by a throw-away host key that its user-data holds, and makes one of its own before it is
//! told anything secret. From then on only that one counts.
//!
//! The own key's public half goes into a tag of the instance before the throw-away key is forgotten. Killed anywhere in between, the
//! next run finds a machine that it knows by one of both.

use std::time::Duration;

use aws_sdk_ec2::types::Tag;

use crate::aws::Aws;
use crate::aws::fault::Explain as _;
use crate::aws::permissions::{Need, Scope, need};
use crate::aws::resource::instance::InstanceFound;
use crate::aws::tags::OWN_HOST_KEY;
use crate::error::{Error, Result};
use crate::graph::Found as _;
use crate::machine::Machine;
use crate::machine::ssh::{LoginKey, Ssh, quoted};
use crate::report::Span;
use crate::templates;

/// What it calls.
pub const NEEDS: &[Need] = &[need("ec2:CreateTags", Scope::Tagged)];

/// How long an instance that runs may take until it lets kup in: its first boot takes half a minute, as a rule.
const DEADLINE: Duration = Duration::from_secs(300);
/// How long one of the script's two parts may take.
const KEYS: Duration = Duration::from_secs(30);

/// The machine with its own host key, making that if it has none yet. `patience` is how long it may take to let kup in, if not
/// [`DEADLINE`].
///
/// # Errors
/// It lets nobody in, or shows another host key than the one it booted with; it ends meanwhile; AWS does not take the tag.
pub async fn adopt(
    aws: &Aws,
    found: &InstanceFound,
    mut machine: Machine,
    login: &LoginKey,
    patience: Option<Duration>,
    span: &Span,
) -> Result<Machine> {
    if found.own_host_key.is_some() {
        return Ok(machine);
    }
    let (id, route) = (found.id(), machine.route());
    span.waiting(format!("SSH at {route}"));
    let seen = |last: &str| span.waiting(format!("SSH at {route} (last: {last})"));
    let ssh = tokio::select! {
        ssh = Ssh::connect_telling(&machine, login, patience.unwrap_or(DEADLINE), seen) => {
            ssh.map_err(|e| unreachable(e, found))?
        }
        lost = aws.watch.lost(aws, id) => return Err(lost),
    };
    span.waiting("the machine to make a host key of its own");
    let script = templates::text("node/host-key.sh")?;
    let said = ssh.run("sh -s -- offer", script, KEYS).await?.text();
    let own = said.trim().to_owned();
    if !own.starts_with("ecdsa-sha2-nistp256 ") || own.lines().count() != 1 {
        return Err(Error::new(format!("{id} made no host key that can be used")).why(quoted(&own)));
    }
    span.waiting("AWS to take the key's tag");
    let what = || format!("the host key of {id} could not be put into its tag");
    let tag = Tag::builder().key(OWN_HOST_KEY).value(&own).build();
    aws.ec2.create_tags().resources(id).tags(tag).send().await.explain(what())?;
    machine.host_key = own;
    span.waiting("a login by the new host key");
    let ssh = Ssh::connect(&machine, login, KEYS).await?;
    ssh.run("sh -s -- keep", script, KEYS).await?;
    Ok(machine)
}

fn unreachable(error: Error, found: &InstanceFound) -> Error {
    let id = found.id();
    error
        .hint(format!("`aws ec2 get-console-output --latest --instance-id {id}` shows how far it has booted"))
        .hint(format!("`kup up --replace {}` makes it anew", found.name()))
}
