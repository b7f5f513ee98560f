//! An emulated account, and a user of it with directories of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::wire::Wire;
use crate::ensure;
use crate::support::cluster::{KUP, Output, run};
use crate::support::{Check, LONG, eventually};

/// The region of tests.
pub const REGION: &str = "us-west-2";

/// The emulated account, and a key that names it, as LocalStack reads it; moto calls every account so. It is that of which
/// `scripts/aws-emulator dump` tells.
pub const ACCOUNT: &str = "123456789012";
const KEY: &str = "LKIARZPUZDIKGB2VALC4";
const SECRET: &str = "not-a-secret";

/// Which emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// LocalStack with the project's plugin.
    LocalStack,
    /// moto's own server.
    Moto,
}

impl Backend {
    fn as_str(self) -> &'static str {
        match self {
            Backend::LocalStack => "localstack",
            Backend::Moto => "moto",
        }
    }
}

/// Quotas by their service and code: VPCs, and with them internet gateways; Elastic IPs; virtual CPUs on demand, and of spot instances.
pub const VPCS: (&str, &str) = ("vpc", "L-F678F1CE");
pub const ADDRESSES: (&str, &str) = ("ec2", "L-0263D0A3");
pub const PROCESSORS: (&str, &str) = ("ec2", "L-1216C47A");
pub const SPOT_PROCESSORS: (&str, &str) = ("ec2", "L-34B43A08");

/// An emulator of this test's own. Dropping it, also by a panic, stops it.
pub struct Account {
    /// Which one.
    pub backend: Backend,
    /// Where it listens.
    pub url: String,
    /// The line to it.
    pub wire: Wire,
    port: u16,
    home: tempfile::TempDir,
    /// What else it was started with.
    more: Vec<String>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/aws-emulator")
}

impl Account {
    /// Starts one on a free port.
    pub async fn open(backend: Backend) -> Check<Account> {
        Self::open_as(backend, &[]).await
    }

    /// Starts one in which everything goes wrong that can, as this seed has it; what AWS takes its time for takes a twentieth of it.
    pub async fn hostile(seed: u64) -> Check<Account> {
        let seed = seed.to_string();
        Self::open_as(Backend::LocalStack, &["--profile", "hostile", "--seed", &seed, "--time-scale", "0.05"]).await
    }

    /// Starts one that keeps AWS's own rules, limits, pages and token buckets; what AWS takes its time for takes this share of it.
    pub async fn strict(time_scale: f64) -> Check<Account> {
        Self::open_as(Backend::LocalStack, &["--profile", "strict", "--time-scale", &time_scale.to_string()]).await
    }

    /// Has quotas of the account raised, as its owner would, and waits until they are.
    pub async fn raise(&self, quotas: &[((&str, &str), u32)]) -> Check {
        let client = aws_sdk_servicequotas::Client::new(&self.sdk().await);
        for ((service, code), wanted) in quotas {
            let ask = client.request_service_quota_increase().service_code(*service).quota_code(*code);
            ask.desired_value(f64::from(*wanted)).send().await?;
        }
        for ((service, code), wanted) in quotas {
            eventually("the quota to be raised", async || {
                let answer = client.get_service_quota().service_code(*service).quota_code(*code).send().await?;
                let is = answer.quota().and_then(|quota| quota.value()).unwrap_or_default();
                Ok(if is >= f64::from(*wanted) { Ok(()) } else { Err(format!("{service}/{code} is {is}")) })
            })
            .await?;
        }
        Ok(())
    }

    /// Orders a fault for calls to come, as `tests/cloud/plugin/kup_cloud/control.py` has it.
    pub async fn order(&self, fault: &Value) -> Check {
        let url = format!("{}/_kup/faults", self.url);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.post(url).body(fault.to_string()).send().await?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("{status}: {}", answer.text().await?).into()) }
    }

    /// All calls that LocalStack was asked, in the order in which they ended.
    pub async fn journal(&self) -> Check<Vec<Value>> {
        let text = run(Command::new(script()).args(["journal", "--port", &self.port.to_string()]), None).await?;
        let text = text.ok("scripts/aws-emulator journal")?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Starts another one like this.
    pub async fn another(&self) -> Check<Account> {
        let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
        Self::open_as(self.backend, &more).await
    }

    async fn open_as(backend: Backend, more: &[&str]) -> Check<Account> {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let start = ["start", "--backend", backend.as_str(), "--port", &port.to_string()];
        run(Command::new(script()).args(start).args(more), None).await?.ok("scripts/aws-emulator start")?;
        let url = format!("http://127.0.0.1:{port}");
        let home = tempfile::Builder::new().prefix("kup-test-aws").tempdir()?;
        // From here on dropping it stops the emulator.
        let wire = Wire::to(&url).await?;
        if backend == Backend::Moto {
            // It has no image of Debian's. A file of this name is found in the working directory.
            let config = "apiVersion: kup.dev/v1alpha1\nkind: Cluster\naws: {image: al2023}\n";
            std::fs::write(home.path().join("config-default.yaml"), config)?;
        }
        let more = more.iter().map(|&word| word.to_owned()).collect();
        let account = Account { backend, url, wire, port, home, more };
        let who = aws_sdk_sts::Client::new(&account.sdk().await).get_caller_identity().send().await?;
        ensure!(who.account() == Some(ACCOUNT), "kup's account is {:?}, and dumps would be of {ACCOUNT}", who.account());
        Ok(account)
    }

    /// What the user's programs see of the world.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let home = self.home.path();
        let inside = |name: &str| home.join(name).to_string_lossy().into_owned();
        vec![
            ("HOME", inside("")),
            ("XDG_STATE_HOME", inside("state")),
            ("XDG_CACHE_HOME", inside("cache")),
            ("KUBECONFIG", inside("kubeconfig")),
            ("AWS_ENDPOINT_URL", self.wire.url.clone()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("KUP_CALLER_ADDRESS", "198.51.100.7".into()),
        ]
    }

    /// A file of the user's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes one.
    pub fn write(&self, name: &str, text: &str) -> Check {
        let path = self.path(name);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    /// kup as this user, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(KUP);
        // Nothing of whoever runs the tests: neither their logins nor kube-up's variables.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(args).envs(self.env()).current_dir(self.home.path());
        command
    }

    /// Runs kup.
    pub async fn kup(&self, args: &[&str]) -> Check<Output> {
        run(&mut self.command(args), None).await
    }

    /// Runs kup with another variable or two.
    pub async fn kup_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Check<Output> {
        run(self.command(args).envs(variables.iter().copied()), None).await
    }

    /// Runs kup on a terminal (util-linux's `script`) of a user who types these answers. What it says is one text there.
    pub async fn on_terminal(&self, args: &[&str], answers: &str) -> Check<Output> {
        self.on_terminal_after(args, async { Ok(()) }, answers).await
    }

    /// As [`Account::on_terminal`], by a user who does something else between the first question and the answer.
    pub async fn on_terminal_after(&self, args: &[&str], first: impl Future<Output = Check>, answers: &str) -> Check<Output> {
        let words: Vec<String> = std::iter::once(&KUP).chain(args).map(|word| format!("'{word}'")).collect();
        let line = format!("stty rows 50 cols 200 -echo; exec {}", words.join(" "));
        let mut script = Command::new("script");
        script.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        script.args(["-qec", &line, "/dev/null"]).envs(self.env()).env("TERM", "dumb").env("SHELL", "/bin/sh");
        script.current_dir(self.home.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = script.kill_on_drop(true).spawn()?;
        // Not closed before it has ended: that would be Ctrl-D.
        let mut typed = child.stdin.take().ok_or("no input")?;
        let mut said = child.stdout.take().ok_or("no output")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
        let mut begun = Vec::new();
        let asked = async {
            while !text(&begun).contains("[y/N]") && said.read_buf(&mut begun).await? > 0 {}
            Check::Ok(())
        };
        tokio::time::timeout(LONG, asked).await.map_err(|_| "kup on a terminal asked nothing")??;
        first.await?;
        typed.write_all(answers.as_bytes()).await?;
        let rest = async { tokio::join!(said.read_to_end(&mut begun), child.wait_with_output()) };
        let (read, output) = tokio::time::timeout(LONG, rest).await.map_err(|_| "kup on a terminal did not end")?;
        read?;
        let output = output?;
        drop(typed);
        Ok(Output { code: output.status.code(), stdout: text(&begun), stderr: text(&output.stderr) })
    }

    /// Starts kup as the one whom the line kills.
    pub fn start_victim(&self, args: &[&str]) -> Check<Child> {
        let child =
            self.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        self.wire.victim(child.id());
        Ok(child)
    }

    /// All that is in the account, as the emulator's own listing tells, ids and times included.
    pub async fn dump(&self) -> Check<Value> {
        let text = run(Command::new(script()).args(["dump", "--port", &self.port.to_string()]), None).await?;
        Ok(serde_json::from_str(&text.ok("scripts/aws-emulator dump")?)?)
    }

    /// Looks at all that is in the account until `look` gives a value; it says what is still missing otherwise. Listing it all takes its
    /// time on a busy machine, so one look has no limit of its own.
    pub async fn dump_until<T>(&self, what: &str, mut look: impl FnMut(Value) -> Check<Result<T, String>>) -> Check<T> {
        let until = Instant::now() + LONG;
        loop {
            let seen = match self.dump().await {
                Ok(dump) => match look(dump)? {
                    Ok(value) => return Ok(value),
                    Err(seen) => seen,
                },
                Err(e) => e.to_string(),
            };
            if Instant::now() >= until {
                return Err(format!("{what}: not within {} s; last seen: {seen}", LONG.as_secs()).into());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The SDK's own configuration for this account, past the line.
    pub async fn sdk(&self) -> aws_config::SdkConfig {
        let login = aws_sdk_ec2::config::Credentials::new(KEY, SECRET, None, None, "test");
        aws_config::defaults(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new(REGION))
            .endpoint_url(&self.url)
            .credentials_provider(login)
            .load()
            .await
    }

    /// EC2, past the line.
    pub async fn ec2(&self) -> aws_sdk_ec2::Client {
        aws_sdk_ec2::Client::new(&self.sdk().await)
    }

    /// S3, past the line.
    pub async fn s3(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(&self.sdk().await).force_path_style(true).build())
    }

    async fn bucket(&self, cluster: &str) -> Check<String> {
        let buckets = self.s3().await.list_buckets().send().await?;
        let name = buckets.buckets().iter().filter_map(|b| b.name()).find(|name| name.contains(cluster));
        Ok(name.ok_or("no bucket")?.to_owned())
    }

    /// What the lock of a cluster says.
    pub async fn lock(&self, cluster: &str) -> Check<Value> {
        let lock = self.s3().await.get_object().bucket(self.bucket(cluster).await?).key("lock").send().await?;
        Ok(serde_json::from_slice(&lock.body.collect().await?.into_bytes())?)
    }

    /// Makes the lock of a cluster one that a program on another host took this moment.
    pub async fn lock_by_another_host(&self, cluster: &str) -> Check {
        let mut lock = self.lock(cluster).await?;
        lock["holder"]["host"] = "elsewhere".into();
        lock["holder"]["place"] = "another boot of another machine".into();
        let bucket = self.bucket(cluster).await?;
        self.s3().await.put_object().bucket(bucket).key("lock").body(lock.to_string().into_bytes().into()).send().await?;
        Ok(())
    }

    /// IAM, past the line.
    pub async fn iam(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.sdk().await)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let stop = std::process::Command::new(script()).args(["stop", "--port", &self.port.to_string()]).output();
        if let Err(e) = stop {
            eprintln!("the emulator was not stopped: {e}");
        }
    }
}
