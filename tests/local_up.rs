//! The ways of `kup up` and `kup down` that are not the straight one: stopped and gone on, twice, killed, broken, without minions,
//! beside another cluster.
//!
//! Needs root and a container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::Check;
use support::cluster::{Home, run};
use support::host::{engine, kubectl, on, runs, traces};
use tokio::process::Command;

fn state(home: &Home) -> bool {
    std::fs::read_dir(home.path().join("state/kup/local")).is_ok_and(|mut entries| entries.next().is_some())
}

/// Stopped after one step and another, killed in the middle, finished; then again, which changes nothing; then down, twice.
#[tokio::test]
async fn up_goes_on_from_anywhere_and_down_leaves_nothing() -> Check {
    let name = "kup-test-up";
    let home = Home::new(name).await?;
    let master = format!("{name}-master-1");
    let before = traces(name).await;
    assert_eq!(before, "", "nothing of {name} is there at the beginning");

    // Half-made, then removed.
    home.kup(&["up", "--name", name, "--minions", "0", "--until", "machines"]).await?.ok("kup up --until machines")?;
    assert!(traces(name).await.contains(&format!("container {master}")));
    home.kup(&["down", "-y", "--name", name]).await?.ok("kup down of a half-made cluster")?;
    assert_eq!(traces(name).await, "", "a half-made cluster leaves nothing");
    assert!(!state(&home), "its state is gone too");

    // Stopped after etcd: no API server yet.
    let output = home.kup(&["up", "--name", name, "--minions", "0", "--until", "etcd"]).await?.ok("kup up --until etcd")?;
    assert!(output.contains("up to the step etcd"), "{output}");
    let active = on(&master, "systemctl is-active etcd kube-apiserver").await.stdout;
    assert_eq!(active.lines().collect::<Vec<_>>(), ["active", "inactive"]);

    // Killed at some moment of the rest: the next up finishes. Its lock is a dead process's and does not stand in the way.
    let mut child =
        home.command(&["up", "--name", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    child.kill().await?;

    // A unit that can't start: its own words are in the error, with its machine, what is left and what to type.
    let drop_in = "/etc/systemd/system/kube-apiserver.service.d";
    let breaking = format!(
        "systemctl stop kube-apiserver; mkdir {drop_in}
         printf '[Service]\\nExecStart=\\nExecStart=/bin/sh -c \"echo out of paper; exit 1\"\\n' > {drop_in}/broken.conf; systemctl daemon-reload"
    );
    on(&master, &breaking).await.ok("breaking a unit")?;
    let broken = home.kup(&["up", "--name", name]).await?;
    assert_eq!(broken.code, Some(1), "{}", broken.stderr);
    for part in ["out of paper", "kube-apiserver.service", &master, "left:", "kup down --name"] {
        assert!(broken.stderr.contains(part), "the error says `{part}`: {}", broken.stderr);
    }
    on(&master, &format!("rm -r {drop_in}; systemctl daemon-reload")).await.ok("mending it")?;
    home.kup(&["up", "--name", name]).await?.ok("kup up after the failure")?;

    // No minions: the master runs everything.
    let pods = kubectl(
        &home,
        &[
            "get",
            "pods",
            "-n",
            "kube-system",
            "-l",
            "k8s-app=kube-dns",
            "-o",
            "jsonpath={.items[*].status.phase} {.items[*].spec.nodeName}",
        ],
    )
    .await?;
    assert_eq!(pods, format!("Running Running {master} {master}"));

    // Again: nothing restarts, no file is written.
    let before = runs(&master).await;
    let output = home.kup(&["up", "--name", name]).await?.ok("kup up again")?;
    assert!(output.contains("is ready, as before"), "{output}");
    assert_eq!(runs(&master).await, before, "a second up changes nothing");

    // What running machines are built on can't be changed.
    let refused = home.kup(&["up", "--name", name, "--set", "network.pods=10.200.0.0/16"]).await?;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("network.pods: 10.244.0.0/16 → 10.200.0.0/16"), "{}", refused.stderr);

    // A machine that was stopped comes back with its data.
    kubectl(&home, &["create", "configmap", "kept", "--from-literal=a=b"]).await?;
    engine(&["kill", &master]).await;
    home.kup(&["up", "--name", name]).await?.ok("kup up after a power cut")?;
    assert_eq!(kubectl(&home, &["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).await?, "b");

    home.kup(&["down", "-y", "--name", name]).await?.ok("kup down")?;
    assert_eq!(traces(name).await, "", "down leaves nothing");
    assert!(!state(&home), "the state is gone");
    let kubeconfig = std::fs::read_to_string(home.path().join("kubeconfig"))?;
    assert!(!kubeconfig.contains(name), "{kubeconfig}");
    home.kup(&["down", "-y", "--name", name]).await?.ok("kup down of nothing")?;
    Ok(())
}

/// Machines that don't mount the bundle are sent it: whole, checked, once. Beside it stands another cluster, which nothing touches.
#[tokio::test]
async fn the_bundle_is_sent_and_clusters_stand_side_by_side() -> Check {
    let (one, two) = ("kup-test-sent", "kup-test-side");
    let (home, other) = (Home::new(one).await?, Home::new(two).await?);
    let send = ["up", "--name", one, "--minions", "0", "--set", "local.bundle=ssh", "--until", "bundle"];
    let beside = ["up", "--name", two, "--minions", "0", "--until", "machines"];
    let (sent, side) = tokio::join!(home.kup(&send), other.kup(&beside));
    sent?.ok("kup up --until bundle")?;
    side?.ok("kup up beside it")?;
    let machine = format!("{one}-master-1");
    let checked =
        on(&machine, "cd /opt/kup/bundle && sha256sum -c SHA256SUMS && bin/kubelet --version && mount | grep -c /opt/kup")
            .await
            .stdout;
    assert!(checked.contains("bin/kube-apiserver: OK") && checked.contains("Kubernetes v1."), "{checked}");
    assert!(checked.trim_end().ends_with('0'), "nothing is mounted there: {checked}");
    // Spoiled on the way is noticed by what is there, not by what was believed.
    let inode = on(&machine, "stat -c %i /opt/kup/bundle/bin/kubelet").await.stdout;
    home.kup(&send).await?.ok("kup up --until bundle again")?;
    assert_eq!(on(&machine, "stat -c %i /opt/kup/bundle/bin/kubelet").await.stdout, inode, "it is not sent twice");

    // Two clusters and no name: both are named, and nothing is removed.
    let unclear = home.kup(&["down", "-y"]).await?;
    assert_eq!(unclear.code, Some(2), "{}", unclear.stderr);
    assert!(unclear.stderr.contains(one) && unclear.stderr.contains(two), "{}", unclear.stderr);
    home.kup(&["down", "-y", "--name", one]).await?.ok("kup down of one")?;
    assert_eq!(traces(one).await, "");
    assert!(traces(two).await.contains(&format!("container {two}-master-1")), "the other one stands");
    Ok(())
}

/// A bundle with a changed byte is found before anything of it runs, and before anything is made.
#[tokio::test]
async fn a_corrupt_bundle_runs_nothing() -> Check {
    let name = "kup-test-corrupt";
    let home = Home::new(name).await?;
    let path = home.kup(&["bundle", "path"]).await?.ok("kup bundle path")?;
    let (bundle, cache) = (Path::new(path.trim()), home.path().join("cache"));
    let target = cache.join("kup/bundles").join(bundle.file_name().unwrap());
    std::fs::create_dir_all(target.parent().unwrap())?;
    run(Command::new("cp").arg("-a").arg(bundle).arg(&target), None).await?.ok("cp")?;
    let victim = target.join("bin/kube-scheduler");
    let mut bytes = std::fs::read(&victim)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes)?;
    let up = run(home.command(&["up", "--name", name, "--minions", "0"]).env("XDG_CACHE_HOME", &cache), None).await?;
    assert_eq!(up.code, Some(1), "{}", up.stderr);
    for part in ["kube-scheduler", "sha256", "kup bundle"] {
        assert!(up.stderr.contains(part), "the error says `{part}`: {}", up.stderr);
    }
    assert_eq!(traces(name).await, "", "nothing was made");
    Ok(())
}

/// Another machine at a machine's address: kup sees another host key, sends nothing, and says so.
#[tokio::test]
async fn a_stranger_at_a_machines_address_gets_nothing() -> Check {
    let name = "kup-test-key";
    let home = Home::new(name).await?;
    home.kup(&["up", "--name", name, "--minions", "0", "--until", "connect"]).await?.ok("kup up --until connect")?;
    let machine = format!("{name}-master-1");
    let swap = "ssh-keygen -q -t ed25519 -N '' -f /tmp/k && cp /tmp/k /etc/ssh/ssh_host_ed25519_key && systemctl restart ssh";
    assert_eq!(on(&machine, swap).await.code, Some(0));
    let up = home.kup(&["up", "--name", name]).await?;
    assert_eq!(up.code, Some(1));
    assert!(up.stderr.contains("another SSH host key") && up.stderr.contains(&machine), "{}", up.stderr);
    assert_eq!(on(&machine, "ls /etc/kup 2>/dev/null | grep -v seed").await.stdout, "", "nothing was sent");
    Ok(())
}
