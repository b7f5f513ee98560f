//! Manifests and records of bundles: none leads out of the bundle or of the cache, none has a word that a script would run, and nothing that
//! has another checksum is taken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use kup::bundle::component::COMPONENTS;
use kup::bundle::manifest::{File, Origin};
use kup::bundle::store::{Record, Store, Stored};
use kup::bundle::{Arch, Bundle, Manifest, Releases};
use kup::cluster::defaults;
use kup::machine::files::Images;
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest as _, Sha256};

use crate::engine::{self, Outcome};
use crate::holds;
use crate::machines::minion;
use crate::mutation::{Change, MARK, Style, any_change, changed, hostile, style};
use crate::render;

const V: &str = "1.37.1";

/// Every file of a bundle, with its own name in it.
fn whole(dir: &Path) -> Manifest {
    let release = Releases::load().unwrap().release(V).unwrap();
    let mut files = Vec::new();
    for component in COMPONENTS {
        for item in component.items {
            let bytes = item.name.as_bytes();
            let path = dir.join(item.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            let version = release.pin(component.name).unwrap().version.clone();
            files.push(File {
                name: item.name.into(),
                component: component.name.into(),
                role: item.role,
                path: item.path(),
                size: bytes.len() as u64,
                sha256: hex::encode(Sha256::digest(bytes)),
                source: "test".into(),
                image: item.path().starts_with("images/").then(|| format!("registry.k8s.io/{}:v{version}", item.name)),
                version,
            });
        }
    }
    Manifest::new(V, Arch::Amd64, Origin::Built, files)
}

/// A cache with one bundle, and beside it a file that is nobody's business.
struct World {
    dir: tempfile::TempDir,
    text: String,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join(format!("cache/bundles/{V}-amd64"));
        let text = whole(&bundle).to_yaml().unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        World { dir, text }
    }

    fn bundle(&self) -> std::path::PathBuf {
        self.dir.path().join(format!("cache/bundles/{V}-amd64"))
    }

    fn case(&self, text: &[u8]) -> Outcome {
        let dir = self.bundle();
        fs::write(dir.join("bundle.yaml"), text).map_err(|e| e.to_string())?;
        let shown = || String::from_utf8_lossy(text).chars().take(1500).collect::<String>();
        let outcome = self.read().map_err(|why| format!("{why}\nof\n{}", shown()));
        holds!(
            fs::read_to_string(self.dir.path().join("secret")).is_ok_and(|text| text == "secret"),
            "something beside the cache is gone"
        );
        outcome
    }

    fn read(&self) -> Outcome {
        let manifest = match Manifest::read(&self.bundle()) {
            Err(error) => {
                let text = error.to_string();
                holds!(
                    text.contains("bundle.yaml") && !error.hints.is_empty(),
                    "it does not say what and how to mend it: {error}"
                );
                holds!(!engine::is_obeyed(&text), "the message has control characters: {text:?}");
                return Ok(());
            }
            Ok(manifest) => manifest.ok_or("it is not there")?,
        };
        let dir = fs::canonicalize(self.bundle()).map_err(|e| e.to_string())?;
        for file in &manifest.files {
            let path = dir.join(&file.path);
            holds!(path.starts_with(&dir) && !file.path.split('/').any(|part| part == ".."), "it leads to {}", path.display());
        }
        let bundle = Bundle { dir: dir.clone(), manifest };
        if bundle.verify(true).is_ok() {
            for file in &bundle.manifest.files {
                let bytes = fs::read(dir.join(&file.path)).map_err(|e| e.to_string())?;
                holds!(hex::encode(Sha256::digest(&bytes)) == file.sha256, "{} is another one and was taken", file.path);
            }
        }
        let _ = Bundle::open(&self.dir.path().join("cache"), V, Arch::Amd64).map_err(|e| e.to_string())?;
        let Ok(images) = Images::of(&bundle.manifest) else { return Ok(()) };
        let cluster = defaults::cluster().map_err(|e| e.to_string())?;
        let told = minion();
        let files = render::files(&cluster, &told, &images)?;
        render::look(self.dir.path(), &cluster, &told, &files)?;
        let all: String = files.iter().map(|file| String::from_utf8_lossy(&file.contents).into_owned()).collect();
        // A name that is one letter by letter does no harm, whatever it is.
        let named = bundle.manifest.files.iter().any(|file| format!("{} {:?}", file.name, file.image).contains(MARK));
        holds!(named || !all.contains(MARK), "a word of the manifest stands in a machine's file");
        Ok(())
    }
}

#[test]
fn what_was_wrong_once_is_right() {
    let world = World::new();
    world.case(world.text.as_bytes()).unwrap();
    assert!(Bundle::open(&world.dir.path().join("cache"), V, Arch::Amd64).unwrap().is_some(), "the whole one is not taken");
    for (from, to) in [
        ("name: pause\n", "name: \"pause\\nEND\\ntouch KUPMARK\"\n"),
        ("image: registry.k8s.io/pause:", "image: \"x\\nEND\\ntouch KUPMARK\\n\" #"),
        ("path: bin/etcd\n", "path: bin/../../../../secret\n"),
        ("path: bin/etcd\n", "path: /etc/passwd\n"),
        ("path: bin/etcd\n", "path: \"bin/e\\ntcd\"\n"),
        ("path: bin/etcd\n", "path: ./bin/etcd\n"),
        ("path: bin/etcd\n", "path: .verified\n"),
        ("kubernetes: 1.37.1\n", "kubernetes: 1.37.1; touch KUPMARK\n"),
        ("sha256: ", "sha256: ../../secret #"),
    ] {
        assert!(world.text.contains(from), "{from}");
        let text = world.text.replacen(from, to, 1);
        world.case(text.as_bytes()).unwrap();
        assert!(Manifest::read(&world.bundle()).is_err(), "{to} was taken");
    }
    // A symbolic link in the place of a file, or of its directory, is none of the bundle's files.
    world.case(world.text.as_bytes()).unwrap();
    let etcd = world.bundle().join("bin/etcd");
    fs::write(world.dir.path().join("etcd"), "etcd").unwrap();
    fs::remove_file(&etcd).unwrap();
    symlink(world.dir.path().join("etcd"), &etcd).unwrap();
    let manifest = Manifest::read(&world.bundle()).unwrap().unwrap();
    assert!(Bundle { dir: world.bundle(), manifest }.verify(true).is_err(), "what a link leads to was taken");
}

#[test]
fn any_manifest_is_refused_or_stays_inside() {
    let world = World::new();
    let cases = (proptest::collection::vec(any_change(), 1..5), style());
    engine::run("bundle", 100, cases, |(changes, style): (Vec<Change>, Style)| {
        world.case(&changed(&world.text, &changes, style))
    });
}

#[test]
fn hostile_words_of_a_manifest_are_refused_or_harmless() {
    let world = World::new();
    let files: Vec<serde_json::Value> =
        serde_json::to_value(whole(&world.bundle())).unwrap()["files"].as_array().unwrap().clone();
    let fields = ["name", "component", "version", "path", "sha256", "source", "image"];
    let cases = (any::<Index>(), proptest::sample::select(fields.to_vec()), hostile(), proptest::option::of(any::<Index>()));
    engine::run("bundle's words", 100, cases, |(at, field, word, inside): (Index, &str, String, Option<Index>)| {
        // What machines are told of is mostly images: every second one is that of pause.
        let pause = files.iter().position(|file| file["name"] == "pause").unwrap_or_default();
        let index = if field == "image" { pause } else { at.index(files.len()) };
        let mut files = files.clone();
        let old = files[index][field].as_str().unwrap_or_default().to_owned();
        let mut new = old.clone();
        match inside {
            Some(point) => new.insert_str(old.floor_char_boundary(point.index(old.len() + 1)), &word),
            None => new = word,
        }
        files[index][field] = new.into();
        let root = serde_json::json!({
            "apiVersion": "kup.dev/v1", "kind": "Bundle", "kubernetes": V, "arch": "amd64", "origin": "built", "files": files,
        });
        world.case(serde_yaml::to_string(&root).map_err(|e| e.to_string())?.as_bytes())
    });
}

/// A record of the cache names objects, and what is broken of them is removed: it must be one of the cache's.
#[test]
fn any_record_stays_inside_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(&dir.path().join("cache"));
    let file = store.dir("work").unwrap().join("a");
    fs::write(&file, "a").unwrap();
    let (size, sha256) = store.add(&file, 0o644).unwrap();
    let stored = Stored { name: "etcd".into(), size, sha256: sha256.clone(), source: "test".into() };
    let record = Record { component: "etcd".into(), files: vec![stored] };
    let text = serde_json::to_string(&record).unwrap();
    store.remember("key", &record).unwrap();
    assert_eq!(store.record("key").unwrap(), Some(record));
    let secret = dir.path().join("secret");
    let path = dir.path().join("cache/components/key.json");
    let cases = (proptest::collection::vec(any_change(), 1..4), any::<bool>());
    engine::run("records", 100, cases, |(changes, out): (Vec<Change>, bool)| {
        fs::write(&secret, "secret").map_err(|e| e.to_string())?;
        // Where objects are, the secret is three directories above.
        let text = if out { text.replace(&sha256, "../../../secret") } else { text.clone() };
        fs::write(&path, changed(&text, &changes, Style::Json)).map_err(|e| e.to_string())?;
        let found = store.record("key").map_err(|e| e.to_string())?;
        holds!(fs::read(&secret).is_ok_and(|text| text == b"secret"), "a file beside the cache was removed");
        holds!(
            found.is_none_or(|record| record.files.iter().all(|file| file.sha256 == sha256)),
            "an object that is none was taken"
        );
        Ok(())
    });
}
