//! A bundle that was damaged is found out before it runs, repaired by the part, and packed for machines that can't mount it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundle_mirror;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use bundle_mirror::{Mirror, fake, sha256};
use kup::bundle::manifest::Role;
use kup::bundle::{Arch, Bundle, pack};
use kup::report::Report;

const V: &str = "1.37.1";

async fn bundle() -> (Mirror, tempfile::TempDir, Bundle) {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let cache = tempfile::tempdir().unwrap();
    let bundle = mirror.fetch(cache.path(), V, Arch::Amd64, &[]).run(&Report::silent()).await.unwrap().unwrap();
    (mirror, cache, bundle)
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_only_its_component_is_fetched_again() {
    let (mirror, cache, bundle) = bundle().await;
    bundle.verify(false).unwrap();
    mirror.requests();
    let path = bundle.dir.join("bin/etcd");
    let good = fs::read(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_at(&[good[3000] ^ 1], 3000).unwrap();

    let e = bundle.verify(false).unwrap_err().to_string();
    let found = sha256(&fs::read(&path).unwrap());
    for part in ["bin/etcd", sha256(&good).as_str(), found.as_str(), "kup bundle fetch --version 1.37.1 --arch amd64"] {
        assert!(e.contains(part), "{part} is not in: {e}");
    }
    // Asking again doesn't make it right.
    bundle.verify(false).unwrap_err();

    mirror.fetch(cache.path(), V, Arch::Amd64, &[]).run(&Report::silent()).await.unwrap().unwrap().verify(true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), good);
    let asked: Vec<String> = mirror.requests().into_iter().map(|(path, _)| path).collect();
    assert!(!asked.is_empty() && asked.iter().all(|path| path.contains("etcd-io/etcd")), "{asked:?}");
}

#[tokio::test]
async fn damage_that_keeps_size_and_time_is_found_by_the_thorough_check() {
    let (_mirror, _cache, bundle) = bundle().await;
    bundle.verify(true).unwrap();
    let path = bundle.dir.join("images/coredns.tar");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_at(b"damage", 2000).unwrap();
    file.set_modified(time).unwrap();
    bundle.verify(false).unwrap();
    assert!(bundle.verify(true).unwrap_err().to_string().contains("images/coredns.tar"));
}

#[tokio::test]
async fn truncated_missing_and_replaced_files_are_all_named() {
    let (_mirror, _cache, bundle) = bundle().await;
    fs::OpenOptions::new().write(true).open(bundle.dir.join("bin/runc")).unwrap().set_len(100).unwrap();
    fs::remove_file(bundle.dir.join("cni/bridge")).unwrap();
    fs::remove_file(bundle.dir.join("bin/ctr")).unwrap();
    std::os::unix::fs::symlink("/bin/true", bundle.dir.join("bin/ctr")).unwrap();
    let e = bundle.verify(false).unwrap_err().to_string();
    for path in ["bin/runc", "cni/bridge", "bin/ctr"] {
        assert!(e.contains(path), "{path} is not in: {e}");
    }
    assert!(e.contains("(100 bytes)"), "{e}");
}

#[tokio::test]
async fn a_manifest_may_not_lead_out_of_the_bundle() {
    let (_mirror, cache, bundle) = bundle().await;
    let path = bundle.dir.join("bundle.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("path: bin/etcd\n", "path: ../../../../bin/etcd\n")).unwrap();
    assert!(Bundle::open(cache.path(), V, Arch::Amd64).unwrap_err().to_string().contains("is not a path inside the bundle"));
    // One that lacks a file is no bundle that this kup can use.
    fs::write(&path, text.replace("path: bin/etcd\n", "path: bin/etcd-old\n")).unwrap();
    assert!(Bundle::open(cache.path(), V, Arch::Amd64).unwrap().is_none());
}

#[tokio::test]
async fn a_pack_unpacks_with_tar_and_gzip_and_is_made_once() {
    let (_mirror, _cache, bundle) = bundle().await;
    let minion = pack::pack(&bundle, &[Role::Minion, Role::Both, Role::Image], &Report::silent()).unwrap();
    assert_eq!(sha256(&fs::read(&minion.path).unwrap()), minion.sha256);
    let target = tempfile::tempdir().unwrap();
    let script = format!("gzip -dc {} | tar -x && sha256sum -c --quiet SHA256SUMS", minion.path.display());
    let output = Command::new("sh").args(["-ec", &script]).current_dir(target.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(target.path().join("bin/kubelet")).unwrap(), fake("kubelet", V, Arch::Amd64));
    assert_eq!(fs::metadata(target.path().join("bin/kubelet")).unwrap().mode() & 0o777, 0o755);
    assert!(target.path().join("images/pause.tar").exists());
    // A minion gets nothing that only masters run, nor test images.
    for absent in ["bin/etcd", "bin/kube-apiserver", "bin/kubectl", "images/agnhost.tar"] {
        assert!(!target.path().join(absent).exists(), "{absent}");
    }
    // The second time it is the very same file; another set of roles is another pack.
    let inode = fs::metadata(&minion.path).unwrap().ino();
    let again = pack::pack(&bundle, &[Role::Minion, Role::Both, Role::Image], &Report::silent()).unwrap();
    assert_eq!((&again, fs::metadata(&again.path).unwrap().ino()), (&minion, inode));
    let master = pack::pack(&bundle, &[Role::Master, Role::Both, Role::Image], &Report::silent()).unwrap();
    assert_ne!(master.path, minion.path);
    // A damaged pack is made again.
    fs::write(&minion.path, b"damaged").unwrap();
    assert_eq!(pack::pack(&bundle, &[Role::Minion, Role::Both, Role::Image], &Report::silent()).unwrap(), minion);
    assert_eq!(sha256(&fs::read(&minion.path).unwrap()), minion.sha256);
}
