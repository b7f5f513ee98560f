//! What a cluster looks like from the host it stands on: its machines, what runs on them, and what is left of it.

use tokio::process::Command;

use super::Check;
use super::cluster::{Home, Output, run};

/// Asks podman for something.
pub async fn engine(args: &[&str]) -> Output {
    run(Command::new("podman").args(args), None).await.unwrap()
}

/// Everything of a cluster that the host knows: containers, volumes, networks, links, mounts, processes.
pub async fn traces(name: &str) -> String {
    let script = format!(
        "podman ps -a --format '{{{{.Names}}}}' | grep '^{name}-' | sed 's/^/container /'
         podman volume ls --format '{{{{.Name}}}}' | grep '{name}' | sed 's/^/volume /'
         podman network ls --format '{{{{.Name}}}}' | grep '{name}' | sed 's/^/network /'
         ip -o link | grep -E 'kup|{name}' | sed 's/^/link /'
         grep '{name}' /proc/self/mountinfo | sed 's/^/mount /'
         pgrep -af -- '--hostname-override={name}-|--name={name}-' | sed 's/^/process /'
         true"
    );
    run(Command::new("sh").arg("-s"), Some(&script)).await.unwrap().stdout
}

/// The standard output of kubectl, which must succeed.
pub async fn kubectl(home: &Home, args: &[&str]) -> Check<String> {
    let kubectl = home.kup(&["bundle", "path", "kubectl"]).await?.ok("kup bundle path kubectl")?;
    let mut command = Command::new(kubectl.trim());
    command.arg("--kubeconfig").arg(home.path().join("kubeconfig")).arg("--request-timeout=20s").args(args);
    run(&mut command, None).await?.ok(&format!("kubectl {}", args.join(" ")))
}

/// Runs a script on a machine, through the engine.
pub async fn on(machine: &str, script: &str) -> Output {
    run(Command::new("podman").args(["exec", "-i", machine, "sh", "-s"]), Some(script)).await.unwrap()
}

/// What must stay the same when nothing is to be done: each unit's run, each file of kup's, each container's start.
pub async fn runs(machine: &str) -> String {
    let files = "find /etc/kup -type f -exec stat -c '%n %Y %i' {} + | sort";
    let units = invocations(
        machine,
        &[
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "containerd",
            "kubelet",
            "kube-proxy",
            "flanneld",
        ],
    );
    units.await + &on(machine, files).await.stdout + &engine(&["inspect", "-f", "{{.State.StartedAt}}", machine]).await.stdout
}

/// Each unit's run: it changes when the unit is started again.
pub async fn invocations(machine: &str, units: &[&str]) -> String {
    on(machine, &format!("systemctl show -p Id -p InvocationID --value {}", units.join(" "))).await.stdout
}
