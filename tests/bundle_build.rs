//! `kup bundle build`: how each component is built, and one that really is.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use kup::bundle::build::{Build, plan};
use kup::bundle::component::{COMPONENTS, Place, named};
use kup::bundle::{Arch, Releases, image, modules};
use kup::report::Report;

#[test]
fn commands_and_flags_of_every_component() {
    let release = Releases::load().unwrap().release("1.37.1").unwrap();
    let plans: Vec<_> = COMPONENTS.iter().map(|c| plan(c, &release, Arch::Amd64, Arch::Amd64).unwrap()).collect();
    insta::assert_yaml_snapshot!(plans);
}

#[test]
fn for_another_architecture_only_the_compilers_differ() {
    let release = Releases::load().unwrap().release("1.37.1").unwrap();
    for component in COMPONENTS {
        let here = plan(component, &release, Arch::Amd64, Arch::Amd64).unwrap();
        let there = plan(component, &release, Arch::Arm64, Arch::Amd64).unwrap();
        if component.name == "pause" {
            assert_eq!(there.command[0], "aarch64-linux-gnu-gcc");
            assert_eq!(here.command[1..], there.command[1..]);
        } else {
            assert_eq!(here.command, there.command);
            assert!(there.env.contains(&("GOARCH".into(), "arm64".into())), "{}", component.name);
            let with_c = there.env.contains(&("CGO_ENABLED".into(), "1".into()));
            assert_eq!(there.env.iter().any(|(k, v)| k == "CC" && v == "aarch64-linux-gnu-gcc"), with_c, "{}", component.name);
        }
    }
}

/// By the flags and settings of the bundle's own build, so that what is compiled for one serves the other.
#[test]
fn programs_of_our_own_pass_their_tests() {
    let release = Releases::load().unwrap().release("1.37.1").unwrap();
    let host = Arch::host().unwrap();
    let mut tested = Vec::new();
    for component in COMPONENTS {
        let plan = plan(component, &release, host, host).unwrap();
        if !modules::has_tests(&plan.module) {
            continue;
        }
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bundle").join(&plan.module);
        let mut command = Command::new("go");
        command.args(["test", "-mod=readonly", "-trimpath", "-timeout=5m", "./..."]).current_dir(dir);
        let said = command.env("GOFLAGS", "-buildvcs=false").envs(plan.env).output().unwrap();
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.status.success(), "{}: {text}", component.name);
        tested.push(component.name);
    }
    assert_eq!(tested, ["node-approver"]);
}

#[tokio::test]
async fn a_component_is_built_once_and_again_when_it_is_damaged() {
    let cache = tempfile::tempdir().unwrap();
    let release = Releases::load().unwrap().release("1.37.1").unwrap();
    let build =
        Build { cache: cache.path().into(), release, arch: Arch::host().unwrap(), jobs: 1, only: vec!["cni-plugins".into()] };
    // One component alone is not yet a bundle.
    assert!(build.run(&Report::silent()).await.unwrap().is_none());
    assert!(!cache.path().join("bundles").join(format!("1.37.1-{}", build.arch)).join("bundle.yaml").exists());

    let record = fs::read_dir(cache.path().join("components")).unwrap().next().unwrap().unwrap().path();
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let files = record["files"].as_array().unwrap();
    assert_eq!(files.len(), 6);
    let loopback = files.iter().find(|f| f["name"] == "loopback").unwrap();
    assert_eq!(loopback["source"], "github.com/containernetworking/plugins@v1.9.1");
    let object = cache.path().join("objects/sha256").join(loopback["sha256"].as_str().unwrap());
    let said = Command::new(&object).arg("--version").output().unwrap();
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.contains("CNI loopback plugin v1.9.1"), "{said}");

    let inode = |p| fs::metadata(p).unwrap().ino();
    let before = inode(&object);
    build.run(&Report::silent()).await.unwrap();
    assert_eq!(inode(&object), before, "it was built a second time");

    // Builds are reproducible: the damaged file comes back under the same checksum.
    let whole = fs::read(&object).unwrap();
    fs::write(&object, &whole[..whole.len() / 2]).unwrap();
    build.run(&Report::silent()).await.unwrap();
    assert_eq!(fs::read(&object).unwrap(), whole);
}

#[tokio::test]
async fn an_unknown_component_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let release = Releases::load().unwrap().release("1.37.1").unwrap();
    let build = Build { cache: cache.path().into(), release, arch: Arch::Amd64, jobs: 1, only: vec!["kubernets".into()] };
    let e = build.run(&Report::silent()).await.unwrap_err();
    assert_eq!(e.kind, kup::error::Kind::Usage);
    assert!(e.to_string().contains("kubernetes"), "{e}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn the_same_executable_makes_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let executable = dir.path().join("coredns");
    fs::write(&executable, b"some executable").unwrap();
    let Place::Image(wanted) = &named("coredns").unwrap().items[0].place else { panic!("coredns is an image") };
    let make = |name: &str| {
        let archive = dir.path().join(name);
        image::from_executable(&archive, wanted, "1.15.0", "coredns", &executable, Arch::Arm64).unwrap();
        fs::read(archive).unwrap()
    };
    let first = make("a.tar");
    // Neither the time nor the executable's own dates come in.
    fs::File::options().write(true).open(&executable).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(first, make("b.tar"));

    let mut blobs = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(first.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        blobs.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    let docker: serde_json::Value = serde_json::from_slice(&blobs["manifest.json"]).unwrap();
    assert_eq!(docker[0]["RepoTags"][0], "registry.k8s.io/coredns/coredns:v1.15.0");
    let config: serde_json::Value = serde_json::from_slice(&blobs[docker[0]["Config"].as_str().unwrap()]).unwrap();
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["config"]["User"], "65532:65532");
    let layer = &blobs[docker[0]["Layers"][0].as_str().unwrap()];
    let mut layer = tar::Archive::new(layer.as_slice());
    let mut entry = layer.entries().unwrap().next().unwrap().unwrap();
    // Without this capability it could not bind port 53 as that user.
    let capability =
        entry.pax_extensions().unwrap().unwrap().map(|e| e.unwrap()).any(|e| e.key() == Ok("SCHILY.xattr.security.capability"));
    assert!(capability);
}
