//! The bundle as one stream, for a machine that doesn't mount it: a tar.gz of all files that it needs, and their `SHA256SUMS`.
//!
//! Each file is a gzip member of its own (gzip(1) reads members one after the other as one stream), so all cores compress at once. The
//! result is kept beside the objects under a name made of its content: a second machine costs no work. Machines that fetch files one by
//! one get the same members ([`object`]).

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::{Context, Error, Result};
use crate::report::event::Unit as Count;
use crate::report::{Report, Span};

use super::manifest::{File, Manifest, Role};
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

/// The permission bits that a file of the bundle has on a machine.
pub fn mode(file: &File) -> u32 {
    if file.path.starts_with("images/") { 0o644 } else { 0o755 }
}

/// The object of a cluster's bucket that a file is in, compressed. `sha256` is that of the file itself.
pub fn key(sha256: &str) -> String {
    format!("bundle/{sha256}.gz")
}

/// What a machine is told of a file that it is to get out of the bucket: its sum, its object, its mode and its path, as one line.
pub fn line(file: &File) -> String {
    format!("{}  {}  {:04o} {}\n", file.sha256, key(&file.sha256), mode(file), file.path)
}

/// The files of a bundle that have one of these roles, and the text of their [`SUMS`].
pub fn sums<'a>(bundle: &'a Manifest, roles: &[Role]) -> (Vec<&'a File>, String) {
    let files: Vec<&File> = bundle.files.iter().filter(|f| roles.contains(&f.role)).collect();
    let sums = files.iter().map(|f| format!("{}  {}\n", f.sha256, f.path)).collect();
    (files, sums)
}

/// One file of a verified bundle, compressed by gzip. Kept for the next time; blocks.
pub fn object(bundle: &Bundle, file: &File) -> Result<Pack> {
    let dir = packs(bundle)?.join("objects");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let (path, sum) = (dir.join(format!("{}.gz", file.sha256)), dir.join(format!("{}.sha256", file.sha256)));
    if let Some(there) = standing(&path, &sum) {
        return Ok(there);
    }
    let what = || format!("cannot compress {} into {}", file.path, path.display());
    let mut temporary = tempfile::NamedTempFile::new_in(&dir).with_context(what)?;
    compress(bundle, file, &mut temporary).with_context(what)?;
    temporary.as_file().sync_all().with_context(what)?;
    temporary.persist(&path).map_err(|e| e.error).with_context(what)?;
    noted(path, &sum)
}

/// Any file, compressed by gzip into a temporary one in this directory; with the sum of the file itself. Blocks.
///
/// # Errors
/// It can't be read, or not be written.
pub fn archive(file: &Path, dir: &Path) -> Result<(String, (Pack, tempfile::TempPath))> {
    let what = || format!("cannot compress {}", file.display());
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let (length, sum) = verify::hash(file)?;
    let mut temporary = tempfile::Builder::new().prefix("archive-").suffix(".gz").tempfile_in(dir).with_context(what)?;
    let copied = fs::File::open(file).and_then(|content| member(&mut temporary, content)).with_context(what)?;
    if copied != length {
        return Err(Error::new(what()).why("it has changed in the meantime"));
    }
    let path = temporary.into_temp_path();
    let (size, sha256) = verify::hash(&path)?;
    Ok((sum, (Pack { path: path.to_path_buf(), size, sha256 }, path)))
}

/// What was made earlier, if it is still what it was then.
fn standing(path: &Path, sum: &Path) -> Option<Pack> {
    let noted = fs::read_to_string(sum).ok()?;
    let (size, sha256) = verify::hash(path).ok()?;
    (noted.trim() == sha256).then(|| Pack { path: path.to_owned(), size, sha256 })
}

/// What was just made, with a note of what it is.
fn noted(path: PathBuf, sum: &Path) -> Result<Pack> {
    let (size, sha256) = verify::hash(&path)?;
    crate::state::write_atomic(sum, sha256.as_bytes(), 0o644)?;
    Ok(Pack { path, size, sha256 })
}

/// Where packs are kept.
fn packs(bundle: &Bundle) -> Result<PathBuf> {
    let cache = bundle.dir.parent().and_then(Path::parent).ok_or_else(|| Error::new("the bundle is in no cache"))?;
    Ok(cache.join("packs"))
}

/// Packs the files of a verified bundle that have one of these roles. Uses all cores; blocks.
pub fn pack(bundle: &Bundle, roles: &[Role], report: &Report) -> Result<Pack> {
    let (files, sums) = sums(&bundle.manifest, roles);
    let dir = packs(bundle)?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    // The gzip bytes follow from the checksums and modes: same list, same pack.
    let key = image::sha256(sums.as_bytes());
    let (path, sum) = (dir.join(format!("{key}.tar.gz")), dir.join(format!("{key}.sha256")));
    if let Some(there) = standing(&path, &sum) {
        return Ok(there);
    }
    let span = report.step(format!("Packing bundle {}-{}", bundle.manifest.kubernetes, bundle.manifest.arch));
    let outcome = write(bundle, &files, &sums, &path, &dir, &span).and_then(|()| noted(path, &sum));
    span.close(outcome)
}

fn write(bundle: &Bundle, files: &[&File], sums: &str, path: &Path, dir: &Path, span: &Span) -> Result<()> {
    let what = || format!("cannot pack the bundle into {}", path.display());
    let temporary = tempfile::tempdir_in(dir).with_context(what)?;
    let total: u64 = files.iter().map(|f| f.size).sum();
    let done = std::sync::atomic::AtomicU64::new(0);
    let numbered: Vec<(usize, &File)> = files.iter().copied().enumerate().collect();
    let members = verify::parallel(&numbered, |(i, file)| -> io::Result<PathBuf> {
        let objects = dir.join("objects");
        let name = |end: &str| objects.join(format!("{}.{end}", file.sha256));
        let member = match standing(&name("gz"), &name("sha256")) {
            Some(there) => there.path,
            None => {
                let member = temporary.path().join(i.to_string());
                compress(bundle, file, &mut fs::File::create(&member)?)?;
                member
            }
        };
        let now = done.fetch_add(file.size, std::sync::atomic::Ordering::Relaxed) + file.size;
        span.progress(now, Some(total), Count::Bytes);
        Ok(member)
    });

    let mut pack = tempfile::NamedTempFile::new_in(dir).with_context(what)?;
    entry(&mut pack, SUMS, 0o644, sums.len() as u64, |pack| member(pack, sums.as_bytes()).map(drop)).with_context(what)?;
    for (file, content) in files.iter().zip(members) {
        let content = content.with_context(what)?;
        let mut copy = fs::File::open(&content).with_context(what)?;
        entry(&mut pack, &file.path, mode(file), file.size, |pack| io::copy(&mut copy, pack).map(drop)).with_context(what)?;
        drop(copy);
        if content.starts_with(temporary.path()) {
            super::store::remove(&content)?;
        }
    }
    // The two blocks of zeros that end an archive.
    member(&mut pack, &[0; 1024][..]).with_context(what)?;
    pack.as_file().sync_all().with_context(what)?;
    pack.persist(path).map_err(|e| e.error).with_context(what)?;
    Ok(())
}

/// A tar entry: its header and its padding are gzip members of their own, before and after what `content` writes.
fn entry<W: Write>(
    pack: &mut W,
    name: &str,
    mode: u32,
    size: u64,
    content: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    member(pack, &header.as_bytes()[..])?;
    content(pack)?;
    let padding = (512 - size % 512) % 512;
    if padding > 0 {
        member(pack, io::repeat(0).take(padding))?;
    }
    Ok(())
}

/// A file of the bundle as one gzip member.
fn compress(bundle: &Bundle, file: &File, to: &mut impl Write) -> io::Result<()> {
    let content = fs::File::open(bundle.dir.join(&file.path))?;
    let (copied, size) = (member(to, content.take(file.size))?, file.size);
    if copied != size {
        let what = format!("{} has {copied} bytes, its manifest says {size}", file.name);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(())
}

/// One gzip member. Says how many bytes went in.
fn member(to: &mut impl Write, mut content: impl Read) -> io::Result<u64> {
    let mut gzip = GzEncoder::new(io::BufWriter::new(to), Compression::fast());
    let copied = io::copy(&mut content, &mut gzip)?;
    gzip.finish()?.into_inner().map_err(|e| e.into_error())?;
    Ok(copied)
}
