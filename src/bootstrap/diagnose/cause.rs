//! From what a machine says to the one cause that a person should know. Pure.

use k8s_openapi::api::core::v1::Pod;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::seen::{Seen, Unit};

/// A writable file system with less than this many KiB left is full: no unit of ours can do with less.
const FULL: u64 = 1024;
/// A unit that was restarted this often, and isn't up for [`SETTLED`] seconds, keeps failing.
const RESTARTS: u64 = 3;
/// See [`RESTARTS`].
const SETTLED: i64 = 15;

/// Why a machine does not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A certificate's time has not come.
    NotYetValid {
        /// Its file.
        file: String,
        /// From when on it is valid.
        from: String,
        /// What the machine's clock says.
        clock: String,
    },
    /// A certificate's time is over.
    Expired {
        /// Its file.
        file: String,
        /// Until when it was valid.
        until: String,
        /// What the machine's clock says.
        clock: String,
    },
    /// A file system is full.
    DiskFull {
        /// Where it is mounted; none if only a program said so.
        mount: Option<String>,
        /// What is free, or who said what.
        said: String,
    },
    /// A certificate was signed by an authority that its reader does not trust.
    WrongAuthority {
        /// The certificate's file, if it is the machine's own; else it is the API server's.
        file: Option<String>,
        /// What says so.
        said: String,
    },
    /// Another program listens where a unit should.
    PortTaken {
        /// The port.
        port: u16,
        /// Who, if the machine knows.
        by: Option<String>,
    },
    /// A unit ends again and again, or for good.
    Crashed {
        /// Its name.
        unit: String,
        /// How often it was started again.
        restarts: u64,
        /// How it ended.
        ended: String,
        /// Its own last words.
        words: String,
    },
    /// An image is not there and can't be had.
    NoImage {
        /// The image, if it is named.
        image: Option<String>,
        /// What says so.
        said: String,
    },
    /// The machine itself can't be asked.
    Silent {
        /// What came of asking.
        said: String,
    },
    /// The cluster's API can't be reached from the machine.
    ApiUnreachable {
        /// What was tried, and what came of it.
        said: String,
    },
}

impl Cause {
    /// Whether waiting can't help. The others may pass by themselves, and count only if they last.
    pub fn is_certain(&self) -> bool {
        match self {
            Cause::NotYetValid { .. } | Cause::Expired { .. } | Cause::PortTaken { .. } | Cause::Crashed { .. } => true,
            Cause::DiskFull { mount, .. } => mount.is_some(),
            Cause::WrongAuthority { file, .. } => file.is_some(),
            Cause::NoImage { .. } | Cause::ApiUnreachable { .. } | Cause::Silent { .. } => false,
        }
    }

    /// One sentence, with the machine's name in it.
    pub fn sentence(&self, machine: &str) -> String {
        match self {
            Cause::NotYetValid { file, from, clock } => {
                format!(
                    "the certificate {file} on {machine} is not yet valid: it begins at {from}, and the machine's clock says {clock}"
                )
            }
            Cause::Expired { file, until, clock } => {
                format!(
                    "the certificate {file} on {machine} has expired: it ended at {until}, and the machine's clock says {clock}"
                )
            }
            Cause::DiskFull { mount: Some(mount), said } => format!("the disk of {machine} is full: {mount} has {said}"),
            Cause::DiskFull { mount: None, said } => format!("a disk of {machine} is full: {said}"),
            Cause::WrongAuthority { file: Some(file), said } => {
                format!("the certificate {file} on {machine} was signed by an authority that this cluster does not trust: {said}")
            }
            Cause::WrongAuthority { file: None, said } => {
                format!("{machine} does not trust the authority that signed the API server's certificate: {said}")
            }
            Cause::PortTaken { port, by: Some(by) } => format!("port {port} of {machine} is taken by {by}"),
            Cause::PortTaken { port, by: None } => format!("port {port} of {machine} is taken by another program"),
            Cause::Crashed { unit, restarts, ended, words } => {
                let often = match restarts {
                    0 => String::new(),
                    1 => " and was started again once".to_owned(),
                    n => format!(" and was started again {n} times"),
                };
                let words = if words.is_empty() { "it said nothing".to_owned() } else { format!("its last words are:\n{words}") };
                let word = if *restarts == 0 { "failed" } else { "keeps failing" };
                format!("{unit} on {machine} {word}: it ended with {ended}{often}; {words}")
            }
            Cause::NoImage { image: Some(image), said } => {
                format!("{machine} does not have the image {image} and can't get it: {said}")
            }
            Cause::NoImage { image: None, said } => format!("{machine} does not have an image and can't get it: {said}"),
            Cause::Silent { said } => format!("{machine} does not answer on SSH: {said}"),
            Cause::ApiUnreachable { said } => format!("{machine} can't reach the cluster's API: {said}"),
        }
    }

    /// What to type.
    pub fn hint(&self, machine: &str) -> String {
        match self {
            // What the kubelet renews itself is left alone by `up`, unless it is gone.
            Cause::NotYetValid { file, .. } | Cause::Expired { file, .. } | Cause::WrongAuthority { file: Some(file), .. }
                if file.ends_with(".pem") =>
            {
                format!("`kup ssh {machine} -- rm {file}`, then `kup up`: it gives the machine a new one")
            }
            Cause::NotYetValid { .. } | Cause::Expired { .. } => {
                format!("compare the clocks: `date -u` here and `kup ssh {machine} -- date -u`; set the wrong one, then `kup up`")
            }
            Cause::DiskFull { mount, .. } => {
                let mount = mount.as_deref().unwrap_or("/");
                format!(
                    "`kup ssh {machine} -- du -xh --max-depth=3 {mount} | sort -h | tail` shows by what; make room, then `kup up`"
                )
            }
            Cause::WrongAuthority { .. } => {
                "if kup's state directory was changed, put back the one that made the cluster; else `kup down`, then `kup up`"
                    .into()
            }
            Cause::PortTaken { by, .. } => {
                format!("stop {} there, then `kup up`", by.as_deref().unwrap_or("that program"))
            }
            Cause::Crashed { unit, .. } => {
                format!("`kup ssh {machine} -- journalctl -u {unit} -e` shows more; `kup up` tries again")
            }
            Cause::NoImage { .. } => {
                "`kup image load FILE` puts an image on all nodes; the system's own are in the bundle: `kup bundle path coredns`"
                    .into()
            }
            Cause::Silent { .. } => {
                format!("`kup logs {machine}` shows its console; `kup up` starts or makes again what is gone")
            }
            Cause::ApiUnreachable { .. } => {
                format!(
                    "look for a packet filter or a route between {machine} and the masters; `kup status` shows whether they are well"
                )
            }
        }
    }
}

/// The cause nearest to the root of what was seen, if there is one; a certain one before all others.
///
/// `before` is an earlier look of the same wait: with it, only what failed in between counts as failing again and again. `ended` says
/// that the wait is over and something failed to start: then a unit that does not run is a cause, however often it was tried.
pub fn judge(seen: &Seen, before: Option<&Seen>, ended: bool) -> Option<Cause> {
    let all =
        [full_disk(seen), certificate(seen), authority(seen), port(seen), crash(seen, before, ended), image(seen), api(seen)];
    let mut all: Vec<Cause> = all.into_iter().flatten().collect();
    // Stable: what was looked for first is nearer to the root.
    all.sort_by_key(|c| !c.is_certain());
    all.into_iter().next()
}

fn full_disk(seen: &Seen) -> Option<Cause> {
    if let Some(disk) = seen.disks.iter().filter(|d| d.free < FULL.min(d.size / 4)).min_by_key(|d| d.free) {
        let said = format!("{} left of {}", amount(disk.free), amount(disk.size));
        return Some(Cause::DiskFull { mount: Some(disk.mount.clone()), said });
    }
    // inotify says the same of its own limits.
    let line = told(seen, |line| line.contains("no space left") && !line.contains("inotify"))?;
    Some(Cause::DiskFull { mount: None, said: line })
}

fn amount(kib: u64) -> String {
    if kib < 10 * 1024 { format!("{kib} KiB") } else { format!("{} MiB", kib / 1024) }
}

/// The last line that names a cause, with its unit.
fn told(seen: &Seen, fits: impl Fn(&str) -> bool) -> Option<String> {
    let (unit, line) = seen.telling.iter().rev().find(|(_, line)| fits(&line.to_lowercase()))?;
    Some(format!("{unit} says: {line}"))
}

/// Whether a server complains of somebody who called it: that is the caller's trouble.
fn of_a_caller(line: &str) -> bool {
    line.contains("unable to authenticate the request")
        || line.contains("tls handshake error")
        || line.contains("rejected connection")
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// Calls `f` with each certificate, until it finds something.
fn each<T>(seen: &Seen, f: impl Fn(&str, &X509Certificate<'_>) -> Option<T>) -> Option<T> {
    seen.certificates.iter().find_map(|(path, pem)| {
        x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes())
            .filter_map(Result::ok)
            .find_map(|block| f(path, &block.parse_x509().ok()?))
    })
}

fn certificate(seen: &Seen) -> Option<Cause> {
    let now = seen.now?;
    each(seen, |path, certificate| {
        let (from, until) = (certificate.validity().not_before.to_datetime(), certificate.validity().not_after.to_datetime());
        let (file, clock) = (path.to_owned(), rfc3339(now));
        if now < from {
            return Some(Cause::NotYetValid { file, from: rfc3339(from), clock });
        }
        (now > until).then(|| Cause::Expired { file, until: rfc3339(until), clock })
    })
}

fn authority(seen: &Seen) -> Option<Cause> {
    let trusted: Vec<Vec<u8>> = seen
        .certificates
        .iter()
        .filter(|(path, _)| path.ends_with("-ca.crt"))
        .flat_map(|(_, pem)| x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok))
        .filter_map(|block| {
            let certificate = block.parse_x509().ok()?;
            certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        })
        .collect();
    let stranger = each(seen, |path, certificate| {
        let by = certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0.to_vec()),
            _ => None,
        })?;
        let known = trusted.is_empty() || trusted.contains(&by) || certificate.is_ca();
        (!known).then(|| Cause::WrongAuthority {
            file: Some(path.to_owned()),
            said: format!("its issuer is `{}`, but not the one whose certificate lies on the machine", certificate.issuer()),
        })
    });
    if stranger.is_some() {
        return stranger;
    }
    if let Some(probe) = seen.api.as_ref().filter(|p| p.exit == 60) {
        return Some(Cause::WrongAuthority { file: None, said: probe.words.clone() });
    }
    told(seen, |line| line.contains("x509: certificate signed by unknown authority") && !of_a_caller(line))
        .map(|said| Cause::WrongAuthority { file: None, said })
}

fn port(seen: &Seen) -> Option<Cause> {
    let (_, line) = seen.telling.iter().rev().find(|(_, line)| line.to_lowercase().contains("address already in use"))?;
    // "listen tcp 0.0.0.0:6443: bind: address already in use"
    let before = line.to_lowercase().find(": bind:").and_then(|at| line.get(..at).map(str::to_owned))?;
    let port: u16 = before.rsplit(':').next()?.parse().ok()?;
    let holder = seen.listeners.iter().find(|(local, _)| local.rsplit(':').next() == Some(port.to_string().as_str()));
    Some(Cause::PortTaken { port, by: holder.and_then(|(_, who)| process(who)) })
}

/// `users:(("socat",pid=12,fd=5))` in words.
fn process(who: &str) -> Option<String> {
    let (name, rest) = who.split_once("((\"")?.1.split_once('"')?;
    let pid: String = rest.split_once("pid=")?.1.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("`{name}` (process {pid})"))
}

fn image(seen: &Seen) -> Option<Cause> {
    let (_, line) = seen.telling.iter().rev().find(|(_, line)| {
        let low = line.to_lowercase();
        low.contains("sandbox image") || low.contains("errimage") || low.contains("failed to pull")
    })?;
    Some(Cause::NoImage { image: named_image(line), said: line.trim().to_owned() })
}

/// The image in a line like `failed to pull image \"registry.k8s.io/pause:3.10\": …`.
fn named_image(line: &str) -> Option<String> {
    let line = line.replace('\\', "");
    let after = line.split_once("image \"")?.1;
    after.split_once('"').map(|(name, _)| name.to_owned()).filter(|name| !name.is_empty() && !name.contains(' '))
}

fn crash(seen: &Seen, before: Option<&Seen>, ended: bool) -> Option<Cause> {
    let failing = |name: &str, unit: &Unit| fails(unit, before.and_then(|b| b.units.get(name))) || (ended && did_not_start(unit));
    let (name, unit) = seen.units.iter().find(|(name, unit)| failing(name, unit))?;
    let journal = seen.journals.get(name).map(Vec::as_slice).unwrap_or_default();
    // systemd's own words about the unit tell nothing that is not said here.
    let own: Vec<&str> = journal.iter().map(String::as_str).filter(|l| !is_systemds(l, name)).collect();
    let words = own.get(own.len().saturating_sub(5)..).unwrap_or_default().join("\n");
    let ended = match unit.status.as_str() {
        "" | "0" => unit.result.clone(),
        status => format!("exit status {status}"),
    };
    Some(Cause::Crashed { unit: name.clone(), restarts: unit.restarts, ended, words })
}

fn fails(unit: &Unit, before: Option<&Unit>) -> bool {
    if unit.active == "failed" {
        return true;
    }
    let again = unit.restarts.saturating_sub(before.map_or(0, |b| b.restarts));
    let settled = unit.active == "active" && unit.up_seconds.is_some_and(|s| s >= SETTLED);
    match before {
        // Twice within one wait, and not the tail of an earlier trouble that is over.
        Some(_) => again >= 2 && unit.restarts >= RESTARTS && !settled,
        None => again >= RESTARTS && !settled && unit.sub == "auto-restart",
    }
}

fn did_not_start(unit: &Unit) -> bool {
    unit.active != "active" && (unit.result != "success" || unit.restarts > 0)
}

fn is_systemds(line: &str, unit: &str) -> bool {
    line.starts_with(&format!("{unit}: "))
        || ["Started ", "Starting ", "Stopped ", "Stopping ", "Failed to start ", "Finished "].iter().any(|w| line.starts_with(w))
}

fn api(seen: &Seen) -> Option<Cause> {
    let probe = seen.api.as_ref()?;
    if probe.exit != 0 {
        return Some(Cause::ApiUnreachable { said: probe.words.clone() });
    }
    (probe.status == 401).then(|| Cause::ApiUnreachable { said: "it refuses the kubelet's login (401 Unauthorized)".into() })
}

/// A pod that waits for an image that its node doesn't have: the node and the cause.
pub fn pod(pods: &[Pod]) -> Option<(String, Cause)> {
    pods.iter().find_map(|pod| {
        let node = pod.spec.as_ref()?.node_name.clone()?;
        let waiting = pod.status.as_ref()?.container_statuses.iter().flatten().find_map(|c| {
            let waiting = c.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let fits = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"].contains(&reason);
            fits.then(|| {
                let said = format!("{reason}: {}", waiting.message.as_deref().unwrap_or("no message"));
                Cause::NoImage { image: Some(c.image.clone()), said }
            })
        })?;
        Some((node, waiting))
    })
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
