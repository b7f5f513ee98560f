//! Bad days of a cluster on AWS, each on the living one: what `kup up` says of them, and that it goes on from there.

use std::process::Stdio;
use std::time::Duration;

use aws_sdk_ec2::types::Instance;
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;

use crate::ensure;
use crate::support::api::{Api, name};
use crate::support::cluster::Output;
use crate::support::{Check, eventually};
use crate::world::World;

/// A range that is nobody's (RFC 5737): with only that allowed, a group's rules shut everybody out.
const CLOSED: &str = "--set=aws.access.ssh=[192.0.2.0/24]";
/// The emulator's public addresses, of which this host has one: what mends it. The cluster's own config says the other by then.
const OPEN: &str = "--set=aws.access.ssh=[198.18.0.0/15]";

/// Checks that a command failed with these words.
fn told(output: &Output, words: &[&str]) -> Check {
    let missing: Vec<&&str> = words.iter().filter(|word| !output.stderr.contains(**word)).collect();
    ensure!(output.code == Some(1) && missing.is_empty(), "{missing:?} missing; exit code {:?}:\n{}", output.code, output.stderr);
    Ok(())
}

/// A `kup up` that is on its way, in a process of its own.
struct OnItsWay(Child);

impl OnItsWay {
    fn start(world: &World, arguments: &[&str]) -> Check<OnItsWay> {
        let mut command = world.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        Ok(OnItsWay(child))
    }

    /// As nothing and nobody can prepare for.
    async fn kill(mut self) -> Check {
        self.0.start_kill()?;
        let status = self.0.wait().await?;
        ensure!(!status.success(), "kup was through before it was killed");
        Ok(())
    }

    async fn end(mut self) -> Check<Output> {
        let mut stderr = String::new();
        let mut pipe = self.0.stderr.take().ok_or("kup has no standard error")?;
        tokio::time::timeout(Duration::from_secs(120), pipe.read_to_string(&mut stderr)).await??;
        Ok(Output { code: self.0.wait().await?.code(), stdout: String::new(), stderr })
    }
}

/// The one master, once it runs.
async fn master(world: &World) -> Check<Instance> {
    eventually("a master to run", async || {
        Ok(world.instances("master").await?.into_iter().next().ok_or_else(|| "there is none".to_owned()))
    })
    .await
}

fn id(instance: &Instance) -> String {
    instance.instance_id().unwrap_or_default().to_owned()
}

/// The master is lost, and so is its successor while kup waits for it; a third shuts kup out; and kup itself is killed when it has begun
/// to set up that one. Whoever types `kup up` next finds the work half done.
pub async fn masters_come_and_go(world: &World, up: &[&str]) -> Check {
    world.terminate(&id(&master(world).await?)).await?;
    let closed = [up, &[CLOSED, "--timeout", "20s"]].concat();
    let waiting = OnItsWay::start(world, &closed)?;
    let second = eventually("kup to wait for the new master itself", async || {
        let master = master(world).await?;
        // The volume is attached by kup once it has seen the machine run.
        let devices = master.block_device_mappings().iter().filter_map(|device| device.device_name());
        let attached = devices.filter(|name| *name == "/dev/sdf").count() == 1;
        Ok(if attached { Ok(id(&master)) } else { Err("it has not got its volume yet".to_owned()) })
    })
    .await?;
    world.terminate(&second).await?;
    told(&waiting.end().await?, &[&second, "while kup waited for it", "tries again with a new one", "left:"])?;

    told(&world.kup(&closed).await?, &["did not answer on SSH within 20 s", "aws.access.ssh", "left:", "kup down"])?;

    let third = id(&master(world).await?);
    let killed = OnItsWay::start(world, &[up, &[OPEN]].concat())?;
    eventually("the new master to have an etcd of kup's", async || {
        let there = world.on(&third, "test -e /etc/systemd/system/etcd.service").await?.code == Some(0);
        Ok(if there { Ok(()) } else { Err("it has none".to_owned()) })
    })
    .await?;
    killed.kill().await
}

/// A master that shows another host key than its own is told nothing.
pub async fn a_stranger_at_a_masters_address(world: &World, up: &[&str]) -> Check {
    let master = id(&master(world).await?);
    let keys = "/etc/ssh/kup_host_ecdsa_key";
    let swap = format!(
        "set -e; cp -a {keys} {keys}.own; ssh-keygen -q -t ecdsa -N '' -f {keys}.new; cat {keys}.new >{keys}; systemctl restart ssh"
    );
    world.on(&master, &swap).await?.ok("another host key")?;
    let said = world.kup(up).await?;
    world
        .on(&master, &format!("set -e; mv {keys}.own {keys}; rm {keys}.new*; systemctl restart ssh"))
        .await?
        .ok("its own host key")?;
    told(&said, &["showed another SSH host key", "nothing was sent", "--replace master-1"])
}

/// A file of the bundle in the bucket is not what it should be, and the token that minions join with is gone: a new minion names the
/// one on its console, and `kup up` says it; then it mends both. `up` asks for a minion more than there is.
pub async fn a_minion_finds_a_spoilt_file(world: &World, api: &Api, cluster: &str, up: &[&str]) -> Check {
    let s3 = world.s3().await;
    let buckets = s3.list_buckets().send().await?;
    let bucket = buckets.buckets().iter().find_map(|b| b.name().filter(|name| name.ends_with(cluster))).ok_or("no bucket")?;
    let manifest = s3.get_object().bucket(bucket).key("node/manifest").send().await?.body.collect().await?.to_vec();
    let manifest = String::from_utf8(manifest)?;
    let kubelet = manifest.lines().find(|line| line.ends_with(" bin/kubelet")).ok_or("the manifest names no kubelet")?;
    let object = kubelet.split_whitespace().nth(1).ok_or("the manifest's line has no object")?;
    s3.put_object().bucket(bucket).key(object).body(b"spoilt".to_vec().into()).send().await?;
    for secret in api.list("/api/v1/namespaces/kube-system/secrets").await? {
        if secret["type"] == "bootstrap.kubernetes.io/token" {
            api.delete(&format!("/api/v1/namespaces/kube-system/secrets/{}", name(&secret))).await?;
        }
    }
    let said = world.kup(up).await?;
    told(&said, &["could not set itself up", object, "bin/kubelet is refused", &format!("aws s3 rm s3://{bucket}/{object}")])?;
    s3.delete_object().bucket(bucket).key(object).send().await?;
    world.kup(up).await?.ok("kup up once the file was removed").map(drop)
}
