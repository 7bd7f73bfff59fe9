//! Any bytes are an error or a state dict, each value of which can be read and is as large as its file at most. What does
//! not begin as a zip archive is a pickle, and gets an archive with two storages around it.

#![no_main]

use std::io::Write;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use soprano_export::source::Weights;

fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut whole = rawzip::ZipArchiveWriter::new(Vec::new());
    let records: [(&str, &[u8]); 4] = [
        ("a/data.pkl", pickle),
        ("a/version", b"3\n"),
        ("a/data/0", &[0x3c; 96]),
        ("a/data/1", &[0; 8]),
    ];
    for (name, data) in records {
        let (mut entry, config) = whole.new_file(name).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(data).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    whole.finish().unwrap()
}

fuzz_target!(|data: &[u8]| {
    let file = if data.starts_with(b"PK") { data.to_vec() } else { archive(data) };
    let size = file.len();
    let Ok(weights) = Weights::from_torch_bytes(file.into(), Path::new("fuzzed.pth")) else { return };
    for (name, tensor) in weights.iter() {
        let values = tensor.to_f32().expect("f32, f16 or bf16");
        assert_eq!(values.len(), tensor.shape().iter().product::<usize>(), "{name}");
        assert!(values.len() * tensor.dtype().size() <= size, "{name} is larger than its file");
        let finite = values.iter().filter(|value| value.is_finite()).count();
        assert_eq!(tensor.count_not_finite().unwrap(), values.len() - finite, "{name}");
        assert_eq!(tensor.to_f32_bytes().unwrap().len(), values.len() * 4, "{name}");
    }
});
