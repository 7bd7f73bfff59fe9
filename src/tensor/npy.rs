//! NumPy's files: `.npy`, one array, and `.npz`, a ZIP archive of such
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use regex::Regex;
use zip::ZipArchive;

use super::{DType, Error, Tensor};
use crate::files;

/// Bytes of one array, at most.
const LARGEST: u128 = 1 << 30;
/// Bytes of a header, at most; one of a plain array has about a hundred.
const LONGEST_HEADER: u64 = 1 << 16;
const MAGIC: &[u8] = b"\x93NUMPY";

/// A file of arrays, of which none has been read yet.
pub struct NumpyFile {
    path: PathBuf,
    names: Option<Vec<String>>,
    arrays: Arrays,
}

enum Arrays {
    One(Box<BufReader<File>>),
    Named(Box<ZipArchive<BufReader<File>>>),
}

impl NumpyFile {
    /// Opens a `.npy` or `.npz` file; what it is, its contents say.
    ///
    /// # Errors
    /// [`Error::Numpy`] where it is neither; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Numpy { path: path.to_owned(), array: None, why };
        files::plain(path).map_err(|e| refuse(e.to_string()))?;
        let mut file = BufReader::new(fs_err::File::open(path)?.into_parts().0);
        let mut start = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start)?;
        file.seek(SeekFrom::Start(0))?;
        let mut names = None;
        let arrays = match start.as_slice() {
            MAGIC => Arrays::One(Box::new(file)),
            [b'P', b'K', ..] => {
                let archive = ZipArchive::new(file).map_err(|e| refuse(e.to_string()))?;
                let plain = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_owned();
                names = Some(archive.file_names().map(plain).collect());
                Arrays::Named(Box::new(archive))
            }
            _ => return Err(refuse("neither a .npy nor a .npz file".to_owned())),
        };
        Ok(Self { path: path.to_owned(), names, arrays })
    }

    /// The arrays' names in the order of the file; none where it is one array without a name.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Reads an array by its name, or the only one, in row-major order and little-endian whatever it was.
    /// bfloat16, which NumPy doesn't have, is what `ml_dtypes` writes for it: two raw bytes, `V2`. `accept`
    /// looks at type and shape before any number is read.
    ///
    /// # Errors
    /// [`Error::Numpy`] names the file and the array where its header or its data are not what they say, it
    /// is of a type without a counterpart here, it takes more than 1 GiB, or `accept` refuses it.
    pub fn read(
        &mut self,
        name: Option<&str>,
        accept: impl FnOnce(DType, &[usize]) -> Result<(), String>,
    ) -> Result<Tensor, Error> {
        let Self { path, arrays, .. } = self;
        let refuse =
            |why: String| Error::Numpy { path: path.clone(), array: name.map(str::to_owned), why };
        match (arrays, name) {
            (Arrays::One(file), _) => read(file, accept).map_err(refuse),
            (Arrays::Named(archive), name) => {
                let name = name.unwrap_or_default();
                let member = format!("{name}.npy");
                let member = if archive.index_for_name(&member).is_some() { &member } else { name };
                let mut member = archive.by_name(member).map_err(|e| refuse(e.to_string()))?;
                read(&mut member, accept).map_err(refuse)
            }
        }
    }
}

/// What stands before the numbers.
#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

fn read(
    from: &mut impl Read,
    accept: impl FnOnce(DType, &[usize]) -> Result<(), String>,
) -> Result<Tensor, String> {
    let Header { dtype, big_endian, fortran, shape } = Header::read(from)?;
    accept(dtype, &shape)?;
    let needs = shape.iter().fold(dtype.size() as u128, |n, &d| n.saturating_mul(d as u128));
    if needs > LARGEST {
        return Err(format!("its header says {shape:?}, more than the {LARGEST} bytes that are read"));
    }
    let mut data = Vec::new();
    // One byte more than is needed: no file is read further than its header says.
    from.take(needs as u64 + 1).read_to_end(&mut data).map_err(|e| e.to_string())?;
    if data.len() as u128 != needs {
        let count = if data.len() as u128 > needs { "more".to_owned() } else { data.len().to_string() };
        return Err(format!("its header says {shape:?}, {needs} bytes; there are {count}"));
    }
    if big_endian {
        data.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
    if !fortran {
        return Tensor::new(dtype, shape, data.into()).map_err(|e| e.to_string());
    }
    // Column-major is the transpose in row-major.
    let axes: Vec<usize> = (0..shape.len()).rev().collect();
    let columns = Tensor::new(dtype, shape.into_iter().rev().collect(), data.into());
    columns
        .map_err(|e| e.to_string())?
        .transposed(&axes)
        .ok_or_else(|| "its strides overflow".to_owned())
}

impl Header {
    fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut start = [0; 8];
        let cut = |_| "it ends inside its header".to_owned();
        from.read_exact(&mut start).map_err(cut)?;
        if !start.starts_with(MAGIC) {
            return Err("it is not a NumPy array".to_owned());
        }
        let mut length = [0; 4];
        let digits = match start[6] {
            1 => 2,
            2 | 3 => 4,
            version => return Err(format!("its format is version {version}; 1 to 3 are known")),
        };
        from.read_exact(&mut length[..digits]).map_err(cut)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > LONGEST_HEADER {
            return Err(format!("a header of {length} bytes"));
        }
        let mut text = vec![0; length as usize];
        from.read_exact(&mut text).map_err(cut)?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Self, String> {
        let entry = |key: &str, value: &str| {
            let pattern =
                Regex::new(&format!(r#"["']{key}["']\s*:\s*{value}"#)).expect("a fixed pattern");
            let value = pattern.captures(text).and_then(|captures| captures.get(1)).map(|m| m.as_str());
            let start: String = text.trim().chars().take(100).collect();
            value.ok_or_else(|| format!("its header has no plain {key:?}: {start:?}"))
        };
        let kind = entry("descr", r#"["']([^"']*)["']"#)?;
        let fortran = entry("fortran_order", "(True|False)")? == "True";
        let sizes = entry("shape", r"\(([\dL, ]*)\)")?.split(',').map(str::trim);
        let size = |size: &str| {
            size.trim_end_matches('L')
                .parse()
                .map_err(|_| format!("its header has the dimension {size}"))
        };
        let shape = sizes.filter(|size| !size.is_empty()).map(size).collect::<Result<_, _>>()?;
        let (order, code) = kind.split_at_checked(1).unwrap_or_default();
        let dtype = DType::from_numpy(code).filter(|_| matches!(order, "<" | ">" | "|" | "="));
        let dtype = dtype
            .ok_or_else(|| format!("it is of NumPy's type {kind:?}, which no input here can be"))?;
        Ok(Header { dtype, big_endian: order == ">", fortran, shape })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes()].concat();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(data);
        file
    }

    fn header(kind: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
    }

    fn of(file: &[u8]) -> Result<Tensor, String> {
        read(&mut &file[..], |_, _| Ok(()))
    }

    #[test]
    fn every_type_and_order_is_read() {
        let types = [
            ("|b1", DType::Bool),
            ("|i1", DType::I8),
            ("|u1", DType::U8),
            ("<i2", DType::I16),
            ("<u2", DType::U16),
            ("<f2", DType::F16),
            ("<V2", DType::BF16),
            ("<i4", DType::I32),
            ("<u4", DType::U32),
            ("<f4", DType::F32),
            ("<i8", DType::I64),
            ("<u8", DType::U64),
            ("<f8", DType::F64),
        ];
        for (kind, dtype) in types {
            let data: Vec<u8> = (0..6 * dtype.size() as u8).collect();
            let tensor = of(&npy(&header(kind, "False", "(2, 3)"), &data)).unwrap();
            assert_eq!(
                (tensor.dtype(), tensor.shape(), &tensor.bytes()[..]),
                (dtype, &[2, 3][..], &data[..])
            );
        }
        let big: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        assert_eq!(
            of(&npy(&header(">f4", "False", "(2,)"), &big)).unwrap().to_f32().unwrap(),
            [1.5, -2.0]
        );
        let scalar = of(&npy(&header("<f4", "False", "()"), &1.0f32.to_le_bytes())).unwrap();
        assert_eq!((scalar.shape(), scalar.to_f32().unwrap()), (&[][..], vec![1.0]));
        // [[1, 2, 3], [4, 5, 6]] by columns.
        let columns = of(&npy(&header("|u1", "True", "(2, 3)"), &[1, 4, 2, 5, 3, 6])).unwrap();
        assert_eq!(&columns.bytes()[..], [1, 2, 3, 4, 5, 6]);
        let empty = of(&npy(&header("<f4", "True", "(2, 0, 3)"), &[])).unwrap();
        assert_eq!(empty.shape(), [2, 0, 3]);
    }

    #[test]
    fn a_file_that_lies_is_refused() {
        let lies = [
            (npy(&header("<f4", "False", "(3,)"), &[0; 8]), "12 bytes; there are 8"),
            (npy(&header("<f4", "False", "(1,)"), &[0; 8]), "4 bytes; there are more"),
            (
                npy(&header("<f4", "False", "(9223372036854775807, 9223372036854775807)"), &[0; 8]),
                "more than the 1073741824 bytes",
            ),
            (
                npy(&header("<f4", "False", "(99999999999999999999,)"), &[]),
                "has the dimension 99999999999999999999",
            ),
            (npy(&header("<f4", "False", "(-1,)"), &[]), "has no plain \"shape\""),
            (npy(&header("|O", "False", "(1,)"), &[]), "NumPy's type \"|O\""),
            (npy(&header("<U5", "False", "(1,)"), &[0; 20]), "NumPy's type \"<U5\""),
            (npy(&header("<c8", "False", "(1,)"), &[0; 8]), "NumPy's type \"<c8\""),
            (npy(&header("", "False", "(1,)"), &[]), "NumPy's type \"\""),
            (npy(&header("é4", "False", "(1,)"), &[]), "NumPy's type \"é4\""),
            (
                npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", &[]),
                "no plain \"descr\"",
            ),
            (npy(&"(".repeat(60_000), &[]), "has no plain"),
            (npy("", &[]), "has no plain"),
            ([MAGIC, &[9, 0, 0, 0]].concat(), "version 9"),
            ([MAGIC, &[2, 0, 255, 255, 255, 255]].concat(), "a header of 4294967295 bytes"),
            ([MAGIC, &[1, 0, 200, 0, b'{']].concat(), "ends inside its header"),
            (MAGIC.to_vec(), "ends inside its header"),
            (b"a letter to nobody".to_vec(), "not a NumPy array"),
        ];
        for (file, why) in lies {
            let error = of(&file).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn members_of_an_archive_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        let zeros = vec![0; 4 << 20];
        let members = [
            ("x.npy", npy(&header("<f4", "False", "(1,)"), &1.0f32.to_le_bytes())),
            ("a/b.npy", npy(&header("|u1", "False", "(1,)"), &[7])),
            // Four megabytes where four bytes are said.
            ("bomb.npy", npy(&header("<f4", "False", "(1,)"), &zeros)),
        ];
        for (name, data) in members {
            archive.start_file(name, SimpleFileOptions::default()).unwrap();
            archive.write_all(&data).unwrap();
        }
        archive.finish().unwrap();
        let mut file = NumpyFile::open(&path).unwrap();
        assert_eq!(file.names().unwrap(), ["x", "a/b", "bomb"]);
        assert_eq!(file.read(Some("x"), |_, _| Ok(())).unwrap().to_f32().unwrap(), [1.0]);
        assert_eq!(&file.read(Some("a/b"), |_, _| Ok(())).unwrap().bytes()[..], [7]);
        let error = file.read(Some("bomb"), |_, _| Ok(())).unwrap_err().to_string();
        assert!(
            error.ends_with("array \"bomb\": its header says [1], 4 bytes; there are more"),
            "{error}"
        );
        let error = file.read(Some("x"), |_, _| Err("no".into())).unwrap_err().to_string();
        assert!(error.ends_with("array \"x\": no"), "{error}");

        let whole = std::fs::read(&path).unwrap();
        for end in [2, 30, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(matches!(NumpyFile::open(&path), Err(Error::Numpy { array: None, .. })), "{end}");
        }
        // A bit that flips in the data is caught by the archive's checksum.
        let mut flipped = whole.clone();
        let at = flipped.windows(4).position(|w| w == 1.0f32.to_le_bytes());
        if let Some(at) = at {
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(NumpyFile::open(&path).unwrap().read(Some("x"), |_, _| Ok(())).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[\\{\\}'a-z_:<>|0-9(), L]{0,120}", data in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = of(&npy(&text, &data));
            let _ = of(&npy(&format!("{{'descr': '<f4', 'fortran_order': True, 'shape': ({text})}}"), &data));
        }

        #[test]
        fn column_major_is_the_transpose(rows in 1usize..5, columns in 1usize..5, deep in 1usize..4) {
            let value = |i: usize, j: usize, k: usize| (i * 25 + j * 5 + k) as u8;
            let mut by_columns = Vec::new();
            let mut by_rows = Vec::new();
            for k in 0..deep { for j in 0..columns { for i in 0..rows { by_columns.push(value(i, j, k)); } } }
            for i in 0..rows { for j in 0..columns { for k in 0..deep { by_rows.push(value(i, j, k)); } } }
            let tensor = Tensor::new(DType::U8, vec![deep, columns, rows], by_columns.into()).unwrap();
            let rows_first = tensor.transposed(&[2, 1, 0]).unwrap();
            prop_assert_eq!(rows_first.bytes(), &by_rows);
        }
    }
}
