//! The volume of its own that a master's etcd has in a cloud: mounted before the machine is asked what data it has.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::machine::ssh::{Ssh, last_lines, quoted};
use crate::templates;

/// How long it may take: the script waits 60 s for the disk, and a file system is made in a second.
const DEADLINE: Duration = Duration::from_secs(120);

/// Mounts it, if the machine has one.
///
/// # Errors
/// It does not appear, or holds what kup did not make.
pub(super) async fn mount(ssh: &Ssh, machine: &Machine) -> Result<()> {
    let Some(volume) = machine.cloud.as_ref().and_then(|cloud| cloud.etcd_volume.as_deref()) else { return Ok(()) };
    let output = ssh.exec(&format!("sh -s -- {}", quoted(volume)), templates::text("node/etcd-volume.sh")?, DEADLINE).await?;
    if output.status == 0 {
        return Ok(());
    }
    Err(Error::new(format!("the volume {volume} can't be used for etcd's data on {}", machine.name))
        .why(last_lines(&output.stderr, 5)))
}
