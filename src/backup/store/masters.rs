//! What masters keep of themselves, in `/var/lib/kup/backups`: the snapshots of their own timer, where there is no bucket for them. It is
//! read only from here: the masters see to its order themselves.

use std::time::Duration;

use super::Listing;
use crate::backup::take::{Receiver, TRANSFER};
use crate::backup::{Backup, Snapshot};
use crate::error::{Error, Result};
use crate::machine::ssh::{Ssh, last_lines};

/// Where on a master.
const DIR: &str = "/var/lib/kup/backups";
/// How long listing may take.
const LIST: Duration = Duration::from_secs(20);

/// Masters that can be asked.
pub struct Masters<'a>(pub &'a [Ssh]);

impl Masters<'_> {
    /// All that they have, each with its master's name; and of each that can't be asked, why.
    pub async fn list(&self) -> (Vec<(String, Listing)>, Vec<Error>) {
        let asked = self.0.iter().map(|ssh| async move {
            let name = ssh.machine().name.clone();
            list(ssh)
                .await
                .map_err(|e| e.within(format!("the snapshots on {name} can't be listed")))
                .map(|listing| (name, listing))
        });
        let (mut listings, mut errors) = (Vec::new(), Vec::new());
        for outcome in futures::future::join_all(asked).await {
            match outcome {
                Ok(listing) => listings.push(listing),
                Err(error) => errors.push(error),
            }
        }
        (listings, errors)
    }

    /// Gets one from the master of this name.
    pub async fn fetch(&self, master: &str, backup: &Backup) -> Result<Snapshot> {
        let ssh = self.0.iter().find(|ssh| ssh.machine().name == master);
        let ssh = ssh.ok_or_else(|| Error::new(format!("{master} can't be reached, and has the snapshot {}", backup.name)))?;
        // A name has nothing in it that a shell would read.
        let name = &backup.name;
        let command = format!("cd {DIR} && cat {name}.json {name}.db.gz && printf 'kup-sent %s\\n' {}", backup.sha256);
        let (got, snapshot) = Receiver::run(ssh, &command, "", TRANSFER).await?;
        if got != *backup {
            return Err(Error::new(format!("the snapshot {name} has changed on {master} in the meantime")).hint("try again"));
        }
        Ok(snapshot)
    }
}

async fn list(ssh: &Ssh) -> Result<Listing> {
    // The last line is the proof that all came: an exit status of 0 is also what a cut link gives.
    let command = format!(
        "cd {DIR} 2> /dev/null || {{ echo kup-listed; exit 0; }}; for file in etcd-*.json; do [ -e \"$file\" ] || continue; \
         stat -c %s \"${{file%.json}}.db.gz\" 2> /dev/null || echo 0; cat \"$file\"; done; echo kup-listed"
    );
    let output = ssh.run(&command, "", LIST).await?;
    let text = output.text();
    let Some(lines) = text.strip_suffix("kup-listed\n") else {
        return Err(Error::new("the list was cut off").why(last_lines(&output.stderr, 3)));
    };
    let mut listing = Listing::default();
    let mut lines = lines.lines();
    while let (Some(size), Some(about)) = (lines.next(), lines.next()) {
        match Backup::parse(about) {
            Ok(backup) if size.parse() == Ok(backup.size) => listing.backups.push(backup),
            Ok(backup) => listing.odd.push(format!("{}: the snapshot beside it is missing, or of another size", backup.name)),
            Err(error) => listing.odd.push(error.what),
        }
    }
    Ok(listing.sorted())
}
