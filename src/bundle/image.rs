//! OCI images made without a container engine: one layer from one executable, the same bytes for the same input.
//!
//! An archive holds an OCI layout and Docker's `manifest.json` over the same blobs, so containerd, podman and docker all take it.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Context, Result};

use super::Arch;
use super::component::Image;

/// Changes whenever the bytes made from the same input change; part of a component's key.
pub(super) const FORMAT: u32 = 1;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// `CAP_NET_BIND_SERVICE`, permitted and effective, as the kernel's `vfs_cap_data` version 2 (capabilities(7)).
const CAP_NET_BIND_SERVICE: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A piece of content in an image archive.
pub(super) struct Blob<'a> {
    /// Its sha256 in hexadecimal.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes.
    pub content: Box<dyn io::Read + 'a>,
}

impl<'a> Blob<'a> {
    /// Content that is in memory.
    pub(super) fn of(bytes: &'a [u8]) -> Blob<'a> {
        Blob { sha256: sha256(bytes), size: bytes.len() as u64, content: Box::new(bytes) }
    }

    fn describe(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.sha256), "size": self.size })
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, content)
}

/// Writes to `archive` an image whose only file is the executable `/<name>`, which is its entry point.
pub fn from_executable(archive: &Path, image: &Image, tag: &str, name: &str, executable: &Path, arch: Arch) -> Result<()> {
    let what = || format!("cannot make the image {}{tag}", image.reference);
    let bytes = std::fs::read(executable).with_context(what)?;
    let layer = layer(name, &bytes, image.binds_low_ports).with_context(what)?;
    drop(bytes);
    let mut run = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": [format!("/{name}")],
        "WorkingDir": "/",
    });
    if !image.command.is_empty() {
        run["Cmd"] = json!(image.command);
    }
    if !image.user.is_empty() {
        run["User"] = json!(image.user);
    }
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": arch.as_str(),
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "kup bundle build" }],
    })
    .to_string();
    let config = Blob::of(config.as_bytes());
    let layer = Blob::of(&layer);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.describe(OCI_CONFIG),
        "layers": [layer.describe(OCI_LAYER)],
    })
    .to_string();
    write(archive, &format!("{}{tag}", image.reference), manifest.as_bytes(), OCI_MANIFEST, config, vec![layer])
        .with_context(what)
}

fn layer(name: &str, executable: &[u8], binds_low_ports: bool) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::with_capacity(executable.len() + 8192));
    if binds_low_ports {
        tar.append_pax_extensions([("SCHILY.xattr.security.capability", CAP_NET_BIND_SERVICE.as_slice())])?;
    }
    tar.append_data(&mut header(tar::EntryType::Regular, 0o755, executable.len() as u64), name, executable)?;
    // Programs expect somewhere to put temporary files.
    tar.append_data(&mut header(tar::EntryType::Directory, 0o1777, 0), "tmp/", io::empty())?;
    tar.into_inner()
}

/// Writes the archive of an image from its manifest (as it is, so that its digest stays), its config and its layers.
pub(super) fn write(
    archive: &Path,
    reference: &str,
    manifest: &[u8],
    media_type: &str,
    config: Blob<'_>,
    layers: Vec<Blob<'_>>,
) -> io::Result<()> {
    let manifest = Blob::of(manifest);
    let mut entry = manifest.describe(media_type);
    // containerd reads the first, podman the second.
    entry["annotations"] = json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference });
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] }).to_string();
    let blob_path = |blob: &Blob<'_>| format!("blobs/sha256/{}", blob.sha256);
    let docker = json!([{
        "Config": blob_path(&config),
        "RepoTags": [reference],
        "Layers": layers.iter().map(blob_path).collect::<Vec<_>>(),
    }])
    .to_string();

    let mut tar = tar::Builder::new(io::BufWriter::new(std::fs::File::create(archive)?));
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    for (path, text) in [("oci-layout", layout), ("index.json", index.as_str()), ("manifest.json", docker.as_str())] {
        append(&mut tar, path, text.len() as u64, text.as_bytes())?;
    }
    let mut written = Vec::new();
    for blob in [manifest, config].into_iter().chain(layers) {
        // An image may have the same layer twice.
        if !written.contains(&blob.sha256) {
            append(&mut tar, &blob_path(&blob), blob.size, blob.content)?;
            written.push(blob.sha256);
        }
    }
    tar.into_inner()?.into_inner().map_err(|e| e.into_error())?.sync_all()
}
