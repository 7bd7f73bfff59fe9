//! Any bytes are an error or tensors, each value of which can be read and is as large as its file at most.

#![no_main]

use std::path::Path;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use soprano_export::source::Weights;

fuzz_target!(|data: &[u8]| {
    let file = Bytes::copy_from_slice(data);
    let Ok(weights) = Weights::from_safetensors_bytes(file, Path::new("fuzzed.safetensors")) else {
        return;
    };
    for (name, tensor) in weights.iter() {
        let values = tensor.to_f32().expect("f32, f16 or bf16");
        assert_eq!(values.len(), tensor.len(), "{name}");
        assert!(values.len() * tensor.dtype().size() <= data.len(), "{name} is larger than its file");
        let finite = values.iter().filter(|value| value.is_finite()).count();
        assert_eq!(tensor.count_not_finite().unwrap(), values.len() - finite, "{name}");
        assert_eq!(tensor.to_f32_bytes().unwrap().len(), values.len() * 4, "{name}");
    }
});
