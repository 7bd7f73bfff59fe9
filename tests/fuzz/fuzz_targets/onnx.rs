//! Any bytes are an error or a model; a model survives every pass, stays consistent, and comes back
//! from its own bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use soprano_export::ir::Model;
use soprano_export::passes::Driver;

fuzz_target!(|data: &[u8]| {
    // A folder that isn't there: external data must not lead the fuzzer to files of the machine.
    let name = "/nonexistent/fuzzed.onnx";
    let Ok(mut model) = Model::from_bytes(bytes::Bytes::copy_from_slice(data), name) else { return };
    Driver::default().run(&mut model).unwrap();
    model.consistent().expect("consistent after the passes");
    Model::from_bytes(model.to_bytes().into(), name).expect("readable after the passes");
});
