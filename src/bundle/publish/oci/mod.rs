//! An OCI registry: a bundle is an artifact (OCI 1.1, `artifactType`), every file a layer that carries its
//! path as `org.opencontainers.image.title`, so that other tools pull a bundle too.
//!
//! A file longer than [`PART`] becomes several layers, annotated with its path and their offset: an interrupted upload
//! resumes by finding the parts that the registry has by their digests. The protocol's own upload sessions don't
//! survive a killed client on the most common registry: `docker-registry` 2.8 signs the offset into the session's
//! address, and the address of what it holds was in the answer that nobody read (it then answers 404). No OCI crate
//! resumes, so none is used: this is five requests over `ureq`.
//!
//! A registry is not trusted: whatever digest it reports, what comes is hashed here.

mod address;
mod auth;
mod client;
mod receive;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::{Context, Error, LONGEST_PAPER, PAPERS, Package, PackageFile, Published, Store, staging};
use crate::bundle::{FileEntry, MANIFEST};
use crate::digest::{Digest, Hasher};
use crate::files;
use address::Address;
use client::{Ask, Client, Load, bytes, header, refused};

/// The longest layer that is sent, in bytes.
const PART: u64 = 32 << 20;
/// A registry takes manifests of up to 4 MiB.
const LONGEST_MANIFEST: u64 = 4 << 20;

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.soprano-export.bundle.v1";
const LAYER: &str = "application/octet-stream";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
/// The path of the file of which a layer is a part, and where in it the part begins.
const PART_OF: &str = "soprano-export.part-of";
const PART_AT: &str = "soprano-export.part-at";

/// An OCI image manifest, as far as it matters here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    media_type: String,
    artifact_type: Option<String>,
    config: Layer,
    layers: Vec<Layer>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Layer {
    fn digest(&self) -> Option<Digest> {
        self.digest.strip_prefix("sha256:")?.parse().ok()
    }

    /// The file's path, and where in the file this layer begins.
    fn place(&self) -> Option<(&str, u64)> {
        match self.annotations.get(PART_OF) {
            Some(file) => Some((file, self.annotations.get(PART_AT)?.parse().ok()?)),
            None => Some((self.annotations.get(TITLE)?, 0)),
        }
    }
}

struct Registry<'a> {
    address: Address,
    client: Client,
    context: &'a Context<'a>,
    /// The manifest that the address names, once it is fetched.
    resolved: OnceCell<ImageManifest>,
}

pub(super) fn open<'a>(address: &str, context: &'a Context<'a>) -> Result<Box<dyn Store + 'a>, Error> {
    let mut address = Address::parse(address)?;
    match (context.version, &address.tag) {
        (Some(version), Some(tag)) if version != tag => {
            let place = format!("oci://{}/{}", address.host, address.repository);
            let (named, version) = (tag.clone(), (*version).to_owned());
            return Err(Error::TwoVersions { place, named, version });
        }
        (Some(version), _) => address.tag = Some(version.to_owned()),
        _ => {}
    }
    let client = Client::new(&address, context.plain_http);
    Ok(Box::new(Registry { address, client, context, resolved: OnceCell::new() }))
}

/// A layer to send, and the file that it is cut from.
struct Piece<'a> {
    file: &'a str,
    start: u64,
    layer: Layer,
}

impl Registry<'_> {
    fn place(&self, tag: &str) -> String {
        format!("oci://{}/{}:{tag}", self.address.host, self.address.repository)
    }

    fn tag(&self, package: &Package) -> Result<String, Error> {
        if self.address.digest.is_some() {
            let why = "names a digest; what is published gets its own";
            return Err(Error::address(&format!("oci://{}", self.address.repository), why));
        }
        Ok(self.address.tag.clone().unwrap_or_else(|| package.version()))
    }

    /// The registry's manifest under a tag or digest, and the digest of what came.
    fn manifest(&self, reference: &str) -> Result<Option<(Vec<u8>, Digest)>, Error> {
        let url = self.client.url(&format!("manifests/{reference}"));
        let ask = Ask::new(Method::GET, url.clone()).with("Accept", IMAGE_MANIFEST);
        let mut response = self.client.send(&ask)?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            _ => return Err(refused(&url, response)),
        }
        let claimed = header(&response, "docker-content-digest");
        let text = bytes(&mut response, LONGEST_MANIFEST).map_err(|e| client::network(&url, &e))?;
        let digest = Digest::of(&text);
        let pinned = reference.starts_with("sha256:").then(|| reference.to_owned());
        for claimed in [claimed, pinned].into_iter().flatten() {
            if claimed.starts_with("sha256:") && claimed != format!("sha256:{digest}") {
                let found = format!("sha256:{digest}");
                let what = "the digest of the manifest that came";
                return Err(Error::Lie { url, what, expected: claimed, found });
            }
        }
        Ok(Some((text, digest)))
    }

    /// Sends a blob unless the registry has it; returns whether it had.
    fn send(&self, layer: &Layer, load: Load<'_>) -> Result<bool, Error> {
        let url = self.client.url(&format!("blobs/{}", layer.digest));
        let response = self.client.send(&Ask::new(Method::HEAD, url.clone()))?;
        match response.status().as_u16() {
            200 => {
                let length = header(&response, "content-length").and_then(|n| n.parse::<u64>().ok());
                if let Some(found) = length.filter(|&n| n != layer.size) {
                    let (expected, found) = (layer.size.to_string(), found.to_string());
                    return Err(Error::Lie { url, what: "the length of a blob", expected, found });
                }
                return Ok(true);
            }
            404 => {}
            _ => return Err(refused(&url, response)),
        }
        let url = self.client.url("blobs/uploads/");
        let response = self.client.send(&Ask::new(Method::POST, url.clone()))?;
        if response.status() != 202 {
            return Err(refused(&url, response));
        }
        let session = self.client.location(&response, &url)?;
        let joint = if session.contains('?') { '&' } else { '?' };
        let url = format!("{session}{joint}digest={}", layer.digest);
        let response = self.client.send(&Ask::new(Method::PUT, url.clone()).carrying(load))?;
        if response.status() != 201 {
            return Err(refused(&url, response));
        }
        match header(&response, "docker-content-digest") {
            Some(found) if found != layer.digest => {
                let (expected, what) = (layer.digest.clone(), "the digest of what was sent");
                Err(Error::Lie { url, what, expected, found })
            }
            _ => Ok(false),
        }
    }

    /// The artifact of a package, for its layers.
    fn artifact(&self, package: &Package, layers: Vec<Layer>) -> Vec<u8> {
        let manifest = &package.manifest;
        let annotation = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let artifact = ImageManifest {
            schema_version: 2,
            media_type: IMAGE_MANIFEST.to_owned(),
            artifact_type: Some(ARTIFACT.to_owned()),
            config: empty(),
            layers,
            annotations: BTreeMap::from([
                annotation(TITLE, &manifest.name),
                annotation("org.opencontainers.image.version", &package.version()),
                annotation("soprano-export.tool", &manifest.tool.version),
            ]),
        };
        serde_json::to_vec_pretty(&artifact).expect("plain data")
    }

    /// Whether this very artifact stands under the tag; an error where another does.
    fn stands(&self, tag: &str, ours: Digest) -> Result<bool, Error> {
        match self.manifest(tag)? {
            None => Ok(false),
            Some((_, found)) if found == ours => Ok(true),
            Some(_) => Err(Error::VersionExists { place: self.place(tag) }),
        }
    }
}

fn empty() -> Layer {
    let digest = format!("sha256:{}", Digest::of(b"{}"));
    Layer { media_type: EMPTY.to_owned(), digest, size: 2, annotations: BTreeMap::new() }
}

/// Cuts a file into layers, and hashes them; the file must be what was verified.
fn cut<'a>(folder: &Path, file: &'a str, entry: FileEntry) -> Result<Vec<Piece<'a>>, Error> {
    let path = folder.join(file);
    let mut source = files::open(&path).map_err(Error::io(&path))?;
    let (mut whole, mut pieces, mut start) = (Hasher::default(), Vec::new(), 0);
    let count = entry.bytes.div_ceil(PART).max(1);
    let mut block = vec![0; 1 << 20];
    for number in 1..=count {
        let size = PART.min(entry.bytes - start);
        let (mut part, mut left) = (Hasher::default(), size);
        while left > 0 {
            let want = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = source.read(&mut block[..want]).map_err(Error::io(&path))?;
            if n == 0 {
                return Err(Error::Changed { path });
            }
            part.update(&block[..n]);
            whole.update(&block[..n]);
            left -= n as u64;
        }
        let digest = part.finish();
        let mut annotations = BTreeMap::from([(TITLE.to_owned(), file.to_owned())]);
        if count > 1 {
            annotations.insert(TITLE.to_owned(), format!("{file}.part-{number:04}-of-{count:04}"));
            annotations.insert(PART_OF.to_owned(), file.to_owned());
            annotations.insert(PART_AT.to_owned(), start.to_string());
        }
        let layer = Layer {
            media_type: LAYER.to_owned(),
            digest: format!("sha256:{digest}"),
            size,
            annotations,
        };
        pieces.push(Piece { file, start, layer });
        start += size;
    }
    match whole.finish() == entry.sha256 {
        true => Ok(pieces),
        false => Err(Error::Changed { path }),
    }
}

impl Store for Registry<'_> {
    fn address(&self, package: &Package) -> Result<String, Error> {
        Ok(self.place(&self.tag(package)?))
    }

    fn publish(&self, package: &Package) -> Result<Published, Error> {
        let tag = self.tag(package)?;
        let mut pieces = Vec::new();
        for PackageFile { file, entry } in package.files() {
            pieces.extend(cut(&package.folder, file, *entry)?);
        }
        let layers = pieces.iter().map(|piece| piece.layer.clone()).collect();
        let artifact = self.artifact(package, layers);
        let ours = Digest::of(&artifact);
        let mut published = Published {
            place: format!("{}@sha256:{ours}", self.place(&tag)),
            version: tag.clone(),
            unchanged: true,
            sent: 0,
            kept: package.bytes(),
        };
        if self.stands(&tag, ours)? {
            return Ok(published);
        }
        (published.unchanged, published.kept) = (false, 0);
        self.send(&empty(), Load::Bytes(b"{}"))?;
        for Piece { file, start, layer, .. } in &pieces {
            let path = package.folder.join(file);
            match self.send(layer, Load::Part(&path, *start, layer.size))? {
                true => published.kept += layer.size,
                false => published.sent += layer.size,
            }
            let total = pieces.iter().filter(|p| p.file == *file).map(|p| p.layer.size).sum();
            self.context.reporter.moved(file, start + layer.size, total);
        }
        // A registry can't create a tag only if it is absent. Publishers on one machine wait for each other here, and
        // some registries know the header; others may race.
        let _lock = self.lock()?;
        if self.stands(&tag, ours)? {
            return Ok(Published { unchanged: true, ..published });
        }
        let url = self.client.url(&format!("manifests/{tag}"));
        let mut ask = Ask::new(Method::PUT, url.clone()).with("If-None-Match", "*");
        ask.load = Load::Bytes(&artifact);
        let response = self.client.send(&ask.with("Content-Type", IMAGE_MANIFEST))?;
        match response.status().as_u16() {
            200 | 201 => {}
            412 => return Err(Error::VersionExists { place: self.place(&tag) }),
            _ => return Err(refused(&url, response)),
        }
        match self.stands(&tag, ours)? {
            true => Ok(published),
            false => {
                let (expected, found) = (format!("sha256:{ours}"), "nothing".to_owned());
                Err(Error::Lie { url, what: "what stands under the tag", expected, found })
            }
        }
    }

    fn papers(&self, into: &Path) -> Result<String, Error> {
        let place = self.resolve()?;
        for paper in PAPERS {
            let layers = self.layers(paper)?;
            let size = layers.iter().map(|layer| layer.size).sum::<u64>();
            if size > LONGEST_PAPER {
                let why = format!("{paper} of {size} bytes is not a paper of a bundle");
                return Err(Error::Foreign { url: place, why });
            }
            if !layers.is_empty() {
                self.receive(paper, &layers, &into.join(paper))?;
            }
        }
        match into.join(MANIFEST).exists() {
            true => Ok(place),
            false => {
                let why = format!("it is not a bundle: it has no {MANIFEST}");
                Err(Error::Foreign { url: place, why })
            }
        }
    }

    fn files(&self, wanted: &[PackageFile], into: &Path) -> Result<(), Error> {
        for PackageFile { file, entry } in wanted {
            let layers = self.layers(file)?;
            let size = layers.iter().map(|layer| layer.size).sum::<u64>();
            if layers.is_empty() || size != entry.bytes {
                // What is missing the end will name.
                continue;
            }
            self.receive(file, &layers, &staging::place(into, file)?)?;
        }
        Ok(())
    }
}

impl Registry<'_> {
    fn lock(&self) -> Result<File, Error> {
        let folder = self.context.cache.join("publishing");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let name = format!("{}/{}", self.address.host, self.address.repository);
        let path = folder.join(format!("{}.lock", Digest::of(name.as_bytes()).short()));
        files::lock(&path).map_err(Error::io(path))
    }
}
