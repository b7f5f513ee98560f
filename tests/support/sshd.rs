//! A real OpenSSH server on loopback, with keys, a port and a few directories of its own. It ends with the test.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kup::machine::ssh::{LoginKey, Ssh};
use kup::machine::{BundleAccess, Machine, Role};
use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};

pub const SOON: Duration = Duration::from_secs(20);

pub struct Server {
    child: Child,
    pub dir: tempfile::TempDir,
    pub port: u16,
    pub host_key: PrivateKey,
    pub login: LoginKey,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn key() -> PrivateKey {
    PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap()
}

pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Server {
    pub fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let (host_key, login) = (key(), key());
        let at = |name: &str| dir.path().join(name);
        write(&at("host"), &host_key.to_openssh(LineEnding::LF).unwrap());
        write(&at("authorized"), &login.public_key().to_openssh().unwrap());
        let login_pem = login.to_openssh(LineEnding::LF).unwrap();
        write(&at("login"), &login_pem);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 50\nLogLevel VERBOSE\nSetEnv HOME={}\n",
            at("host").display(),
            at("authorized").display(),
            // What the start files of whoever runs the tests do and say is no part of them.
            dir.path().display()
        );
        write(&at("config"), &config);
        let log = fs::File::create(at("log")).unwrap();
        // What is written to these directories over SSH is the test's own, and gone with it.
        let hide = "for dir in /opt /var/lib /etc/systemd /run; do mount -t tmpfs tmpfs $dir; done; mkdir -p /run/sshd";
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{hide}; exec /usr/sbin/sshd -D -e -f \"$0\""))
            .arg(at("config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.expect("unshare runs");
        let server = Server { child, dir, port, host_key, login: LoginKey::new(login_pem.as_str()) };
        let until = Instant::now() + SOON;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < until, "sshd (Debian's openssh-server) does not listen: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub fn machine(&self, host_key: &PrivateKey) -> Machine {
        Machine {
            name: "loopback".into(),
            role: Role::Minion,
            address: Ipv4Addr::LOCALHOST,
            ssh_port: self.port,
            user: "root".into(),
            host_key: host_key.public_key().to_openssh().unwrap(),
            bundle: BundleAccess::Sent,
            cloud: None,
        }
    }

    /// The same machine, reached by another port.
    pub fn through(&self, port: u16) -> Machine {
        Machine { ssh_port: port, ..self.machine(&self.host_key) }
    }

    pub async fn connect(&self) -> Ssh {
        Ssh::connect(&self.machine(&self.host_key), &self.login, SOON).await.unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}
