//! What building from source needs of this machine: Go, a C compiler, static libseccomp. Missing things are named with the Debian
//! package that has them, all at once and before anything is built.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::error::{Context, Error, Result};

use super::Arch;
use super::component::{Component, Make};
use super::modules;
use super::releases::Release;

/// Long enough for a compiler on a busy machine.
const PROBE_DEADLINE: Duration = Duration::from_secs(60);

/// The tools found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// `go version`'s words after "go version": part of a component's key.
    pub go: String,
    /// The C compiler's first line of `--version`; empty if nothing needs one.
    pub cc: String,
    /// Whether the user wants Go's module cache to be writable; the only one of the user's `GOFLAGS` that is kept.
    pub modcacherw: bool,
}

/// The C compiler for machines of that architecture.
pub fn compiler(arch: Arch, host: Arch) -> String {
    if arch == host { "gcc".into() } else { format!("{}-gcc", arch.triplet()) }
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// That it can't be run, took too long, or failed, with the last lines of what it said.
pub(super) async fn output(program: &str, args: &[&str], dir: &Path, deadline: Duration) -> Result<String> {
    let what = || format!("{program} {} failed", args.join(" "));
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("LC_ALL", "C");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(deadline, command.output())
        .await
        .map_err(|_| Error::new(what()).why(format!("no end after {} s", deadline.as_secs())))?
        .with_context(what)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.trim().lines().collect();
    Err(Error::new(what()).why(lines[lines.len().saturating_sub(20)..].join("\n")))
}

/// Looks for all that these components need.
pub async fn find(release: &Release, components: &[&Component], arch: Arch) -> Result<Toolchain> {
    let host = Arch::host()?;
    let here = Path::new("/");
    let mut needed = Vec::new();
    for component in components {
        needed = needed.max(modules::go_line(&release.pin(component.name)?.module)?);
    }
    let wanted = needed.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let go = output("go", &["version"], here, PROBE_DEADLINE).await;
    let go = match go {
        Ok(words) if is_new_enough(&words, &needed) => words.trim().trim_start_matches("go version ").to_owned(),
        other => {
            let mut error = Error::new(format!("building the bundle needs Go {wanted} or newer"));
            error = match other {
                Ok(words) => error.why(format!("this machine has: {}", words.trim())),
                Err(e) => error.why(e.what).why(e.why.join("\n")),
            };
            return Err(error
                .hint(format!("install Go {wanted} or newer from https://go.dev/dl/ (or a package golang-go that is as new) and put it in PATH"))
                .hint("kup bundle fetch downloads the same bundle and needs no Go"));
        }
    };
    let flags = output("go", &["env", "GOFLAGS"], here, PROBE_DEADLINE).await?;
    let modcacherw = flags.split_whitespace().any(|f| f == "-modcacherw");

    let libraries: Vec<&str> = components.iter().filter_map(|c| needs(c)).collect();
    let mut cc = String::new();
    if !libraries.is_empty() {
        let compiler = compiler(arch, host);
        let version =
            output(&compiler, &["--version"], here, PROBE_DEADLINE).await.map_err(|e| missing(&e, arch, host, &libraries))?;
        cc = version.lines().next().unwrap_or_default().to_owned();
        for library in &libraries {
            probe(&compiler, library).await.map_err(|e| missing(&e, arch, host, &libraries))?;
        }
        if libraries.contains(&"seccomp") {
            // Go's binding finds the library through it.
            output("pkg-config", &["--version"], here, PROBE_DEADLINE).await.map_err(|e| missing(&e, arch, host, &libraries))?;
        }
    }
    Ok(Toolchain { go, cc, modcacherw })
}

/// The C library that a component is linked with, if it has C in it.
fn needs(component: &Component) -> Option<&'static str> {
    match &component.make {
        Make::Go { cgo: true, tags, .. } if tags.contains(&"seccomp") => Some("seccomp"),
        Make::Go { cgo: true, .. } | Make::C { .. } => Some("c"),
        Make::Go { .. } => None,
    }
}

fn is_new_enough(words: &str, needed: &[u32]) -> bool {
    let version =
        words.split_whitespace().find_map(|w| w.strip_prefix("go1.")).map(|rest| modules::numbers(&format!("1.{rest}")));
    version.is_some_and(|v| v.as_slice() >= needed)
}

/// Links a program statically with a library, as the build will.
async fn probe(compiler: &str, library: &str) -> Result<()> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let source = match library {
        "seccomp" => "#include <seccomp.h>\nint main(void) { return seccomp_init(SCMP_ACT_ALLOW) == 0; }\n",
        _ => "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n",
    };
    std::fs::write(dir.path().join("probe.c"), source).context("cannot write a test program")?;
    let link = format!("-l{library}");
    output(compiler, &["-static", "-o", "probe", "probe.c", &link], dir.path(), PROBE_DEADLINE).await.map(drop)
}

fn missing(found: &Error, arch: Arch, host: Arch, libraries: &[&str]) -> Error {
    let mut packages = match arch == host {
        true => vec!["gcc".to_owned(), "libc6-dev".to_owned()],
        false => vec![format!("gcc-{}", arch.triplet().replace('_', "-")), format!("libc6-dev-{arch}-cross")],
    };
    let mut before = "";
    if libraries.contains(&"seccomp") {
        packages.push("pkg-config".into());
        if arch == host {
            packages.push("libseccomp-dev".into());
        } else {
            packages.push(format!("libseccomp-dev:{arch}"));
            before = match arch {
                Arch::Amd64 => "dpkg --add-architecture amd64 && apt-get update && ",
                Arch::Arm64 => "dpkg --add-architecture arm64 && apt-get update && ",
            };
        }
    }
    Error::new(format!("building the bundle for {arch} needs a C compiler and static libraries that this machine lacks"))
        .why(&found.what)
        .why(found.why.join("\n"))
        .hint(format!("on Debian: {before}apt-get install {}", packages.join(" ")))
        .hint("kup bundle fetch downloads the same bundle and needs no compiler")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_compare_as_numbers() {
        for (words, enough) in [
            ("go version go1.26.8 linux/amd64", true),
            ("go version go1.26.10 linux/amd64", true),
            ("go version go1.26.5 linux/amd64", false),
            ("go version go1.9 linux/amd64", false),
            ("go version go1.27rc1 linux/amd64", true),
            ("go version devel +abc", false),
        ] {
            assert_eq!(is_new_enough(words, &[1, 26, 6]), enough, "{words}");
        }
    }

    #[tokio::test]
    async fn a_missing_library_is_named_with_its_package() {
        let e = probe("gcc", "no-such-library").await.unwrap_err();
        let e = missing(&e, Arch::Arm64, Arch::Amd64, &["seccomp"]);
        assert!(e.to_string().contains("libseccomp-dev:arm64"), "{e}");
        assert!(e.to_string().contains("no-such-library"), "{e}");
    }
}
