//! `kup bundle fetch` against a mirror over HTTP: what comes, what is refused, and what a broken line leaves.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bundle_mirror;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bundle_mirror::{Mirror, fake, path_of, repository, sha256};
use kup::bundle::releases::{Checksum, Origin};
use kup::bundle::{Arch, Bundle, Releases};
use kup::report::Report;

const V: &str = "1.37.1";
const KUBELET: &str = "dl.k8s.io/release/v1.37.1/bin/linux/amd64/kubelet";

/// All files below a directory, as relative paths.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { todo.push(path) } else { found.push(path.strip_prefix(dir).unwrap().display().to_string()) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn fetches_every_component_and_nothing_twice() {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let cache = tempfile::tempdir().unwrap();
    let fetch = mirror.fetch(cache.path(), V, Arch::Amd64, &[]);
    let bundle = fetch.run(&Report::silent()).await.unwrap().unwrap();
    bundle.verify(true).unwrap();

    // What machines will execute is what was published, and executable by all.
    let kubelet = bundle.dir.join("bin/kubelet");
    assert_eq!(fs::read(&kubelet).unwrap(), fake("kubelet", V, Arch::Amd64));
    assert_eq!(fs::metadata(&kubelet).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(bundle.dir.join("bin")).unwrap().permissions().mode() & 0o777, 0o755);
    for (file, version) in [
        ("bin/etcdctl", "3.7.3"),
        ("bin/aws-cloud-controller-manager", "1.37.0"),
        ("bin/flanneld", "0.28.4"),
        ("cni/host-local", "1.9.1"),
    ] {
        let name = file.rsplit('/').next().unwrap();
        assert_eq!(fs::read(bundle.dir.join(file)).unwrap(), fake(name, version, Arch::Amd64), "{file}");
    }
    // One inode for the object and the bundle's file.
    let object = cache.path().join("objects/sha256").join(sha256(&fake("kubelet", V, Arch::Amd64)));
    assert_eq!(fs::metadata(object).unwrap().ino(), fs::metadata(&kubelet).unwrap().ino());
    // The image kept its manifest, so its digest, and has the name that nodes ask for.
    let mut tar = tar::Archive::new(fs::File::open(bundle.dir.join("images/pause.tar")).unwrap());
    let mut content = std::collections::BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        content.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    let index: serde_json::Value = serde_json::from_slice(&content["index.json"]).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "registry.k8s.io/pause:3.10.2");
    let digest = entry["digest"].as_str().unwrap();
    let (base, _) = repository("registry.k8s.io/pause:3.10.2");
    assert_eq!(
        content[&digest.replace("sha256:", "blobs/sha256/")],
        fs::read(mirror.file(&format!("{base}/manifests/{digest}"))).unwrap()
    );
    for (path, bytes) in &content {
        if let Some(named) = path.strip_prefix("blobs/sha256/") {
            assert_eq!(named, sha256(bytes));
        }
    }
    // Nothing unfinished stays, and a second time nothing is asked for.
    assert!(files(&cache.path().join("downloads")).is_empty());
    assert!(files(&cache.path().join("work")).is_empty());
    assert!(mirror.requests().len() > 30);
    fetch.run(&Report::silent()).await.unwrap().unwrap();
    assert!(mirror.requests().is_empty());
    let again = Bundle::open(cache.path(), V, Arch::Amd64).unwrap().unwrap();
    assert_eq!(again.manifest, bundle.manifest);
}

#[tokio::test]
async fn versions_share_what_is_the_same() {
    let mirror = Mirror::new(&[V, "1.36.4"], &[Arch::Amd64]).await;
    let cache = tempfile::tempdir().unwrap();
    let mut inodes = Vec::new();
    for version in [V, "1.36.4"] {
        let bundle = mirror.fetch(cache.path(), version, Arch::Amd64, &[]).run(&Report::silent()).await.unwrap().unwrap();
        inodes.push((
            fs::metadata(bundle.dir.join("bin/etcd")).unwrap().ino(),
            fs::metadata(bundle.dir.join("bin/kubelet")).unwrap().ino(),
        ));
    }
    assert_eq!(inodes[0].0, inodes[1].0);
    assert_ne!(inodes[0].1, inodes[1].1);
}

#[tokio::test]
async fn a_cut_line_is_resumed_where_it_broke() {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let cache = tempfile::tempdir().unwrap();
    let size = fake("kubelet", V, Arch::Amd64).len();
    mirror.break_off(KUBELET, 2);
    mirror.fetch(cache.path(), V, Arch::Amd64, &[]).run(&Report::silent()).await.unwrap().unwrap().verify(true).unwrap();
    let ranges: Vec<Option<String>> =
        mirror.requests().into_iter().filter(|(path, _)| path == KUBELET).map(|(_, range)| range).collect();
    let half = size / 2;
    let rest = half + (size - half) / 2;
    assert_eq!(ranges, [None, Some(format!("bytes={half}-")), Some(format!("bytes={rest}-"))]);
}

#[tokio::test]
async fn a_line_that_stays_broken_ends_in_an_error_and_the_next_run_goes_on() {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let cache = tempfile::tempdir().unwrap();
    let fetch = mirror.fetch(cache.path(), V, Arch::Amd64, &["kubernetes"]);
    mirror.break_off(KUBELET, usize::MAX);
    let e = fetch.run(&Report::silent()).await.unwrap_err().to_string();
    assert!(e.contains(KUBELET), "{e}");
    assert!(e.contains("kup bundle build"), "{e}");

    mirror.break_off(KUBELET, 0);
    let bytes = fake("kubelet", V, Arch::Amd64);
    let downloads = cache.path().join("downloads/1.37.1-amd64");
    let part = files(&downloads).into_iter().find(|f| f.starts_with(&sha256(&bytes))).unwrap();
    let part = downloads.join(part);
    let have = fs::metadata(&part).unwrap().len();
    assert!(have > 0);
    mirror.requests();
    fetch.run(&Report::silent()).await.unwrap();
    assert!(mirror.requests().contains(&(KUBELET.into(), Some(format!("bytes={have}-")))));

    // A part whose bytes are wrong doesn't spoil the file for good.
    let object = cache.path().join("objects/sha256").join(sha256(&bytes));
    fs::remove_file(&object).unwrap();
    fs::write(&part, [0; 1000]).unwrap();
    fetch.run(&Report::silent()).await.unwrap();
    assert_eq!(fs::read(object).unwrap(), bytes);
}

#[tokio::test]
async fn what_differs_from_its_published_checksum_is_refused_and_removed() {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let mut bytes = fake("kubelet", V, Arch::Amd64);
    let expected = sha256(&bytes);
    bytes[5000] ^= 1;
    fs::write(mirror.file(KUBELET), &bytes).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let e = mirror.fetch(cache.path(), V, Arch::Amd64, &[]).run(&Report::silent()).await.unwrap_err().to_string();
    for part in [KUBELET, expected.as_str(), sha256(&bytes).as_str()] {
        assert!(e.contains(part), "{part} is not in: {e}");
    }
    assert!(Bundle::open(cache.path(), V, Arch::Amd64).unwrap().is_none());
    let left = files(cache.path());
    assert!(!left.iter().any(|f| f.ends_with("kubelet") || f.contains(&expected) || f.contains(&sha256(&bytes))), "{left:?}");

    // The same for an image's layer, which is named by its checksum.
    let (base, _) = repository("registry.k8s.io/pause:3.10.2");
    for entry in fs::read_dir(mirror.file(&format!("{base}/blobs"))).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let cache = tempfile::tempdir().unwrap();
    let e = mirror.fetch(cache.path(), V, Arch::Amd64, &["pause"]).run(&Report::silent()).await.unwrap_err().to_string();
    assert!(e.contains("expected sha256"), "{e}");
    assert!(files(&cache.path().join("objects")).is_empty());
}

#[tokio::test]
async fn nothing_is_taken_without_a_published_checksum() {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let release = Releases::load().unwrap().release(V).unwrap();
    let Origin::Archive(_, Checksum::Digests(record)) = release.origin("flannel", "flanneld", Arch::Amd64).unwrap() else {
        panic!("flannel's checksum is expected in a release record");
    };
    fs::write(mirror.file(&path_of(&record)), r#"{"assets":[]}"#).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let e = mirror.fetch(cache.path(), V, Arch::Amd64, &["flannel"]).run(&Report::silent()).await.unwrap_err().to_string();
    assert!(e.contains("has no sha256 of flannel-v0.28.4-linux-amd64.tar.gz"), "{e}");
    assert!(files(&cache.path().join("objects")).is_empty());
}

#[tokio::test]
async fn an_architecture_that_is_not_there_or_not_what_it_says() {
    let mirror = Mirror::new(&[V], &[Arch::Amd64]).await;
    let cache = tempfile::tempdir().unwrap();
    let e = mirror.fetch(cache.path(), V, Arch::Arm64, &[]).run(&Report::silent()).await.unwrap_err().to_string();
    assert!(e.contains("arm64"), "{e}");
    let e = mirror.fetch(cache.path(), V, Arch::Arm64, &["pause"]).run(&Report::silent()).await.unwrap_err().to_string();
    assert!(e.contains("has no image for linux/arm64") && e.contains("linux/amd64"), "{e}");
    assert!(Bundle::open(cache.path(), V, Arch::Arm64).unwrap().is_none());

    // Rightly published, but for another architecture.
    let bytes = fake("runc", "1.5.2", Arch::Amd64);
    let release = Releases::load().unwrap().release(V).unwrap();
    let Origin::Binary(url, Checksum::File(sums)) = release.origin("runc", "runc", Arch::Arm64).unwrap() else {
        panic!("runc is expected as a binary");
    };
    fs::write(mirror.file(&path_of(&url)), &bytes).unwrap();
    fs::write(mirror.file(&path_of(&sums)), format!("{}  runc.arm64\n", sha256(&bytes))).unwrap();
    let e = mirror.fetch(cache.path(), V, Arch::Arm64, &["runc"]).run(&Report::silent()).await.unwrap_err().to_string();
    assert!(e.contains("is not an executable for arm64"), "{e}");
    assert!(files(&cache.path().join("objects")).is_empty());
}

#[tokio::test]
async fn what_nobody_publishes_is_compiled_here_or_left_out() {
    let arch = Arch::host().unwrap();
    let mirror = Mirror::new(&[V], &[arch]).await;
    let cache = tempfile::tempdir().unwrap();
    let mut fetch = mirror.fetch(cache.path(), V, arch, &[]);
    let without = fetch.run(&Report::silent()).await.unwrap().unwrap();
    assert!(!without.dir.join("images/local-storage.tar").exists());
    assert!(Bundle::open(cache.path(), V, arch).unwrap().is_some(), "it is complete as it is");

    fetch.compile = true;
    let with = fetch.run(&Report::silent()).await.unwrap().unwrap();
    assert!(with.dir.join("images/local-storage.tar").exists());
    let file = with.manifest.file("local-storage").unwrap();
    assert_eq!(
        (file.source.as_str(), file.image.as_deref()),
        ("scripts/bundle/local-storage", Some("kup.dev/local-storage:v0.1.0"))
    );
    with.verify(true).unwrap();
    assert_eq!(Bundle::open(cache.path(), V, arch).unwrap().unwrap().manifest, with.manifest);
}
