//! A state dict as `torch.save` writes it: a ZIP archive of a pickle and one record for each tensor.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, System, ZipWriter};

use super::Drawn;
use crate::files::Staged;
use crate::tensor::{DType, row_major};

/// Where `torch.save` lets a record's bytes begin, so that they can be mapped: at a multiple of this.
pub(super) const ALIGNMENT: u16 = 64;

/// Draws tensors in f32 into a file that `torch.load(weights_only=True)` reads as an `OrderedDict`, in their order. One
/// of them is in memory at a time.
///
/// # Errors
/// Where the file can't be written.
pub fn write(path: &Path, seed: u64, tensors: &[Drawn]) -> io::Result<()> {
    let mut staged = Staged::beside(path)?;
    let mut archive = ZipWriter::new(staged.file());
    // Nothing of the machine: neither its time nor its system.
    let options = SimpleFileOptions::DEFAULT
        .compression_method(CompressionMethod::Stored)
        .unix_permissions(0o644)
        .system(System::Unix)
        .with_alignment(ALIGNMENT);
    let mut record = |name: &str, bytes: &[u8]| {
        archive.start_file(format!("archive/{name}"), options)?;
        archive.write_all(bytes)
    };
    record("data.pkl", &pickle(tensors))?;
    record("byteorder", b"little")?;
    let mut bytes = Vec::new();
    for (key, tensor) in tensors.iter().enumerate() {
        tensor.draw(seed, DType::F32, &mut bytes);
        record(&format!("data/{key}"), &bytes)?;
    }
    record("version", b"3\n")?;
    archive.finish()?;
    staged.put()
}

/// The pickle of protocol 2 that `torch.save` writes of an `OrderedDict` of contiguous f32 tensors, byte for byte. Each
/// value is
///
/// ```text
/// torch._utils._rebuild_tensor_v2(
///     ("storage", torch.FloatStorage, key, "cpu", elements), 0, shape, strides, False, OrderedDict())
/// ```
///
/// with the tuple in the first place a persistent id. The codes are those of Python's `pickletools`.
fn pickle(tensors: &[Drawn]) -> Vec<u8> {
    let mut to = Pickle { bytes: b"\x80\x02".to_vec(), memo: 0, known: BTreeMap::new() };
    to.once(DICT);
    to.kept(b")R");
    to.bytes.push(b'(');
    for (key, tensor) in tensors.iter().enumerate() {
        to.kept(&text(&tensor.name));
        to.once(b"ctorch._utils\n_rebuild_tensor_v2\n");
        to.bytes.extend(b"((");
        to.once(&text("storage"));
        to.once(b"ctorch\nFloatStorage\n");
        to.kept(&text(&key.to_string()));
        to.once(&text("cpu"));
        to.number(tensor.elements());
        to.kept(b"t");
        to.bytes.extend(b"QK\0");
        to.tuple(&tensor.shape);
        to.tuple(&row_major(&tensor.shape));
        to.bytes.push(b'\x89');
        to.once(DICT);
        to.kept(b")R");
        to.kept(b"t");
        to.kept(b"R");
    }
    to.bytes.extend(b"u.");
    to.bytes
}

const DICT: &[u8] = b"ccollections\nOrderedDict\n";

/// A pickle on its way.
struct Pickle {
    bytes: Vec<u8>,
    /// How many values can be asked for again.
    memo: u32,
    /// Where those are that are.
    known: BTreeMap<Vec<u8>, u32>,
}

impl Pickle {
    /// Code whose value can be asked for again.
    fn kept(&mut self, code: &[u8]) {
        self.bytes.extend(code);
        self.remembered([b'q', b'r'], self.memo);
        self.memo += 1;
    }

    /// As [`Pickle::kept`], of a value that is asked for where it was there before.
    fn once(&mut self, code: &[u8]) {
        match self.known.get(code) {
            Some(&place) => self.remembered([b'h', b'j'], place),
            None => {
                self.known.insert(code.to_vec(), self.memo);
                self.kept(code);
            }
        }
    }

    /// A code that comes with a place, the short one for places of a byte.
    fn remembered(&mut self, [short, long]: [u8; 2], place: u32) {
        match u8::try_from(place) {
            Ok(place) => self.bytes.extend([short, place]),
            Err(_) => {
                self.bytes.push(long);
                self.bytes.extend(place.to_le_bytes());
            }
        }
    }

    /// A number below 2^31.
    fn number(&mut self, number: usize) {
        let bytes = (number as u32).to_le_bytes();
        let (code, size) = match number {
            0..=0xff => (b'K', 1),
            0x100..=0xffff => (b'M', 2),
            _ => (b'J', 4),
        };
        self.bytes.push(code);
        self.bytes.extend(&bytes[..size]);
    }

    /// A tuple of one to three numbers.
    fn tuple(&mut self, numbers: &[usize]) {
        numbers.iter().for_each(|&number| self.number(number));
        self.kept(&[b'\x84' + numbers.len() as u8]);
    }
}

/// The code of a text.
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}
