//! A snapshot on this host: an open file that has no name, so that nothing of it is left however kup ends. Checked before it is used.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::{Backup, about};
use crate::error::{Context as _, Error, Result};

/// How a gzip stream begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// etcd ends a snapshot with its SHA-256. What comes before is whole pages of its database, so many times this.
const SUM: usize = 32;
const PAGE: u64 = 512;
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// A compressed snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    file: Arc<File>,
    /// Its bytes.
    pub size: u64,
    /// Of the compressed snapshot, hexadecimal.
    pub sha256: String,
}

/// A file without a name, for what is not to be found by anybody.
pub fn nameless() -> Result<File> {
    tempfile::tempfile().context("cannot make a temporary file")
}

impl Snapshot {
    /// What was written into a file, whose sum is known.
    pub fn new(file: File, size: u64, sha256: String) -> Snapshot {
        Snapshot { file: Arc::new(file), size, sha256 }
    }

    /// From a file of the user's, compressed or as etcd gave it, with what is beside it, if anything is.
    ///
    /// # Errors
    /// It can't be read, or is another one than is told of it.
    pub fn open(path: &Path) -> Result<(Snapshot, Option<Backup>)> {
        let what = || format!("cannot read the snapshot {}", path.display());
        let mut source = File::open(path).with_context(what)?;
        let mut begin = [0; 2];
        let compressed = source.read_at(&mut begin, 0).with_context(what)? == 2 && begin == GZIP;
        let mut file = nameless()?;
        if compressed {
            io::copy(&mut source, &mut file).with_context(what)?;
        } else {
            let mut packed = GzEncoder::new(file, Compression::fast());
            io::copy(&mut source, &mut packed).with_context(what)?;
            file = packed.finish().with_context(what)?;
        }
        file.flush().with_context(what)?;
        let size = file.stream_position().with_context(what)?;
        let snapshot = Snapshot::new(file, size, String::new());
        let sha256 = hash(snapshot.reader()).with_context(what)?;
        let snapshot = Snapshot { sha256, ..snapshot };
        let told = match path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".db.gz")) {
            Some(name) => path.with_file_name(about(name)),
            None => return Ok((snapshot, None)),
        };
        let backup = match std::fs::read_to_string(&told) {
            Ok(text) => Backup::parse(&text).map_err(|e| e.within(format!("cannot use {}", told.display())))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((snapshot, None)),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", told.display())),
        };
        if backup.sha256 != snapshot.sha256 {
            return Err(damaged(path.display()).why(format!("its SHA-256 is not the one in {}", told.display())));
        }
        Ok((snapshot, Some(backup)))
    }

    /// Reads it from its beginning. Several may read at once.
    pub fn reader(&self) -> Reader {
        Reader { file: self.file.clone(), at: 0 }
    }

    /// A part of it.
    pub fn part(&self, at: u64, size: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, at).context("cannot read a temporary file")?;
        Ok(bytes)
    }

    /// Checks that it is whole by the sum that etcd ended it with. Reads all of it.
    ///
    /// # Errors
    /// It isn't, or is no snapshot at all.
    pub fn check(&self) -> Result<()> {
        let mut stream = GzDecoder::new(self.reader());
        let (mut hasher, mut tail, mut size) = (Sha256::new(), Vec::new(), 0_u64);
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(damaged("the snapshot").why(e)),
            };
            tail.extend_from_slice(chunk.get(..n).unwrap_or_default());
            size += n as u64;
            let sure = tail.len().saturating_sub(SUM);
            hasher.update(tail.get(..sure).unwrap_or_default());
            tail.drain(..sure);
        }
        if size % PAGE != SUM as u64 {
            return Err(damaged("the snapshot").why("it does not end with a checksum, as `etcdctl snapshot save` writes it"));
        }
        if hasher.finalize().as_slice() != tail {
            return Err(damaged("the snapshot").why("its checksum is not the one that it ends with"));
        }
        Ok(())
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(format!("{what} is damaged; nothing was changed")).hint("`kup etcd list` shows the others")
}

/// Reads a snapshot from a place of its own.
pub struct Reader {
    file: Arc<File>,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// The SHA-256 of all that can be read, hexadecimal.
pub fn hash(mut from: impl Read) -> io::Result<String> {
    let (mut hasher, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => hasher.update(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backup::tests::backup;

    /// What etcd would give: pages, and their sum.
    pub(crate) fn pages(count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count * 512).map(|n| (n * 7 % 251) as u8).collect();
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// The same, compressed.
    pub(crate) fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn opened(bytes: &[u8], name: &str) -> Result<(Snapshot, Option<Backup>)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        Snapshot::open(&dir.path().join(name))
    }

    #[test]
    fn a_snapshot_is_taken_compressed_or_not_and_any_changed_byte_is_seen() {
        let whole = pages(300);
        for bytes in [whole.clone(), packed(&whole)] {
            let (snapshot, about) = opened(&bytes, "x.db").unwrap();
            snapshot.check().unwrap();
            assert_eq!(about, None);
            assert_eq!(hash(snapshot.reader()).unwrap(), snapshot.sha256);
            let mut unpacked = Vec::new();
            GzDecoder::new(snapshot.reader()).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == whole);
            assert_eq!(snapshot.part(1, 2).unwrap().len(), 2);
        }
        let mut changed = whole.clone();
        changed[70_000] ^= 1;
        let cut = packed(&whole);
        for (bad, why) in [
            (changed, "not the one that it ends with"),
            (whole[..whole.len() - 1].to_vec(), "does not end with a checksum"),
            (whole[..whole.len() - 512].to_vec(), "not the one that it ends with"),
            (Vec::new(), "does not end with a checksum"),
            (cut[..cut.len() - 9].to_vec(), "damaged"),
        ] {
            let error = opened(&bad, "x.db").unwrap().0.check().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_told_beside_it_must_be_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (name, bytes) = ("etcd-20261126T131500Z-7-hand", packed(&pages(2)));
        let path = dir.path().join(format!("{name}.db.gz"));
        std::fs::write(&path, &bytes).unwrap();
        let told = backup(name, bytes.len() as u64, &hash(bytes.as_slice()).unwrap());
        std::fs::write(dir.path().join(about(name)), serde_json::to_string(&told).unwrap()).unwrap();
        assert_eq!(Snapshot::open(&path).unwrap().1, Some(told));
        std::fs::write(&path, packed(&pages(3))).unwrap();
        assert!(Snapshot::open(&path).unwrap_err().what.contains("damaged"));
    }
}
