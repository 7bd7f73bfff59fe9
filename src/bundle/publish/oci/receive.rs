use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Deserialize;
use ureq::http::Method;

use super::super::Error;
use super::client::{self, Ask, bytes, header, refused};
use super::{IMAGE_MANIFEST, ImageManifest, LONGEST_MANIFEST, Layer, Registry};
use crate::digest::Hasher;

/// How often a part is asked for that breaks off without a byte.
const ATTEMPTS: usize = 4;

impl Registry<'_> {
    /// Finds what the address stands for, and returns it with its digest.
    pub(super) fn resolve(&self) -> Result<String, Error> {
        let reference = match (&self.address.digest, &self.address.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.clone(),
            (None, None) => self.only_tag()?,
        };
        let place = format!("oci://{}/{}", self.address.host, self.address.repository);
        let Some((text, digest)) = self.manifest(&reference)? else {
            let place = match &self.address.digest {
                Some(_) => format!("{place}@{reference}"),
                None => format!("{place}:{reference}"),
            };
            return Err(Error::NotFound { place, among: String::new() });
        };
        let place = format!("{place}@sha256:{digest}");
        let foreign = |why: String| Error::Foreign { url: place.clone(), why };
        let manifest: ImageManifest =
            serde_json::from_slice(&text).map_err(|e| foreign(format!("no OCI manifest: {e}")))?;
        if manifest.media_type != IMAGE_MANIFEST {
            return Err(foreign(format!("it is of the type {:?}", manifest.media_type)));
        }
        let _ = self.resolved.set(manifest);
        Ok(place)
    }

    /// The tag of a repository that has no other.
    fn only_tag(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let url = self.client.url("tags/list");
        let mut response = self.client.send(&Ask::new(Method::GET, url.clone()))?;
        let place = format!("oci://{}/{}", self.address.host, self.address.repository);
        match response.status().as_u16() {
            200 => {}
            404 => return Err(Error::NotFound { place, among: String::new() }),
            _ => return Err(refused(&url, response)),
        }
        let text = bytes(&mut response, LONGEST_MANIFEST).map_err(|e| client::network(&url, &e))?;
        let tags: Tags = serde_json::from_slice(&text)
            .map_err(|e| Error::Foreign { url, why: format!("no list of tags: {e}") })?;
        let mut tags = tags.tags.unwrap_or_default();
        match tags.len() {
            1 => Ok(tags.remove(0)),
            _ => {
                let shown: Vec<String> =
                    tags.iter().take(20).map(|t| t.escape_debug().collect()).collect();
                Err(Error::NotFound {
                    place,
                    among: format!("; name one of its tags: {}", shown.join(", ")),
                })
            }
        }
    }

    /// The layers of a file, in order, without a gap; none where the registry has no such file.
    pub(super) fn layers(&self, file: &str) -> Result<Vec<Layer>, Error> {
        let all = self.resolved.get().map(|manifest| manifest.layers.as_slice()).unwrap_or_default();
        let mut parts: Vec<(u64, &Layer)> = all
            .iter()
            .filter_map(|layer| {
                let (name, at) = layer.place()?;
                (name == file).then_some((at, layer))
            })
            .collect();
        parts.sort_by_key(|(at, _)| *at);
        let mut end = 0u64;
        for (at, layer) in &parts {
            if *at != end || layer.digest().is_none() {
                let why = format!("its layers of {file:?} leave a gap, overlap, or have no digest");
                return Err(Error::Foreign { url: self.client.url("manifests"), why });
            }
            end = end.saturating_add(layer.size);
        }
        Ok(parts.into_iter().map(|(_, layer)| layer.clone()).collect())
    }

    /// Writes a file from its layers. What a former run left of it is hashed and kept as far as it fits.
    pub(super) fn receive(&self, file: &str, layers: &[Layer], path: &Path) -> Result<(), Error> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut target = options.open(path).map_err(Error::io(path))?;
        let total: u64 = layers.iter().map(|layer| layer.size).sum();
        let mut start = 0;
        for layer in layers {
            let length = target.metadata().map_err(Error::io(path))?.len();
            let kept = length.saturating_sub(start).min(layer.size);
            let mut sound = self.part(&mut target, path, start, kept, layer)?;
            if !sound && kept > 0 {
                sound = self.part(&mut target, path, start, 0, layer)?;
            }
            if !sound {
                let cut = target.set_len(start);
                cut.map_err(Error::io(path))?;
                let url = self.client.url(&format!("blobs/{}", layer.digest));
                let what = "the digest of what came";
                let (expected, found) = (layer.digest.clone(), "another".to_owned());
                return Err(Error::Lie { url, what, expected, found });
            }
            start += layer.size;
            self.context.reporter.moved(file, start, total);
        }
        target.set_len(total).map_err(Error::io(path))
    }

    /// Completes one part, of which `kept` bytes are there; returns whether its digest is right.
    fn part(
        &self,
        target: &mut File,
        path: &Path,
        start: u64,
        kept: u64,
        layer: &Layer,
    ) -> Result<bool, Error> {
        let mut hasher = Hasher::default();
        let mut block = vec![0; 1 << 18];
        target.seek(SeekFrom::Start(start)).map_err(Error::io(path))?;
        let mut done = 0;
        while done < kept {
            let want = block.len().min(usize::try_from(kept - done).unwrap_or(usize::MAX));
            let n = target.read(&mut block[..want]).map_err(Error::io(path))?;
            if n == 0 {
                break;
            }
            hasher.update(&block[..n]);
            done += n as u64;
        }
        let url = self.client.url(&format!("blobs/{}", layer.digest));
        let (mut vain, mut last) = (0, None);
        while done < layer.size {
            let mut ask = Ask::new(Method::GET, url.clone());
            if done > 0 {
                ask = ask.with("Range", format!("bytes={done}-{}", layer.size - 1));
            }
            let mut response = self.client.send(&ask)?;
            match response.status().as_u16() {
                206 if range_starts_at(&response, done) => {}
                // A registry that knows no ranges, or another one than was asked for: all of it.
                200 | 206 | 416 if done > 0 => {
                    if response.status() != 200 {
                        response = self.client.send(&Ask::new(Method::GET, url.clone()))?;
                    }
                    if response.status() != 200 {
                        return Err(refused(&url, response));
                    }
                    hasher = Hasher::default();
                    done = 0;
                }
                200 => {}
                _ => return Err(refused(&url, response)),
            }
            let before = done;
            target.seek(SeekFrom::Start(start + done)).map_err(Error::io(path))?;
            let mut body = response.body_mut().as_reader();
            loop {
                match body.read(&mut block) {
                    Ok(0) => break,
                    Ok(n) if done + n as u64 > layer.size => return Ok(false),
                    Ok(n) => {
                        target.write_all(&block[..n]).map_err(Error::io(path))?;
                        hasher.update(&block[..n]);
                        done += n as u64;
                    }
                    Err(e) => {
                        last = Some(e.to_string());
                        break;
                    }
                }
            }
            vain = if done > before { 0 } else { vain + 1 };
            if vain >= ATTEMPTS {
                let why = last.unwrap_or_else(|| "the connection breaks off".to_owned());
                return Err(Error::Network { url, why });
            }
        }
        Ok(Some(hasher.finish()) == layer.digest())
    }
}

fn range_starts_at(response: &ureq::http::Response<ureq::Body>, at: u64) -> bool {
    let range = header(response, "content-range").unwrap_or_default();
    range.strip_prefix("bytes ").and_then(|rest| rest.split('-').next()?.parse().ok()) == Some(at)
}
