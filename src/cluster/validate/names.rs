//! Rules for names: they become parts of host names, container names, file names, DNS names and arguments.

use std::path::Path;

use super::Check;
use crate::cluster::problem::quoted;

/// Room for `-minion-65535` within a DNS label (63), and for prefixes of what is named after the cluster.
const LONGEST_NAME: usize = 40;

/// What a DNS name (253) leaves beside `<service>.<namespace>.svc.` with two labels of 63.
const LONGEST_DOMAIN: usize = 253 - 63 - 1 - 63 - ".svc.".len();

/// The longest name and tag that registries take.
const LONGEST_IMAGE: usize = 255 + 128;

impl Check<'_> {
    pub(super) fn names(&mut self) {
        let name = &self.cluster.name;
        if let Some(why) = label_fault(name, LONGEST_NAME) {
            let fix = match suggestion(name) {
                Some(better) => format!("use lower-case letters, digits and hyphens, for example `{better}`"),
                None => "use lower-case letters, digits and hyphens, for example `kubernetes`".into(),
            };
            self.problem(&["name"], format!("{} {why}", quoted(name)), fix);
        }
        let domain = &self.cluster.network.domain;
        let fault = if domain.len() > LONGEST_DOMAIN {
            Some(format!("is longer than {LONGEST_DOMAIN} characters, which Services' names would not fit into"))
        } else {
            domain
                .split('.')
                .find_map(|label| label_fault(label, 63))
                .map(|why| if domain.contains('.') { format!("has a part that {why}") } else { why })
        };
        if let Some(why) = fault {
            let fix = "write a DNS domain in lower case, without a dot at its ends, like cluster.local".to_owned();
            self.problem(&["network.domain"], format!("{} {why}", quoted(domain)), fix);
        }
        if let Some(image) = &self.cluster.local.image
            && !is_image(image)
        {
            let fix = "write an image like registry.example.com/kup-node:1, or remove the line".to_owned();
            self.problem(&["local.image"], format!("{} is no name of an image", quoted(image)), fix);
        }
        if let Some(key) = &self.cluster.local.ssh_key {
            self.path_of_file("local.sshKey", key);
        }
    }

    pub(super) fn path_of_file(&mut self, path: &str, key: &Path) {
        let text = key.to_string_lossy();
        if text.is_empty() || text.contains(char::is_control) {
            let fix = "write the path of a private key, or remove the line".to_owned();
            self.problem(&[path], format!("{} is no path of a file", quoted(&text)), fix);
        }
    }
}

/// Why a word is no name of a group, and what to write: names of AWS's things are made of it.
pub(in crate::cluster) fn group_fault(name: &str) -> Option<(String, String)> {
    let why = label_fault(name, LONGEST_NAME)?;
    let better = suggestion(name).unwrap_or_else(|| "web".into());
    let fix = format!("use lower-case letters, digits and hyphens, for example `{better}`");
    Some((format!("the group {} {why}", quoted(name)), fix))
}

/// Why a text is no DNS label (RFC 1123) in lower case of at most `longest` characters.
pub(super) fn label_fault(label: &str, longest: usize) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if label.is_empty() {
        return Some("is empty".into());
    }
    if let Some(c) = label.chars().find(|c| !allowed(*c)) {
        return Some(match c {
            'A'..='Z' => format!("has the capital letter {}", quoted(&c.to_string())),
            c => format!("has the character {}", quoted(&c.to_string())),
        });
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Some("starts or ends with a hyphen".into());
    }
    (label.len() > longest).then(|| format!("is longer than {longest} characters"))
}

/// A good name that looks like a bad one.
fn suggestion(name: &str) -> Option<String> {
    let mut better = String::new();
    for c in name.chars().take(LONGEST_NAME) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => better.push(c),
            _ if better.ends_with('-') || better.is_empty() => {}
            _ => better.push('-'),
        }
    }
    let better = better.trim_end_matches('-');
    (!better.is_empty()).then(|| better.to_owned())
}

/// Whether a text can be an image's name: it starts with a letter or digit, so that no engine takes it for a flag.
fn is_image(image: &str) -> bool {
    image.len() <= LONGEST_IMAGE
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && image.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@'))
}
