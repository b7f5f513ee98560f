//! podman or docker as a process: found, run with a deadline and never through a shell, its words kept when it fails.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cluster::spec::EngineChoice;
use crate::error::{Context, Error, Result};
pub use crate::machine::host::EngineKind;

mod lists;
pub(super) mod process;

pub use lists::{Container, Network, Volume};

/// For questions: lists, inspections.
pub const ASK: Duration = Duration::from_secs(60);
/// For making, starting and removing one thing. Generous: several run at once, and disks can be slow.
pub const ACT: Duration = Duration::from_secs(180);
/// For what moves an image's bytes.
pub const MOVE: Duration = Duration::from_secs(900);

/// A container engine that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    kind: EngineKind,
    program: PathBuf,
}

impl Engine {
    /// An engine at a known path.
    pub fn at(kind: EngineKind, program: impl Into<PathBuf>) -> Engine {
        Engine { kind, program: program.into() }
    }

    /// Which one it is.
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Its program's name, for messages.
    pub fn name(&self) -> &'static str {
        self.kind.as_str()
    }

    /// All engines that are installed, allowed and answer, podman first. With a fixed choice: that one, or the reason why not.
    /// An error if there is none.
    pub async fn find(choice: EngineChoice) -> Result<Vec<Engine>> {
        Self::find_in(choice, std::env::var_os("PATH").as_deref(), rustix::process::geteuid().is_root()).await
    }

    /// [`Engine::find`] with the search path and the rights given.
    pub(super) async fn find_in(choice: EngineChoice, path: Option<&OsStr>, root: bool) -> Result<Vec<Engine>> {
        let kinds: &[EngineKind] = match choice {
            EngineChoice::Auto => &[EngineKind::Podman, EngineKind::Docker],
            EngineChoice::Podman => &[EngineKind::Podman],
            EngineChoice::Docker => &[EngineKind::Docker],
        };
        let installed: Vec<Engine> = kinds
            .iter()
            .filter_map(|&kind| {
                let program = std::env::split_paths(path?).map(|dir| dir.join(kind.as_str())).find(|p| is_program(p))?;
                Some(Engine { kind, program })
            })
            .collect();
        if installed.is_empty() {
            let (what, packages) = match choice {
                EngineChoice::Auto => (
                    "no container engine is installed: neither podman nor docker is on the PATH",
                    "apt install podman runc (or docker.io)",
                ),
                EngineChoice::Podman => ("podman is not installed: it is not on the PATH", "apt install podman runc"),
                EngineChoice::Docker => ("docker is not installed: it is not on the PATH", "apt install docker.io"),
            };
            return Err(Error::new(what).hint(packages));
        }
        let answers = futures::future::join_all(installed.iter().map(|engine| engine.answers(root))).await;
        let mut usable = Vec::new();
        let mut refused: Option<Error> = None;
        for (engine, answer) in installed.into_iter().zip(answers) {
            match answer {
                Ok(()) => usable.push(engine),
                // The first one's reason is the headline; the others' follow it.
                Err(e) => {
                    refused = Some(
                        refused
                            .take()
                            .map_or(e.clone(), |first| Error { why: [first.why, vec![e.what], e.why].concat(), ..first }),
                    )
                }
            }
        }
        match refused {
            Some(error) if usable.is_empty() => Err(error),
            _ => Ok(usable),
        }
    }

    /// Whether it may be used and answers.
    async fn answers(&self, root: bool) -> Result<()> {
        match self.kind {
            // Without root podman works, but rootless: such containers can't be nodes.
            EngineKind::Podman if !root => Err(Error::new(
                "podman needs root to run machines: without it, its containers have no rights over cgroups and networks",
            )
            .hint("run the same command with sudo")),
            // podman has no daemon: if it is there, it answers.
            EngineKind::Podman => Ok(()),
            EngineKind::Docker => {
                self.run(Duration::from_secs(10), ["version", "--format", "{{.Server.Version}}"]).await.map(drop)
            }
        }
    }

    /// Runs it and returns what it wrote to stdout. The error holds the command and the engine's own last words.
    pub async fn run<S: AsRef<OsStr>>(&self, deadline: Duration, args: impl IntoIterator<Item = S>) -> Result<String> {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let child = self.spawn(&args, Stdio::null())?;
        self.finish(deadline, &args, child.id(), child.wait_with_output()).await
    }

    /// As [`Engine::run`], for output that comes on both streams: stdout, then stderr.
    pub async fn run_both<S: AsRef<OsStr>>(&self, deadline: Duration, args: impl IntoIterator<Item = S>) -> Result<String> {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let child = self.spawn(&args, Stdio::null())?;
        let pid = child.id();
        let work = async {
            let mut output = child.wait_with_output().await?;
            if output.status.success() {
                output.stdout.append(&mut output.stderr);
            }
            Ok(output)
        };
        self.finish(deadline, &args, pid, work).await
    }

    /// Runs it with a stream as its stdin, which is read to its end.
    pub async fn run_with_input<S: AsRef<OsStr>>(
        &self,
        deadline: Duration,
        args: impl IntoIterator<Item = S>,
        mut input: impl AsyncRead + Unpin + Send,
    ) -> Result<String> {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let mut child = self.spawn(&args, Stdio::piped())?;
        let (pid, stdin) = (child.id(), child.stdin.take());
        let work = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    tokio::io::copy(&mut input, &mut stdin).await?;
                    stdin.shutdown().await?;
                }
                Ok::<(), std::io::Error>(())
            };
            let (fed, output) = tokio::join!(feed, child.wait_with_output());
            let output = output?;
            // A program that failed closes its stdin: its own words say more than "broken pipe".
            if output.status.success() {
                fed?;
            }
            Ok(output)
        };
        self.finish(deadline, &args, pid, work).await
    }

    fn spawn(&self, args: &[OsString], stdin: Stdio) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::spawn(&mut command).with_context(|| format!("cannot run {}", self.program.display()))
    }

    async fn finish(
        &self,
        deadline: Duration,
        args: &[OsString],
        pid: Option<u32>,
        work: impl Future<Output = std::io::Result<Output>>,
    ) -> Result<String> {
        let what = || self.shown(args);
        let output = process::end(pid, deadline, work)
            .await
            .ok_or_else(|| {
                Error::new(format!("`{}` did not end within {} s", what(), deadline.as_secs()))
                    .hint(format!("look at the host with `{} ps -a`", self.name()))
            })?
            .with_context(|| format!("`{}` failed", what()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(explain(self.kind, &what(), &String::from_utf8_lossy(&output.stderr), output.status))
    }

    /// The command as it is named in errors: the verb and its object, not the long flags between.
    fn shown(&self, args: &[OsString]) -> String {
        let words: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
        let verb: Vec<_> = words.iter().take_while(|w| !w.starts_with('-')).take(3).map(|w| w.as_ref()).collect();
        format!("{} {}", self.name(), verb.join(" "))
    }

    /// Whether an image is in its store.
    pub async fn has_image(&self, image: &str) -> Result<bool> {
        match self.run(ASK, ["image", "inspect", "--format", "{{.Id}}", image]).await {
            Ok(_) => Ok(true),
            Err(e) if is_gone(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

/// Whether an engine's error says that the thing isn't there (any more).
pub(super) fn is_gone(error: &Error) -> bool {
    error.why.iter().any(|w| {
        let w = w.to_lowercase();
        w.contains("no such") || w.contains("not found") || w.contains("not known")
    })
}

/// An engine's failure in its own last words, with what can be done about the known ones.
fn explain(kind: EngineKind, what: &str, stderr: &str, status: std::process::ExitStatus) -> Error {
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let words = lines[lines.len().saturating_sub(5)..].join("\n");
    let low = words.to_lowercase();
    let engine = kind.as_str();
    if low.contains("permission denied") && low.contains("docker daemon socket") {
        return Error::new("docker refuses this user: it may not talk to the Docker daemon")
            .why(words)
            .hint("run the same command with sudo, or join the group: `sudo usermod -aG docker $USER`, then log in again");
    }
    if low.contains("cannot connect to the docker daemon") || low.contains("failed to connect to the docker api") {
        return Error::new("docker is installed, but its daemon does not answer")
            .why(words)
            .hint("start it with `systemctl start docker`, or use `--engine podman`");
    }
    let mut error = Error::new(format!("`{what}` failed"));
    error = if words.is_empty() { error.why(format!("{engine} ended with {status} and no word")) } else { error.why(&words) };
    if low.contains("no space left on device") {
        error = error.hint(format!("make room, for example with `{engine} image prune`"));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn explained(kind: EngineKind, stderr: &str) -> String {
        explain(kind, "x run", stderr, std::process::ExitStatus::from_raw(125 << 8)).to_string()
    }

    #[tokio::test]
    async fn no_engine_names_the_packages() {
        for (choice, package) in
            [(EngineChoice::Auto, "podman"), (EngineChoice::Podman, "podman"), (EngineChoice::Docker, "docker.io")]
        {
            let error = Engine::find_in(choice, Some(OsStr::new("/nonexistent")), true)
                .await
                .err()
                .unwrap_or_else(|| Error::new("found one"));
            assert_eq!(error.kind, crate::error::Kind::Failed);
            assert!(error.hints.iter().any(|h| h.starts_with("apt install") && h.contains(package)), "{error}");
        }
        assert!(Engine::find_in(EngineChoice::Auto, None, true).await.is_err());
    }

    #[tokio::test]
    async fn podman_without_root_is_refused() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        std::os::unix::fs::symlink("/bin/true", dir.path().join("podman")).context("no link")?;
        let path = Some(dir.path().as_os_str());
        assert_eq!(Engine::find_in(EngineChoice::Auto, path, true).await?.len(), 1);
        let error = Engine::find_in(EngineChoice::Auto, path, false).await.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("needs root") && error.contains("sudo"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn an_engine_that_answers_is_used_though_another_does_not() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        std::os::unix::fs::symlink("/bin/true", dir.path().join("podman")).context("no link")?;
        std::os::unix::fs::symlink("/bin/false", dir.path().join("docker")).context("no link")?;
        let kinds = |found: Vec<Engine>| found.iter().map(Engine::kind).collect::<Vec<_>>();
        assert_eq!(kinds(Engine::find_in(EngineChoice::Auto, Some(dir.path().as_os_str()), true).await?), [EngineKind::Podman]);
        assert!(Engine::find_in(EngineChoice::Docker, Some(dir.path().as_os_str()), true).await.is_err());
        Ok(())
    }

    #[tokio::test]
    async fn no_call_is_endless() {
        let begun = std::time::Instant::now();
        let error = Engine::at(EngineKind::Podman, "/bin/sleep").run(Duration::from_millis(50), ["100"]).await.err();
        assert!(error.is_some_and(|e| e.what.contains("did not end")));
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[tokio::test]
    async fn what_is_given_up_is_asked_to_end() -> Result<()> {
        let dir = tempfile::tempdir().context("no directory")?;
        let mark = dir.path().join("asked");
        let script = "trap 'echo >\"$0\"; exit' TERM; while :; do sleep 0.02; done";
        let shell = Engine::at(EngineKind::Podman, "/bin/sh");
        let args = [OsStr::new("-c"), OsStr::new(script), mark.as_os_str()];
        assert!(tokio::time::timeout(Duration::from_millis(500), shell.run(ASK, args)).await.is_err(), "it ended by itself");
        for _ in 0..1000 {
            if mark.exists() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Error::new("it was not asked to end"))
    }

    #[tokio::test]
    async fn arguments_never_meet_a_shell() -> Result<()> {
        let echoed = Engine::at(EngineKind::Podman, "/bin/echo").run(ASK, ["; touch /tmp/x", "$(id)", "`id`"]).await?;
        assert_eq!(echoed.trim_end(), "; touch /tmp/x $(id) `id`");
        Ok(())
    }

    #[tokio::test]
    async fn input_is_streamed_and_an_early_end_is_the_programs_own_error() -> Result<()> {
        let data = vec![7u8; 3 << 20];
        let counted = Engine::at(EngineKind::Podman, "/usr/bin/wc").run_with_input(ASK, ["-c"], &data[..]).await?;
        assert_eq!(counted.trim(), data.len().to_string());
        let error = Engine::at(EngineKind::Podman, "/bin/ls").run_with_input(ASK, ["/nonexistent"], &data[..]).await.err();
        assert!(error.is_some_and(|e| e.why.iter().any(|w| w.contains("/nonexistent"))));
        Ok(())
    }

    #[test]
    fn known_failures_say_what_to_type() {
        let refused =
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get ...";
        assert!(explained(EngineKind::Docker, refused).contains("usermod -aG docker"));
        let absent = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
        assert!(explained(EngineKind::Docker, absent).contains("systemctl start docker"));
        assert!(explained(EngineKind::Podman, "Error: write /x: no space left on device").contains("image prune"));
        let other = explained(EngineKind::Podman, "one\ntwo\nthree\nfour\nfive\nsix\n");
        assert!(other.contains("six") && !other.contains("one"), "{other}");
        assert!(explained(EngineKind::Podman, "").contains("no word"));
    }
}
