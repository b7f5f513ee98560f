//! Registries that images are pulled from: their hosts, mirrors, authorities and logins.
//!
//! Everything is kept by host: what a mirror's own certificate and login are is said under the mirror's own host, so that no login
//! is ever sent to another host than the one it was written for.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::problem::quoted;

/// What is shown instead of a password.
pub const HIDDEN: &str = "[hidden]";

/// The largest file with certificates that is read, in bytes: several times the whole list of public authorities.
const LARGEST_CA: u64 = 1 << 20;

/// The largest file with a password that is read, in bytes: the longest tokens of cloud registries have some 4 KiB.
const LARGEST_PASSWORD: u64 = 16 << 10;

/// How images are pulled from one registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Registry {
    /// URLs that are tried, in this order, before the registry itself. One with a path that begins with /v2 names the root of its API.
    #[schemars(extend("examples" = [["https://mirror.example.com:5000"]]))]
    pub mirrors: Vec<String>,
    /// File with the certificates (PEM) of the authorities that may sign its certificate, beside the machine's own; relative to this file.
    pub ca: Option<PathBuf>,
    /// Name to log in with.
    pub username: Option<String>,
    /// Password or token to log in with. A passwordFile keeps it out of this file.
    pub password: Option<Secret>,
    /// File with the password, relative to this file; a newline at its end does not count.
    pub password_file: Option<PathBuf>,
    /// What the file `ca` held when the config was loaded.
    #[serde(skip)]
    pub ca_pem: Option<String>,
    /// What the file `passwordFile` held when the config was loaded.
    #[serde(skip)]
    pub from_file: Option<Secret>,
}

impl Registry {
    /// The value of the HTTP header `Authorization` by which it is logged in to, if it is.
    pub fn authorization(&self) -> Option<String> {
        let secret = self.password.as_ref().or(self.from_file.as_ref())?;
        let login = format!("{}:{}", self.username.as_ref()?, secret.reveal());
        Some(format!("Basic {}", STANDARD.encode(login)))
    }

    /// Whether anything of a login is given.
    pub fn has_login(&self) -> bool {
        self.username.is_some() || self.has_password()
    }

    /// Whether a password is given, here or in a file.
    pub fn has_password(&self) -> bool {
        self.password.is_some() || self.password_file.is_some()
    }

    /// Every text that must not be shown: the password, and the login as it is sent.
    pub fn secrets(&self) -> Vec<String> {
        let password = self.password.iter().chain(&self.from_file).map(|s| s.reveal().to_owned());
        password.chain(self.authorization().and_then(|a| a.strip_prefix("Basic ").map(str::to_owned))).collect()
    }

    /// Takes in the files that a saved config names, as far as they are still there.
    pub fn reread(&mut self) {
        // Whoever needs them whole loads the config anew, which names what is wrong.
        let _ = self.read_files();
    }

    /// Reads the files that it names, whose paths must be absolute by now. Returns each field that is wrong, with what and the fix.
    pub(super) fn read_files(&mut self) -> Vec<(&'static str, String, String)> {
        let mut wrong = Vec::new();
        if let Some(path) = &self.ca {
            match read(path, LARGEST_CA).and_then(|text| certificates(path, &text).map(|()| text)) {
                Ok(text) => self.ca_pem = Some(text),
                Err((what, fix)) => wrong.push(("ca", what, fix)),
            }
        }
        if let Some(path) = &self.password_file {
            match read(path, LARGEST_PASSWORD) {
                Ok(text) => {
                    let line = text.strip_suffix('\n').unwrap_or(&text);
                    self.from_file = Some(Secret(line.strip_suffix('\r').unwrap_or(line).to_owned()));
                }
                Err((what, fix)) => wrong.push(("passwordFile", what, fix)),
            }
        }
        wrong
    }
}

/// A small text file, or why there is none and what to do.
fn read(path: &Path, largest: u64) -> Result<String, (String, String)> {
    let shown = path.display();
    let cannot =
        |why: &dyn fmt::Display| (format!("cannot read {shown}: {why}"), "write the path of a file that you may read".into());
    // Opening a pipe would wait for its writer.
    match path.metadata() {
        Err(e) => return Err(cannot(&e)),
        Ok(meta) if !meta.is_file() => return Err(cannot(&"it is not a regular file")),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(largest + 1).read_to_end(&mut bytes)).map_err(|e| cannot(&e))?;
    if bytes.len() as u64 > largest {
        return Err(cannot(&format!("it is larger than {} KiB", largest >> 10)));
    }
    String::from_utf8(bytes).map_err(|_| cannot(&"it is not text"))
}

/// Whether a text holds certificates and nothing that must stay secret: it becomes a file that everybody on a machine may read.
fn certificates(path: &Path, text: &str) -> Result<(), (String, String)> {
    let shown = path.display();
    let fix = "write the path of a PEM file: one or more blocks that begin with -----BEGIN CERTIFICATE-----".to_owned();
    let mut count = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|e| (format!("{shown} is no PEM file: {e}"), fix.clone()))?;
        if block.label.contains("PRIVATE KEY") {
            let fix =
                "write the path of a file with the certificate alone: it becomes readable for everybody on the machines".into();
            return Err((format!("{shown} holds a private key"), fix));
        }
        if block.label != "CERTIFICATE" {
            return Err((format!("{shown} holds something else than certificates: {}", quoted(&block.label)), fix));
        }
        block.parse_x509().map_err(|e| (format!("{shown} holds a certificate that can't be read: {e}"), fix.clone()))?;
        count += 1;
    }
    if count == 0 { Err((format!("{shown} holds no certificate"), fix)) } else { Ok(()) }
}

/// A password: shown to nobody by accident.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "String", extend("format" = "password"))]
pub struct Secret(String);

impl Secret {
    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Hidden: whoever must have the password asks for it by [`Secret::reveal`].
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Why a word is no registry's host, and what to write.
pub fn host_fault(host: &str) -> Option<(String, String)> {
    let shown = quoted(host);
    let bare = host.split_once("://").map_or(host, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or_default();
    if bare != host {
        return Some((format!("{shown} is more than a registry's host"), format!("write {}", quoted(bare))));
    }
    let example = || "write a host as images' names begin with it, like registry.example.com or 192.168.0.7:5000".to_owned();
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    if port.is_some_and(|port| port.starts_with('0') || port.parse::<u16>().is_err()) {
        return Some((format!("{shown} has no port from 1 to 65535 behind its colon"), example()));
    }
    if host.chars().any(|c| c.is_ascii_uppercase()) {
        return Some((
            format!("{shown} has capital letters, which no image's name has"),
            format!("write {}", quoted(&host.to_lowercase())),
        ));
    }
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() > 253 || !name.split('.').all(good) {
        return Some((format!("{shown} is no registry's host"), example()));
    }
    if matches!(name, "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" | "registry.hub.docker.com") {
        return Some((format!("images of Docker Hub are never looked for at {shown}"), "write `docker.io`".into()));
    }
    if port.is_none() && !name.contains('.') && name != "localhost" {
        let what = format!("{shown} can't be a registry's host: without a dot or a port, an image's name means Docker Hub");
        return Some((what, "write hosts right below `registries:`, and their mirrors, ca and login below each of them".into()));
    }
    None
}

/// A mirror's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// As it was written, in normal form and without a slash at its end.
    pub url: String,
    /// Its host and port, as they stand in `registries`; without a port where that is the scheme's own.
    pub host: String,
    /// Whether what is sent to it can be read on the way.
    pub is_plain: bool,
    /// Whether the path is already the root of its API, so that containerd must not add `/v2`.
    pub is_api_root: bool,
}

impl Mirror {
    /// From its URL.
    ///
    /// # Errors
    /// What is wrong, and the fix.
    pub fn parse(text: &str) -> Result<Mirror, (String, String)> {
        let shown = quoted(text);
        let example = || "write a URL like https://mirror.example.com:5000".to_owned();
        if !text.contains("://") {
            let meant = format!("https://{text}");
            let fix = if Mirror::parse(&meant).is_ok() { format!("write {meant}") } else { example() };
            return Err((format!("{shown} is no URL"), fix));
        }
        let url = Url::parse(text).map_err(|e| (format!("{shown} is no URL: {e}"), example()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err((format!("{shown} is neither https nor http"), example()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // Not quoted: there is a login in it.
            let fix = "give username and passwordFile below the mirror's own host in `registries`".to_owned();
            return Err(("a mirror's URL holds a login, which everybody may read there".into(), fix));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err((format!("{shown} has more than a host and a path"), example()));
        }
        let name = url.host_str().unwrap_or_default();
        let host = url.port().map_or(name.to_owned(), |port| format!("{name}:{port}"));
        if name.contains(['[', '%']) || host_fault(&format!("{name}:1")).is_some() {
            return Err((format!("{shown} has a host that kup can't use"), example()));
        }
        Ok(Mirror {
            url: url.as_str().trim_end_matches('/').to_owned(),
            host,
            is_plain: url.scheme() == "http",
            is_api_root: url.path() == "/v2" || url.path().starts_with("/v2/"),
        })
    }

    /// Whether it is this host itself, so that nothing it is sent leaves the machine.
    pub fn is_loopback(&self) -> bool {
        let name = self.host.split(':').next().unwrap_or_default();
        name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    }

    /// What is said of its host.
    pub fn settings<'a>(&self, registries: &'a BTreeMap<String, Registry>) -> Option<(&'a String, &'a Registry)> {
        let own = if self.is_plain { ":80" } else { ":443" };
        registries.get_key_value(&self.host).or_else(|| registries.get_key_value(&format!("{}{own}", self.host)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_what_images_names_begin_with() {
        for good in ["registry.example.com", "docker.io", "localhost", "localhost:5001", "registry:5000", "10.0.0.7:443", "a-b.c"]
        {
            assert_eq!(host_fault(good), None, "{good}");
        }
        for (bad, fix) in [
            ("https://registry.example.com", "`registry.example.com`"),
            ("registry.example.com/v2", "`registry.example.com`"),
            ("Registry.Example.com", "`registry.example.com`"),
            ("index.docker.io", "`docker.io`"),
            ("mirrors", "below each"),
            ("a.b:0", "like"),
            ("a.b:65536", "like"),
            ("a.b:", "like"),
            ("a..b", "like"),
            ("-a.b", "like"),
            ("a.b]", "like"),
            ("a b.c", "like"),
            ("[::1]:5000", "like"),
            ("", "like"),
        ] {
            let (what, told) = host_fault(bad).expect(bad);
            assert!(told.contains(fix), "{bad}: {what}: {told}");
        }
    }

    #[test]
    fn mirrors_are_urls_and_hold_no_login() {
        let mirror = Mirror::parse("https://Mirror.example.com:443/v2/hub/").unwrap();
        assert_eq!((mirror.url.as_str(), mirror.host.as_str()), ("https://mirror.example.com/v2/hub", "mirror.example.com"));
        assert!(mirror.is_api_root && !mirror.is_plain);
        assert!(!Mirror::parse("https://m.example.com/v22").unwrap().is_api_root);
        let plain = Mirror::parse("http://127.0.0.1:5000").unwrap();
        assert!(plain.is_plain && plain.is_loopback());
        assert!(!Mirror::parse("http://127.example.com").unwrap().is_loopback());
        for bad in [
            "",
            "mirror:5000",
            "ftp://m",
            "https://",
            "https://m?x=1",
            "https://m/#x",
            "https://[::1]:1",
            "https://m m",
            "https://m\"x",
        ] {
            assert!(Mirror::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Mirror::parse("m.example.com:5000").unwrap_err().1, "write https://m.example.com:5000");
        let (what, fix) = Mirror::parse("https://puller:hunter22@m.example.com").unwrap_err();
        assert!(!what.contains("hunter22") && !fix.contains("hunter22"), "{what} {fix}");
    }

    #[test]
    fn a_mirrors_settings_are_those_of_its_host() {
        let registries = ["m.example.com", "m.example.com:5000", "s.example.com:443", "p.example.com:80"];
        let registries = registries.iter().map(|host| ((*host).to_owned(), Registry::default())).collect();
        for (url, host) in [
            ("https://m.example.com/x", Some("m.example.com")),
            ("https://m.example.com:5000", Some("m.example.com:5000")),
            ("https://s.example.com", Some("s.example.com:443")),
            ("http://s.example.com", None),
            ("http://p.example.com", Some("p.example.com:80")),
            ("https://p.example.com:5000", None),
        ] {
            let found = Mirror::parse(url).unwrap();
            assert_eq!(found.settings(&registries).map(|(host, _)| host.as_str()), host, "{url}");
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let text = "username: puller\npassword: hunter22";
        let registry: Registry = serde_yaml::from_str(text).unwrap();
        assert_eq!(registry.authorization().as_deref(), Some("Basic cHVsbGVyOmh1bnRlcjIy"));
        assert_eq!(registry.secrets(), ["hunter22", "cHVsbGVyOmh1bnRlcjIy"]);
        for shown in
            [format!("{registry:?}"), serde_yaml::to_string(&registry).unwrap(), serde_json::to_string(&registry).unwrap()]
        {
            assert!(!shown.contains("hunter22") && shown.contains(HIDDEN), "{shown}");
        }
    }
}
