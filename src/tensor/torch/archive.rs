//! The zip archive around a pickle and its storages. What `torch.save` never writes is refused: compressed, encrypted,
//! overlapping or repeated records, and headers that contradict each other.

use std::collections::HashMap;

use bytes::Bytes;
use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive};

use super::{Error, LARGEST_PICKLE, SAVE_AGAIN, damaged, form};

/// More records than any state dict has.
const MOST_RECORDS: u64 = 1 << 20;

/// A zip archive whose records are stored plainly and lie apart.
pub(super) struct Archive {
    bytes: Bytes,
    /// The folder that all records are in.
    folder: String,
    /// Where each record's data lies, by its whole name.
    records: HashMap<String, (usize, usize)>,
}

impl Archive {
    /// Reads and checks the archive's directory. A record's CRC-32 is not looked at, as PyTorch doesn't:
    /// `torch.serialization.set_crc32_options(False)` writes none.
    pub fn open(bytes: &Bytes) -> Result<Self, Error> {
        let zip = ZipArchive::from_slice(bytes.as_ref()).map_err(|e| {
            damaged(format!("its zip directory can't be read, so it is cut short or damaged: {e}"))
        })?;
        if zip.end_offset() != bytes.len() as u64 {
            let more = bytes.len() as u64 - zip.end_offset().min(bytes.len() as u64);
            return Err(damaged(format!("{more} bytes follow the end of its zip archive")));
        }
        let said = zip.entries_hint();
        let mut records = HashMap::new();
        let mut spans = Vec::new();
        let mut folder = None;
        for entry in zip.entries() {
            let entry = entry.map_err(|e| damaged(format!("its zip directory is damaged: {e}")))?;
            if records.len() as u64 >= said.min(MOST_RECORDS) {
                return Err(damaged("its zip directory has more records than it says"));
            }
            let (name, span, data) = record(&zip, &entry)?;
            let within = name.split_once('/').map_or("", |(folder, _)| folder);
            let home = folder.get_or_insert_with(|| within.to_owned());
            if home != within {
                return Err(damaged(format!(
                    "its records are in two folders, {home:?} and {within:?}"
                )));
            }
            spans.push(span);
            if records.insert(name.clone(), data).is_some() {
                return Err(damaged(format!("it has the record {name:?} twice")));
            }
        }
        if records.len() as u64 != said {
            let has = records.len();
            return Err(damaged(format!(
                "its zip directory has {has} records and says that it has {said}"
            )));
        }
        spans.sort_unstable();
        if spans.first().is_some_and(|&(start, _)| start != 0) {
            return Err(damaged("its zip archive begins after something else"));
        }
        let ends = spans.iter().map(|&(_, end)| end);
        let starts = spans.iter().skip(1).map(|&(start, _)| start);
        let mut edges = ends.zip(starts.chain([zip.directory_offset() as usize]));
        if edges.any(|(end, start)| end > start) {
            return Err(damaged("two records of its zip archive overlap"));
        }
        let archive = Self { bytes: bytes.clone(), folder: folder.unwrap_or_default(), records };
        archive.check_form()?;
        Ok(archive)
    }

    /// Refuses archives of another kind than a state dict's, and another byte order.
    fn check_form(&self) -> Result<(), Error> {
        if self.record("constants.pkl").is_some() {
            let hint = "save the weights alone, torch.save(module.state_dict(), ...)";
            return Err(form("it is a TorchScript archive, which holds code", hint));
        }
        if self.record("data.pkl").is_none() {
            return Err(damaged("a zip archive without the record `data.pkl`"));
        }
        if self.record("version").or_else(|| self.record(".data/version")).is_none() {
            return Err(damaged("a zip archive without the record `version`"));
        }
        match self.record("byteorder").as_deref() {
            None | Some(b"little") => Ok(()),
            Some(b"big") => Err(form("its numbers are big-endian", SAVE_AGAIN)),
            Some(_) => Err(damaged("its record `byteorder` is neither little nor big")),
        }
    }

    /// The pickle.
    pub fn pickle(&self) -> Result<Bytes, Error> {
        let pickle = self.record("data.pkl").unwrap_or_default();
        match pickle.len() > LARGEST_PICKLE {
            true => Err(damaged(format!("its pickle has {} bytes: no state dict has", pickle.len()))),
            false => Ok(pickle),
        }
    }

    /// The bytes of a record, by its name inside the folder; none of them is copied.
    pub fn record(&self, name: &str) -> Option<Bytes> {
        let &(start, end) = self.records.get(&format!("{}/{name}", self.folder))?;
        Some(self.bytes.slice(start..end))
    }
}

/// From where to where something lies.
type Span = (usize, usize);

/// A record's name, where it lies with its header, and where its data does.
fn record(
    zip: &ZipSliceArchive<&[u8]>,
    entry: &ZipFileHeaderRecord<'_>,
) -> Result<(String, Span, Span), Error> {
    let name = std::str::from_utf8(entry.file_path().as_bytes())
        .map_err(|_| damaged("the name of a record is not UTF-8"))?
        .to_owned();
    let refuse = |why: &str| Err(damaged(format!("its record {name:?} {why}")));
    if entry.flags().is_encrypted() {
        return refuse("is encrypted");
    }
    if entry.compression_method() != CompressionMethod::STORE {
        return Err(form(
            format!("its record {name:?} is compressed, which torch.save never does"),
            SAVE_AGAIN,
        ));
    }
    if entry.compressed_size_hint() != entry.uncompressed_size_hint() {
        return refuse("is stored plainly and says that it has two sizes");
    }
    let local = match zip.get_entry(entry.wayfinder()) {
        Ok(local) => local,
        Err(e) => return refuse(&format!("is not where the directory says: {e}")),
    };
    let header = local.local_header();
    if header.file_path().as_bytes() != entry.file_path().as_bytes()
        || header.compression_method() != entry.compression_method()
        || header.flags().is_encrypted()
        || header.flags().has_data_descriptor() != entry.flags().has_data_descriptor()
    {
        return refuse("has two headers that contradict each other");
    }
    let size = entry.uncompressed_size_hint();
    // Sizes may follow the data; the header in front of it then has none.
    let unsaid = header.flags().has_data_descriptor()
        && [header.compressed_size_hint(), header.uncompressed_size_hint()]
            .iter()
            .all(|&said| said == 0);
    if !unsaid && (header.compressed_size_hint() != size || header.uncompressed_size_hint() != size) {
        return refuse("has two headers that contradict each other: its size");
    }
    let (start, end) = local.compressed_data_range();
    Ok((name, (entry.local_header_offset() as usize, end as usize), (start as usize, end as usize)))
}
