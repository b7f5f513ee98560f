//! The bundle for machines that don't mount it, checked before anything of it can run: over SSH, as one stream through an exec channel,
//! or out of the cluster's bucket, where whoever started it puts it once for all of them.
//!
//! Never SFTP: libssh2 keeps 30,000 bytes of it unacknowledged, which makes it many times slower than a channel on any link with a delay.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Role;
use super::ssh::{Output, Ssh, last_lines};
use super::{BUNDLE_DIR, KUP_DIR};
use crate::bundle::{self, Bundle, pack};
use crate::error::{Context, Error, Result};
use crate::report::Span;
use crate::report::event::Unit;
use crate::templates;

/// How long a transfer may take, unpacking and checking included: 200 MB at 2 Mbit/s is 14 minutes. A link that lets nothing through
/// is given up long before.
const TRANSFER: Duration = Duration::from_secs(20 * 60);

/// How long a machine may take to get it from the bucket: as long as it comes to that on a line of 0.5 Mbit/s. It gives up long before, if
/// one file is not there in a quarter of an hour.
const FETCH: Duration = Duration::from_secs(2 * 60 * 60);

/// Where the bundle's files are, each as an object of its own ([`pack::key`]), which the machine's role may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The address below which the bucket's objects are, without a slash at its end.
    pub url: String,
    /// Its region.
    pub region: String,
    /// The account that owns it: nothing is taken from another one's bucket.
    pub account: String,
}

/// The bundle's roles that a machine needs the files of.
fn roles(role: Role) -> Vec<bundle::Role> {
    match role {
        Role::Master => vec![bundle::Role::Master, bundle::Role::Both, bundle::Role::Image],
        Role::Minion => vec![bundle::Role::Minion, bundle::Role::Both, bundle::Role::Image],
        // What it runs comes with its operating system.
        Role::Balancer => vec![],
    }
}

/// Whether a machine has the files of this list of sums, which also lies among them.
async fn has(ssh: &Ssh, sums: &str) -> Result<bool> {
    let there = ssh.exec(&format!("sha256sum < {BUNDLE_DIR}/{}", pack::SUMS), "", Duration::from_secs(10)).await?;
    Ok(there.text().split_whitespace().next() == Some(hex::encode(Sha256::digest(sums)).as_str()))
}

/// Makes the machine have this bundle at [`BUNDLE_DIR`], out of the cluster's bucket: checked, whole, and put there by one rename. Waits
/// for what is still on its way there. Says what it did.
///
/// # Errors
/// The machine can't get it, or gets something else; the link was cut.
pub async fn fetch(ssh: &Ssh, bundle: &Bundle, role: Role, from: &Source, span: &Span) -> Result<String> {
    let (files, sums) = pack::sums(&bundle.manifest, &roles(role));
    if has(ssh, &sums).await? {
        return Ok("already there".into());
    }
    let list: String = files.iter().map(|file| pack::line(file)).collect();
    let values = json!({ "dir": KUP_DIR, "bundle": BUNDLE_DIR, "url": from.url, "region": from.region, "account": from.account });
    span.waiting("the machine to get it from the bucket");
    let output = ssh.exec(&templates::render("node/fetch.sh", values)?, list, FETCH).await;
    let name = &ssh.machine().name;
    whole(output.map_err(|e| e.within(format!("the bundle did not arrive on {name}")).hint("`kup up` goes on with it"))?, name)?;
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    Ok(format!("{} files, {} MiB", files.len(), bytes / (1024 * 1024)))
}

/// Checks that a script that brings the bundle came to its end.
fn whole(output: Output, name: &str) -> Result<()> {
    // Its last word is the proof: an exit status of 0 is also what a cut link gives.
    if output.text().ends_with("kup-unpacked\n") {
        return Ok(());
    }
    let why = if output.stderr.trim().is_empty() { "the link was cut".to_owned() } else { last_lines(&output.stderr, 5) };
    Err(Error::new(format!("the bundle did not arrive whole on {name}")).why(why).hint("`kup up` brings it again"))
}

/// Makes the machine have this bundle at [`BUNDLE_DIR`], over SSH: checked, whole, and put there by one rename. Says what it did.
///
/// # Errors
/// It can't be packed; the link was cut, or spoilt it.
pub async fn send(ssh: &Ssh, bundle: &Arc<Bundle>, role: Role, span: &Span) -> Result<String> {
    let roles = roles(role);
    let (_, sums) = pack::sums(&bundle.manifest, &roles);
    if has(ssh, &sums).await? {
        return Ok("already there".into());
    }
    let (packing, report) = (bundle.clone(), span.report().clone());
    let pack = tokio::task::spawn_blocking(move || pack::pack(&packing, &roles, &report))
        .await
        .context("packing the bundle broke off")??;
    let (path, total) = (pack.path.clone(), pack.size);
    let progress = span.child("sending");
    // Sums and names are ours and need no quoting.
    let command =
        format!("{}\nset -- {} {KUP_DIR} {BUNDLE_DIR}\nreceive \"$@\"", templates::render("node/receive.sh", ())?, pack.sha256);
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
    let output = output.map_err(|e| e.within(format!("the bundle did not arrive on {name}")).hint("`kup up` brings it again"));
    whole(progress.close(output)?, name)?;
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
