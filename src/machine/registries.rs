//! How a machine's containerd pulls from registries: a directory for each host, read at every pull, so that nothing restarts.
//!
//! Logins are sent as a header that belongs to one host. containerd's own `registry.configs` would want a restart and is deprecated,
//! and a credential provider of the kubelet would hand a registry's login to its mirrors too.

use serde::Serialize;

use super::files::{File, FileKind};
use crate::cluster::Cluster;
use crate::cluster::registries::{Mirror, Registry};
use crate::error::{Error, Result};
use crate::templates;

/// Where containerd looks (`config_path` in its configuration).
const DIR: &str = "/etc/containerd/certs.d";

/// One place to pull from, as the template sees it.
#[derive(Serialize)]
struct Source {
    url: String,
    ca: Option<String>,
    authorization: Option<String>,
    is_api_root: bool,
}

impl Source {
    fn of(url: String, is_api_root: bool, host: &str, registry: Option<&Registry>) -> Source {
        Source {
            url,
            ca: registry.and_then(|r| r.ca_pem.as_ref()).map(|_| ca_path(host)),
            authorization: registry.and_then(Registry::authorization),
            is_api_root,
        }
    }
}

/// All files of all registries.
pub(super) fn files(cluster: &Cluster) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for (host, registry) in &cluster.registries {
        let mut mirrors = Vec::new();
        for text in &registry.mirrors {
            let mirror = Mirror::parse(text).map_err(|(what, fix)| Error::usage(what).hint(fix))?;
            let (owner, settings) = mirror.settings(&cluster.registries).unzip();
            mirrors.push(Source::of(
                mirror.url.clone(),
                mirror.is_api_root,
                owner.map_or("", String::as_str),
                // A plain connection has no certificate, and gets no login.
                settings.filter(|_| !mirror.is_plain || mirror.is_loopback()),
            ));
        }
        let registry_itself = Source::of(url(host), false, host, Some(registry));
        let contents = templates::render(
            "containerd/hosts.toml",
            minijinja::context! {
                registry => minijinja::value::Serde(&registry_itself),
                mirrors => minijinja::value::Serde(&mirrors),
            },
        )?;
        let mut file = |path: String, mode: u32, contents: &str| {
            let contents = contents.as_bytes().to_vec();
            files.push(File { path, mode, contents, kind: FileKind::Keep, units: Vec::new() });
        };
        if let Some(pem) = &registry.ca_pem {
            file(ca_path(host), 0o644, pem);
        }
        // Whether it has a login is nobody's business either.
        file(format!("{}/hosts.toml", directory(host)), 0o600, &contents);
    }
    Ok(files)
}

/// Where a registry answers, if no mirror does.
fn url(host: &str) -> String {
    match host {
        "docker.io" => "https://registry-1.docker.io".into(),
        host => format!("https://{host}"),
    }
}

/// containerd's name for a host's directory: a colon would end an entry in lists of directories.
fn directory(host: &str) -> String {
    match host.split_once(':') {
        Some((name, port)) => format!("{DIR}/{name}_{port}_"),
        None => format!("{DIR}/{host}"),
    }
}

fn ca_path(host: &str) -> String {
    format!("{}/ca.crt", directory(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(yaml: &str) -> Vec<File> {
        let mut cluster = crate::cluster::defaults::cluster().unwrap();
        cluster.registries = serde_yaml::from_str(yaml).unwrap();
        for (host, registry) in &mut cluster.registries {
            registry.ca_pem = registry.ca.as_ref().map(|_| format!("CERTIFICATE {host}\n"));
        }
        files(&cluster).unwrap()
    }

    #[test]
    fn golden_registries() {
        let yaml = "
docker.io:
  mirrors: ['https://mirror.example.com:5000', 'https://harbor.example.com/v2/hub', 'http://127.0.0.1:5001', 'http://cache.example.com:3142']
  username: me
  password: docker-password
harbor.example.com: { ca: x }
mirror.example.com:5000: { ca: x, username: puller, password: 'a\"b\\c<é>' }
registry.example.com:5000: { username: other, password: other-password }
";
        let one = |f: &File| format!("##### {} {:04o} {:?}\n{}", f.path, f.mode, f.units, String::from_utf8_lossy(&f.contents));
        insta::assert_snapshot!(rendered(yaml).iter().map(one).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_login_goes_to_its_own_host_alone() {
        let yaml = "
a.example.com: { mirrors: ['https://m.example.com', 'http://p.example.com'], username: a, password: password-of-a }
m.example.com: { username: m, password: password-of-m }
p.example.com:80: { username: p, password: password-of-p }
";
        let files = rendered(yaml);
        let text =
            |host: &str| String::from_utf8(files.iter().find(|f| f.path.contains(host)).unwrap().contents.clone()).unwrap();
        let sections = text("/a.example.com/");
        let (own, mirrors) = sections.split_once("[host.").unwrap();
        let login = |name: &str| {
            let login: Registry = serde_yaml::from_str(&format!("{{ username: {name}, password: password-of-{name} }}")).unwrap();
            login.authorization().unwrap()
        };
        assert!(own.contains(&login("a")) && !mirrors.contains(&login("a")));
        assert!(mirrors.contains(&login("m")) && !own.contains(&login("m")));
        assert!(!sections.contains(&login("p")), "a login is written beside a plain connection:\n{sections}");
        assert!(files.iter().filter(|f| f.path.ends_with("hosts.toml")).all(|f| f.mode == 0o600));
    }
}
