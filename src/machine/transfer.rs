//! The bundle over SSH, for machines that don't mount it: one stream through an exec channel, checked before anything of it can run.
//!
//! Never SFTP: libssh2 keeps 30,000 bytes of it unacknowledged, which makes it many times slower than a channel on any link with a delay.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::Role;
use super::ssh::{Ssh, last_lines};
use super::{BUNDLE_DIR, KUP_DIR};
use crate::bundle::{self, Bundle, pack};
use crate::error::{Context, Error, Result};
use crate::report::Span;
use crate::report::event::Unit;
use crate::templates;

/// How long a transfer may take, unpacking and checking included: 200 MB at 2 Mbit/s is 14 minutes. A link that lets nothing through
/// is given up long before.
const TRANSFER: Duration = Duration::from_secs(20 * 60);

/// Makes the machine have this bundle at [`BUNDLE_DIR`]: checked, whole, and put there by one rename. Says what it did.
pub async fn send(ssh: &Ssh, bundle: &Arc<Bundle>, role: Role, span: &Span) -> Result<String> {
    let roles = match role {
        Role::Master => vec![bundle::Role::Master, bundle::Role::Both, bundle::Role::Image],
        Role::Minion => vec![bundle::Role::Minion, bundle::Role::Both, bundle::Role::Image],
        // What it runs comes with its operating system.
        Role::Balancer => vec![],
    };
    let (packing, report) = (bundle.clone(), span.report().clone());
    let pack = tokio::task::spawn_blocking(move || pack::pack(&packing, &roles, &report))
        .await
        .context("packing the bundle broke off")??;
    // A pack is named by the sum of its list of sums, which also lies in it.
    let key = pack.path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next()).unwrap_or_default().to_owned();
    let there = ssh.exec(&format!("sha256sum < {BUNDLE_DIR}/SHA256SUMS"), "", Duration::from_secs(10)).await?;
    if there.text().split_whitespace().next() == Some(&key) {
        return Ok("already there".into());
    }
    let (path, total) = (pack.path.clone(), pack.size);
    let progress = span.child("sending");
    // Sums and names are ours and need no quoting.
    let command =
        format!("{}\nset -- {} {KUP_DIR} {BUNDLE_DIR}\nreceive \"$@\"", templates::text("node/receive.sh")?, pack.sha256);
    let (sender, mut sent) = tokio::sync::watch::channel(0_u64);
    let transfer = ssh.exec_reading(
        &command,
        move || {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            Ok(Box::new(Counted { file, read: 0, sender }))
        },
        TRANSFER,
    );
    let watching = async {
        while sent.changed().await.is_ok() {
            progress.progress(*sent.borrow_and_update(), Some(total), Unit::Bytes);
        }
        // The file is closed once all of it is on its way.
        span.waiting("the machine to check and unpack it");
    };
    let (output, ()) = tokio::join!(transfer, watching);
    let name = &ssh.machine().name;
    let output = output.map_err(|e| e.within(format!("the bundle did not arrive on {name}")).hint("`kup up` sends it again"));
    let output = progress.close(output)?;
    // Its last word is the proof: an exit status of 0 is also what a cut link gives.
    if !output.text().ends_with("kup-unpacked\n") {
        let why = if output.stderr.trim().is_empty() { "the link was cut".to_owned() } else { last_lines(&output.stderr, 5) };
        return Err(Error::new(format!("the bundle did not arrive whole on {name}")).why(why).hint("`kup up` sends it again"));
    }
    Ok(format!("{} MiB sent", total / (1024 * 1024)))
}

/// A file that says how much of it has been read.
struct Counted {
    file: File,
    read: u64,
    sender: tokio::sync::watch::Sender<u64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read += n as u64;
        self.sender.send_replace(self.read);
        Ok(n)
    }
}
