//! An emulated AWS whose instances are machines, a user of it, and what both say.

use std::path::{Path, PathBuf};

use aws_sdk_ec2::types::{Filter, Instance};
use serde_json::Value;
use tokio::process::Command;

use crate::support::Check;
use crate::support::api::Api;
use crate::support::cluster::{KUP, Output, cache, run};

/// The region of tests.
pub const REGION: &str = "us-west-2";

/// An emulator of this test's own. Dropping it, also by a panic, stops it, and with it all machines.
pub struct World {
    port: u16,
    home: tempfile::TempDir,
    /// What an AWS client needs to know.
    aws: Vec<(String, String)>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/aws-emulator")
}

impl World {
    /// Starts one on a free port.
    pub async fn open() -> Check<World> {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let home = tempfile::Builder::new().prefix("kup-test-aws").tempdir()?;
        let mut world = World { port, home, aws: Vec::new() };
        world.script(&["start", "--machines"]).await?;
        let said = world.script(&["env"]).await?;
        let set = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        world.aws = said.lines().filter_map(set).collect();
        Ok(world)
    }

    async fn script(&self, words: &[&str]) -> Check<String> {
        let port = self.port.to_string();
        run(Command::new(script()).args(words).args(["--port", &port]), None)
            .await?
            .ok(&format!("aws-emulator {}", words.join(" ")))
    }

    /// Runs kup as this user, with directories of their own; only the cache, where the bundle is, is shared.
    pub async fn kup(&self, args: &[&str]) -> Check<Output> {
        run(&mut self.command(args), None).await
    }

    /// kup as this user, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let home = self.home.path();
        let mut command = Command::new(KUP);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.aws.iter().map(|(name, value)| (name, value)));
        command.env("HOME", home).env("XDG_STATE_HOME", home.join("state")).env("XDG_CACHE_HOME", cache());
        command.env("KUBECONFIG", self.kubeconfig()).args(args).current_dir(home);
        command
    }

    /// The cluster's API, as the user's own kubeconfig reaches it.
    pub async fn api(&self) -> Check<Api> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
        Ok(Api::new(kube::Client::try_from(config)?))
    }

    /// The user's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// The host by whose name or address users reach the API.
    pub fn server(&self) -> Check<String> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let server = kubeconfig.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
        let server: http::Uri = server.ok_or("the kubeconfig names no server")?.parse()?;
        Ok(server.host().ok_or("the server has no host")?.to_owned())
    }

    /// Writes a file of the user's; its path.
    pub fn write(&self, name: &str, text: &str) -> Check<String> {
        let path = self.home.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs a shell script in the machine behind an instance, as nobody in AWS could: it goes in by standard input.
    pub async fn on(&self, id: &str, script: &str) -> Check<Output> {
        let machine = format!("kup-aws-{}-{id}", self.port);
        run(Command::new("podman").args(["exec", "-i", &machine, "sh", "-s"]), Some(script)).await
    }

    /// All that is in the account, ids and times included.
    pub async fn dump(&self) -> Check<Value> {
        Ok(serde_json::from_str(&self.script(&["dump"]).await?)?)
    }

    async fn config(&self) -> aws_config::SdkConfig {
        let of = |name: &str| self.aws.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
        let login =
            aws_sdk_ec2::config::Credentials::new(of("AWS_ACCESS_KEY_ID"), of("AWS_SECRET_ACCESS_KEY"), None, None, "test");
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest()).region(aws_config::Region::new(REGION));
        config.endpoint_url(of("AWS_ENDPOINT_URL")).credentials_provider(login).load().await
    }

    /// EC2, as anybody calls it.
    pub async fn ec2(&self) -> aws_sdk_ec2::Client {
        aws_sdk_ec2::Client::new(&self.config().await)
    }

    /// S3, likewise.
    pub async fn s3(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(&self.config().await).force_path_style(true).build())
    }

    /// The running instances of a role.
    pub async fn instances(&self, role: &str) -> Check<Vec<Instance>> {
        let by = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
        let ask = self.ec2().await.describe_instances();
        let seen = ask.filters(by("tag:kup.dev/role", role)).filters(by("instance-state-name", "running")).send().await?;
        Ok(seen.reservations().iter().flat_map(|reservation| reservation.instances()).cloned().collect())
    }

    /// Ends an instance as its owner would in the console.
    pub async fn terminate(&self, id: &str) -> Check {
        self.ec2().await.terminate_instances().instance_ids(id).send().await?;
        Ok(())
    }

    /// The machines behind the instances, as the container engine lists them.
    pub async fn containers(&self) -> Check<String> {
        let filter = format!("name=kup-aws-{}-", self.port);
        run(Command::new("podman").args(["ps", "-aq", "--filter", &filter]), None).await?.ok("podman ps")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let stop = std::process::Command::new(script()).args(["stop", "--port", &self.port.to_string()]).output();
        if let Err(e) = stop {
            eprintln!("the emulator was not stopped: {e}");
        }
    }
}
