//! The bundle as one stream, for a machine that doesn't mount it: a tar.gz of all files that it needs, and their `SHA256SUMS`.
//!
//! Each file is a gzip member of its own (gzip(1) reads members one after the other as one stream), so all cores compress at once. The
//! result is kept beside the objects under a name made of its content: a second machine costs no work.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::{Context, Error, Result};
use crate::report::event::Unit as Count;
use crate::report::{Report, Span};

use super::manifest::{File, Role};
use super::{Bundle, image, verify};

/// The list of checksums in the archive: `sha256sum -c SHA256SUMS` in the directory it was unpacked in.
pub const SUMS: &str = "SHA256SUMS";

/// A packed bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The tar.gz.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its sha256, in hexadecimal.
    pub sha256: String,
}

/// Packs the files of a verified bundle that have one of these roles. Uses all cores; blocks.
pub fn pack(bundle: &Bundle, roles: &[Role], report: &Report) -> Result<Pack> {
    let files: Vec<&File> = bundle.manifest.files.iter().filter(|f| roles.contains(&f.role)).collect();
    let sums: String = files.iter().map(|f| format!("{}  {}\n", f.sha256, f.path)).collect();
    let cache = bundle.dir.parent().and_then(Path::parent).ok_or_else(|| Error::new("the bundle is in no cache"))?;
    let dir = cache.join("packs");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    // The gzip bytes follow from the checksums and modes: same list, same pack.
    let key = image::sha256(sums.as_bytes());
    let (path, sum) = (dir.join(format!("{key}.tar.gz")), dir.join(format!("{key}.sha256")));
    if let (Ok(text), Ok((size, sha256))) = (fs::read_to_string(&sum), verify::hash(&path))
        && text.trim() == sha256
    {
        return Ok(Pack { path, size, sha256 });
    }
    let span = report.step(format!("Packing bundle {}-{}", bundle.manifest.kubernetes, bundle.manifest.arch));
    let outcome = write(bundle, &files, &sums, &path, &dir, &span).and_then(|()| {
        let (size, sha256) = verify::hash(&path)?;
        crate::state::write_atomic(&sum, sha256.as_bytes(), 0o644)?;
        Ok(Pack { path, size, sha256 })
    });
    span.close(outcome)
}

fn write(bundle: &Bundle, files: &[&File], sums: &str, path: &Path, dir: &Path, span: &Span) -> Result<()> {
    let what = || format!("cannot pack the bundle into {}", path.display());
    let temporary = tempfile::tempdir_in(dir).with_context(what)?;
    let total: u64 = files.iter().map(|f| f.size).sum();
    let done = std::sync::atomic::AtomicU64::new(0);
    let numbered: Vec<(usize, &File)> = files.iter().copied().enumerate().collect();
    let members = verify::parallel(&numbered, |(i, file)| -> io::Result<PathBuf> {
        let member = temporary.path().join(i.to_string());
        let mode = if file.path.starts_with("images/") { 0o644 } else { 0o755 };
        let content = fs::File::open(bundle.dir.join(&file.path))?;
        compress(&member, &file.path, mode, file.size, content)?;
        let now = done.fetch_add(file.size, std::sync::atomic::Ordering::Relaxed) + file.size;
        span.progress(now, Some(total), Count::Bytes);
        Ok(member)
    });
    let first = temporary.path().join(SUMS);
    compress(&first, SUMS, 0o644, sums.len() as u64, sums.as_bytes()).with_context(what)?;

    let mut pack = tempfile::NamedTempFile::new_in(dir).with_context(what)?;
    for member in std::iter::once(Ok(first)).chain(members) {
        let member = member.with_context(what)?;
        let mut content = fs::File::open(&member).with_context(what)?;
        io::copy(&mut content, &mut pack).with_context(what)?;
        drop(content);
        super::store::remove(&member)?;
    }
    // The two blocks of zeros that end an archive.
    let mut end = GzEncoder::new(&mut pack, Compression::fast());
    end.write_all(&[0; 1024]).with_context(what)?;
    end.finish().with_context(what)?;
    pack.as_file().sync_all().with_context(what)?;
    pack.persist(path).map_err(|e| e.error).with_context(what)?;
    Ok(())
}

/// One file as a tar entry in a gzip member of its own.
fn compress(member: &Path, name: &str, mode: u32, size: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut gzip = GzEncoder::new(io::BufWriter::new(fs::File::create(member)?), Compression::fast());
    gzip.write_all(header.as_bytes())?;
    let copied = io::copy(&mut content.take(size), &mut gzip)?;
    if copied != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} has {copied} bytes, its manifest says {size}")));
    }
    gzip.write_all(&vec![0; (512 - (size % 512) as usize) % 512])?;
    gzip.finish()?.into_inner().map_err(|e| e.into_error())?.sync_all()
}
