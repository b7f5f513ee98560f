//! Rules for registries: mirrors are URLs, logins are whole and never sent where everybody can read them.

use super::Check;
use crate::cluster::problem::quoted;
use crate::cluster::registries::{HIDDEN, Mirror, Registry};
use crate::cluster::schema::{item, join};

/// A place to write instead of the login in plain sight.
const TO_FILE: &str = "write the password itself, or passwordFile with the path of a file that holds it";

impl Check<'_> {
    pub(super) fn registries(&mut self) {
        for (host, registry) in &self.cluster.registries {
            let path = item("registries", host);
            self.mirrors(&path, host, registry);
            self.login(&path, host, registry);
        }
    }

    fn mirrors(&mut self, path: &str, host: &str, registry: &Registry) {
        let path = join(path, "mirrors");
        let mut seen: Vec<Mirror> = Vec::new();
        for text in &registry.mirrors {
            let mirror = match Mirror::parse(text) {
                Ok(mirror) => mirror,
                Err((what, fix)) => {
                    self.problem(&[&path], what, fix);
                    continue;
                }
            };
            if mirror.host == *host && mirror.url == format!("https://{host}") {
                let what = format!("{} is the registry itself, which is asked after its mirrors anyway", quoted(text));
                self.problem(&[&path], what, "remove it".into());
            } else if seen.iter().any(|other| other.url == mirror.url) {
                self.problem(&[&path], format!("{} is named twice", quoted(text)), "keep one of the two".into());
            } else if mirror.is_plain
                && !mirror.is_loopback()
                && let Some((owner, _)) = mirror.settings(&self.cluster.registries).filter(|(_, settings)| settings.has_login())
            {
                let what = format!("{} would be sent the login of {owner}, which everybody on the way can read", quoted(text));
                self.problem(&[&path], what, "write https:// if it can do that, or remove its login".into());
            }
            seen.push(mirror);
        }
    }

    fn login(&mut self, path: &str, host: &str, registry: &Registry) {
        let [username, password, file] = ["username", "password", "passwordFile"].map(|field| join(path, field));
        if !self.readable(&[&username, &password, &file]) {
            return;
        }
        if registry.password.is_some() && registry.password_file.is_some() {
            let what = "the password is given twice, here and by passwordFile".to_owned();
            return self.problem(&[&password], what, "keep one of the two".into());
        }
        let secret = registry.password.as_ref().or(registry.from_file.as_ref());
        let given = if registry.password_file.is_some() { &file } else { &password };
        match &registry.username {
            None if registry.has_login() => {
                let what = format!("a password for {host} without a name to log in with");
                return self.problem(
                    &[given],
                    what,
                    "write `username: …` beside it; registries that only know tokens take any".into(),
                );
            }
            Some(_) if !registry.has_password() => {
                let what = format!("a name to log in to {host} with, but no password");
                return self.problem(&[&username], what, "write `passwordFile: …` beside it".into());
            }
            Some(name) if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) => {
                let what =
                    format!("{} can't be a login's name: it is empty, or has a colon or a control character", quoted(name));
                return self.problem(&[&username], what, "write the name that the registry knows you by".into());
            }
            _ => {}
        }
        // A file that could not be read was already named.
        let Some(secret) = secret.map(|secret| secret.reveal()) else { return };
        if secret.is_empty() {
            self.problem(&[given], "the password is empty".into(), TO_FILE.into());
        } else if secret == HIDDEN {
            let what = format!("`{HIDDEN}` is what `kup config view` shows instead of a password");
            self.problem(&[given], what, TO_FILE.into());
        } else if secret.contains(char::is_control) {
            let what = "the password has a control character or several lines".to_owned();
            self.problem(&[given], what, "write one line".into());
        }
    }
}
