//! `kup ssh`: a shell or a command on a machine, by the system's own `ssh`.

use std::io::{IsTerminal as _, stdin, stdout};
use std::path::Path;
use std::process::Command;

use super::Ui;
use super::nodes::{become_program, owner};
use super::target::TargetArgs;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::machine::ssh::{quoted, unknown_host_key};
use crate::provider::{Finder as _, FoundMachine};
use crate::{saved, standing, state};

/// Log in to a machine, or run a command on it
///
/// The machine's host key is the one that kup gave it; no other is accepted. The exit code is the command's.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// The machine: its name, or the part after the cluster's name, like master-1
    node: String,
    /// A command: one word is a line for the machine's shell, several are a program and its arguments as they are
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let target = owner(&args.target, &args.node, ui).await?;
    let found = standing::find(&target.id, &target.provider).await?;
    let FoundMachine { machine, running } = standing::pick(&target.id, &found.machines, &args.node)?;
    if !running {
        return Err(
            Error::new(format!("machine {} is stopped", machine.name)).hint(format!("`kup up {}` starts it", target.id.flags()))
        );
    }
    if machine.host_key.is_empty() {
        return Err(unknown_host_key(&machine.name).hint(format!(
            "`kup status {0}` shows the Nodes, `kup logs {0} {1}` what the machine's console says",
            target.id.flags(),
            machine.name
        )));
    }
    let key = saved::login_key_path(&target.id, &target.provider.config(&target.id).await?)?;
    // ssh reads it after kup is gone, so it isn't a temporary file; it goes with the cluster.
    state::private_dir(&state::cluster_dir(&target.id)?)?;
    let known = state::cluster_dir(&target.id)?.join("ssh_known_hosts");
    let lines: String = found.machines.iter().map(|m| format!("{} {}\n", m.machine.name, m.machine.host_key)).collect();
    state::write_atomic(&known, lines.as_bytes(), 0o600)?;
    let terminal = stdin().is_terminal() && stdout().is_terminal();
    become_program(ssh(machine, &key, &known, &args.command, terminal), "openssh-client", ui)
}

/// The call of `ssh`. Nothing of the user's own configuration counts: it could weaken what is checked.
fn ssh(machine: &Machine, key: &Path, known: &Path, command: &[String], terminal: bool) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-i"]).arg(expanded(key)).args(["-p", &machine.ssh_port.to_string()]);
    let known = format!("UserKnownHostsFile=\"{}\"", expanded(known));
    let alias = format!("HostKeyAlias={}", machine.name);
    for option in [
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "CheckHostIP=no",
        "ConnectTimeout=10",
        "ServerAliveInterval=15",
        "LogLevel=ERROR",
        &alias,
        &known,
    ] {
        ssh.args(["-o", option]);
    }
    if terminal && !command.is_empty() {
        ssh.arg("-t");
    }
    ssh.arg(format!("{}@{}", machine.user, machine.route()));
    match command {
        [] => {}
        [line] => drop(ssh.args(["--", line])),
        // ssh itself would only join them with spaces, and the machine's shell would take them apart anew.
        words => drop(ssh.arg("--").arg(words.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" "))),
    }
    ssh
}

/// A path as ssh's options want it: `%` begins an escape there.
fn expanded(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{BundleAccess, Role};

    fn arguments(command: &[&str], terminal: bool) -> Vec<String> {
        let machine = Machine {
            name: "c-master-1".into(),
            role: Role::Master,
            address: [172, 29, 0, 11].into(),
            ssh_port: 22,
            user: "root".into(),
            host_key: "ssh-ed25519 AAAA".into(),
            bundle: BundleAccess::Mounted,
            cloud: None,
        };
        let words: Vec<String> = command.iter().map(|w| (*w).to_owned()).collect();
        let ssh = ssh(&machine, Path::new("/s/100%/key"), Path::new("/s/a b/known"), &words, terminal);
        ssh.get_args().map(|a| a.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_the_pinned_key_counts() {
        let all = arguments(&[], true).join(" ");
        for option in
            ["-F none", "StrictHostKeyChecking=yes", "HostKeyAlias=c-master-1", "GlobalKnownHostsFile=/dev/null", "/s/100%%/key"]
        {
            assert!(all.contains(option), "{option} in {all}");
        }
        assert!(all.contains("UserKnownHostsFile=\"/s/a b/known\""));
        assert!(all.ends_with(" root@172.29.0.11"), "{all}");
    }

    #[test]
    fn a_command_arrives_as_it_was_typed() {
        assert_eq!(arguments(&["ls | wc -l"], false).last().unwrap(), "ls | wc -l");
        assert_eq!(arguments(&["sh", "-c", "echo 'a  b'; $x"], false).last().unwrap(), r"'sh' '-c' 'echo '\''a  b'\''; $x'");
        assert!(arguments(&["top"], true).contains(&"-t".to_owned()));
        assert!(!arguments(&["top"], false).contains(&"-t".to_owned()));
        assert!(!arguments(&[], true).contains(&"-t".to_owned()), "ssh asks for one itself");
    }
}
