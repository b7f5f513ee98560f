//! A cluster for a test, made and removed by the real binary.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::api::{Api, text};
use super::{Check, LONG};

/// The binary under test.
pub const KUP: &str = env!("CARGO_BIN_EXE_kup");

/// A running cluster. Dropping it, also by a panic, runs `kup down`.
pub struct Cluster {
    pub name: String,
    pub api: Api,
    /// Masters first, by name.
    pub nodes: Vec<Node>,
    /// The container engine's program.
    pub engine: String,
    /// The bundle's directory on this host.
    pub bundle: PathBuf,
    home: Home,
}

/// A machine, as the API knows it.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    pub address: Ipv4Addr,
    pub master: bool,
}

/// The administrator's login, as the kubeconfig has it.
pub struct Login {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

/// What a process gave.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output, if it ended well.
    pub fn ok(self, what: &str) -> Check<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        Err(format!("{what} ended with {:?}:\n{}{}", self.code, self.stdout, self.stderr).into())
    }
}

/// The directories that a user of their own would have; only the cache is shared. Dropping it, also by a panic, runs `kup down`.
pub struct Home {
    dir: tempfile::TempDir,
    cluster: String,
}

impl Home {
    /// For a cluster of this name; what an interrupted run left of it is removed first.
    pub async fn new(cluster: &str) -> Check<Home> {
        let home = Home { dir: tempfile::Builder::new().prefix(cluster).tempdir()?, cluster: cluster.to_owned() };
        home.kup(&["down", "-y", "--name", cluster]).await?.ok("kup down of what was left")?;
        Ok(home)
    }

    /// Runs kup as this user.
    pub async fn kup(&self, args: &[&str]) -> Check<Output> {
        run(&mut self.command(args), None).await
    }

    /// kup as this user, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(KUP);
        command.args(args).envs(self.env()).current_dir(self.dir.path());
        command
    }

    /// The user's home directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn env(&self) -> Vec<(&'static str, PathBuf)> {
        let dir = self.dir.path();
        vec![
            ("HOME", dir.into()),
            ("XDG_STATE_HOME", dir.join("state")),
            ("XDG_CACHE_HOME", cache()),
            ("KUBECONFIG", self.kubeconfig()),
        ]
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut down = std::process::Command::new(KUP);
        down.args(["down", "-y", "--name", &self.cluster]).envs(self.env()).current_dir(self.dir.path());
        match down.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("kup down failed:\n{}", String::from_utf8_lossy(&output.stderr)),
            Err(e) => eprintln!("kup down did not start: {e}"),
        }
    }
}

/// The user's own cache: bundles and node images are big, and keyed by content.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

impl Cluster {
    /// `kup up` with this config. What an interrupted run left of the same name is removed first.
    pub async fn up(name: &str, config: &str) -> Check<Cluster> {
        let home = Home::new(name).await?;
        let file = home.path().join("config.yaml");
        std::fs::write(&file, config)?;
        let file = file.to_string_lossy();
        home.kup(&["up", "--provider", "local", "--name", name, "--raise-limits", "-y", "-f", &file]).await?.ok("kup up")?;

        let kubeconfig = kube::config::Kubeconfig::read_from(home.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
        let api = Api::new(kube::Client::try_from(config)?);
        let nodes = nodes(&api).await?;
        let engine = engine_of(&nodes).await?;
        let version = text(&api.get("/version").await?["gitVersion"]);
        let bundle = home.kup(&["bundle", "path", "--version", version.trim_start_matches('v')]).await?.ok("kup bundle path")?;
        Ok(Cluster { name: name.to_owned(), api, nodes, engine, bundle: bundle.trim().into(), home })
    }

    pub fn masters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.master)
    }

    pub fn minions(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| !n.master)
    }

    /// The first master.
    pub fn master(&self) -> &Node {
        &self.nodes[0]
    }

    /// The directories of this cluster's user.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// A file for a test's own use.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.dir.path().join(name)
    }

    /// Runs kup as this cluster's user.
    pub async fn kup(&self, args: &[&str]) -> Check<Output> {
        self.home.kup(args).await
    }

    /// The bundle's kubectl, with this cluster's kubeconfig.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bundle.join("bin/kubectl"));
        command.args(args).envs(self.home.env()).current_dir(self.home.dir.path()).kill_on_drop(true);
        command
    }

    pub async fn kubectl(&self, args: &[&str]) -> Check<Output> {
        run(&mut self.kubectl_command(args), None).await
    }

    /// Runs a shell script on a machine, through the engine: it goes in by standard input.
    pub async fn on(&self, node: &Node, script: &str) -> Check<Output> {
        run(Command::new(&self.engine).args(["exec", "-i", &node.name, "sh", "-s"]), Some(script)).await
    }

    /// As [`Cluster::on`], for a script that must succeed: its output.
    pub async fn read(&self, node: &Node, script: &str) -> Check<String> {
        self.on(node, script).await?.ok(&format!("`{script}` on {}", node.name))
    }

    /// Asks the engine for something.
    pub async fn engine(&self, args: &[&str]) -> Check<String> {
        run(Command::new(&self.engine).args(args), None).await?.ok(&format!("{} {}", self.engine, args.join(" ")))
    }

    /// The login that `kup up` merged into the kubeconfig.
    pub fn login(&self) -> Check<Login> {
        use base64::Engine as _;
        let config: Value = serde_yaml::from_str(&std::fs::read_to_string(self.home.kubeconfig())?)?;
        let pem = |pointer: &str| -> Check<String> {
            let data = config.pointer(pointer).ok_or_else(|| format!("the kubeconfig has no {pointer}"))?;
            Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text(data))?)?)
        };
        Ok(Login {
            ca_pem: pem("/clusters/0/cluster/certificate-authority-data")?,
            cert_pem: pem("/users/0/user/client-certificate-data")?,
            key_pem: pem("/users/0/user/client-key-data")?,
        })
    }
}

async fn nodes(api: &Api) -> Check<Vec<Node>> {
    let mut nodes = Vec::new();
    for node in api.list("/api/v1/nodes").await? {
        let addresses = node["status"]["addresses"].as_array();
        let address = addresses.into_iter().flatten().find(|a| a["type"] == "InternalIP").ok_or("a Node has no address")?;
        nodes.push(Node {
            name: text(&node["metadata"]["name"]),
            address: text(&address["address"]).parse()?,
            master: node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] != Value::Null,
        });
    }
    nodes.sort_by(|a, b| (!a.master, &a.name).cmp(&(!b.master, &b.name)));
    Ok(nodes)
}

/// The engine that runs these machines.
async fn engine_of(nodes: &[Node]) -> Check<String> {
    let first = nodes.first().ok_or("the cluster has no nodes")?;
    for engine in ["podman", "docker"] {
        if let Ok(output) = run(Command::new(engine).args(["container", "inspect", &first.name]), None).await
            && output.code == Some(0)
        {
            return Ok(engine.to_owned());
        }
    }
    Err(format!("neither podman nor docker has a container {}", first.name).into())
}

/// Runs a process to its end, within [`LONG`]; it doesn't outlive the test.
pub async fn run(command: &mut Command, input: Option<&str>) -> Check<Output> {
    use tokio::io::AsyncWriteExt as _;
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        pipe.write_all(input.as_bytes()).await?;
    }
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output =
        tokio::time::timeout(2 * LONG, child.wait_with_output()).await.map_err(|_| format!("{program} did not end"))??;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
