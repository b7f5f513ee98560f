//! Tests of the private key on this machine: what is read, what is refused, and what is made and removed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use super::*;

fn write(path: &Path, text: &str, mode: u32) {
    state::write_atomic(path, text.as_bytes(), mode).unwrap();
}

fn generated(directory: &Path, options: &[&str]) -> Option<(PathBuf, PublicKey)> {
    let path = directory.join("made");
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(options).output();
    // Without OpenSSH at hand there is nothing to compare with.
    made.ok().filter(|made| made.status.success())?;
    let public = PublicKey::from_openssh(fs::read_to_string(beside(&path)).unwrap().trim()).unwrap();
    Some((path, public))
}

#[test]
fn keys_of_openssh_are_read_in_all_their_forms() {
    for options in [
        &["-t", "ed25519"][..],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        &["-t", "rsa", "-b", "4096", "-m", "PKCS8"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let Some((path, public)) = generated(directory.path(), options) else { return };
        let read = read(&path).unwrap().unwrap();
        assert_eq!(read.key_data(), public.key_data(), "{options:?}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write(&path, "rubbish", 0o600);
    assert!(read(&path).unwrap_err().what.ends_with("is not a private SSH key that kup can read"));
    write(&path, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", 0o600);
    assert!(read(&path).unwrap_err().what.contains("has a passphrase"));
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap().to_openssh(LineEnding::LF).unwrap();
    write(&path, &key, 0o644);
    let error = read(&path).unwrap_err();
    assert!(error.what.contains("others can read"), "{error}");
    assert_eq!(error.hints, [format!("`chmod 600 {}`", path.display())]);
    write(&path, &key, 0o600);
    assert!(read(&path).unwrap().is_some());
    let other = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
    write(&beside(&path), &line(other.public_key().clone()).unwrap(), 0o644);
    assert!(read(&path).unwrap_err().what.contains("is not the public half of"));
    for (options, words) in
        [(&["-t", "ecdsa"][..], "is a key of the kind ecdsa"), (&["-t", "rsa", "-b", "3072"], "RSA key of 3072 bits")]
    {
        let directory = tempfile::tempdir().unwrap();
        let Some((path, _)) = generated(directory.path(), options) else { return };
        let error = read(&path).unwrap_err();
        assert!(error.what.contains(words), "{error}");
    }
}

#[test]
fn a_key_is_promised_then_made_and_goes_with_its_last_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ssh").join("kube_aws_rsa");
    let promised = public_at(&path).unwrap();
    assert_eq!(promised, public_at(&path).unwrap(), "the same key until it is written");
    assert!(!path.exists(), "planning writes nothing");
    let print = fingerprint(&promised).unwrap();
    let book = Book::at(directory.path().join("state").join("keys.json")).unwrap();
    keep_in(&book, &path, &print, "1/r/a").unwrap();
    keep_in(&book, &path, &print, "1/r/b").unwrap();
    assert_eq!(public_at(&path).unwrap(), promised);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    release_in(&book, "1/r/a").unwrap();
    assert!(path.exists(), "another cluster uses it");
    release_in(&book, "1/r/b").unwrap();
    assert!(!path.exists() && !beside(&path).exists());
    assert!(!book.path.exists(), "nothing is left to know");
}

#[test]
fn a_promised_key_gives_way_to_the_one_that_another_cluster_got_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let promised = fingerprint(&public_at(&path).unwrap()).unwrap();
    // Another process has kept its own promise meanwhile.
    let other = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
    let print = other.fingerprint(HashAlg::Sha256).to_string();
    write(&path, &other.to_openssh(LineEnding::LF).unwrap(), 0o600);
    let book = Book::at(directory.path().join("keys.json")).unwrap();
    assert!(keep_in(&book, &path, &promised, "1/r/b").is_err(), "nobody says that it is kup's");
    let users = BTreeSet::from(["1/r/a".to_owned()]);
    book.write(&Made(BTreeMap::from([(path.clone(), Record { fingerprint: print.clone(), users })]))).unwrap();
    let public = keep_in(&book, &path, &promised, "1/r/b").unwrap();
    assert_eq!(fingerprint(&public).unwrap(), print);
    release_in(&book, "1/r/a").unwrap();
    assert!(path.exists(), "the second cluster uses it");
    release_in(&book, "1/r/b").unwrap();
    assert!(!path.exists());
}

#[test]
fn a_key_of_somebody_else_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let text = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap().to_openssh(LineEnding::LF).unwrap();
    write(&path, &text, 0o600);
    let print = fingerprint(&public_at(&path).unwrap()).unwrap();
    let book = Book::at(directory.path().join("keys.json")).unwrap();
    keep_in(&book, &path, &print, "1/r/a").unwrap();
    release_in(&book, "1/r/a").unwrap();
    assert!(path.exists());
    // Another key than the one that was planned with.
    let error = keep_in(&book, &path, "SHA256:other", "1/r/a").unwrap_err();
    assert!(error.what.contains("another one than before"), "{error}");
}

#[test]
fn a_key_put_in_the_place_of_one_that_kup_made_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let print = fingerprint(&public_at(&path).unwrap()).unwrap();
    let book = Book::at(directory.path().join("keys.json")).unwrap();
    keep_in(&book, &path, &print, "1/r/a").unwrap();
    let text = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap().to_openssh(LineEnding::LF).unwrap();
    write(&path, &text, 0o600);
    remove(&beside(&path)).unwrap();
    release_in(&book, "1/r/a").unwrap();
    assert!(path.exists());
}

#[test]
fn a_public_half_that_was_left_alone_goes_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let print = fingerprint(&public_at(&path).unwrap()).unwrap();
    let book = Book::at(directory.path().join("keys.json")).unwrap();
    keep_in(&book, &path, &print, "1/r/a").unwrap();
    remove(&path).unwrap();
    release_in(&book, "1/r/a").unwrap();
    assert!(!beside(&path).exists());
    // But not another key's.
    keep_in(&book, &path, &print, "1/r/a").unwrap();
    let other = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
    remove(&path).unwrap();
    write(&beside(&path), &other.public_key().to_openssh().unwrap(), 0o644);
    release_in(&book, "1/r/a").unwrap();
    assert!(beside(&path).exists());
}
