//! `src/ir/proto.rs` is generated from ONNX's own `onnx.proto`; this test makes it again and compares.
//! `UPDATE_PROTO=1 cargo test --release --test onnx_proto` writes it.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors =
        protox::compile(["onnx.proto"], [root.join("src/ir")]).expect("onnx.proto parses");
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .bytes(["."])
        .disable_comments(["."])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("prost generates");
    let made = std::fs::read_to_string(out.path().join("onnx.rs")).unwrap();
    let kept = root.join("src/ir/proto.rs");
    if std::env::var_os("UPDATE_PROTO").is_some() {
        std::fs::write(&kept, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&kept).unwrap() == made,
        "src/ir/proto.rs differs from what onnx.proto generates: run with UPDATE_PROTO=1"
    );
}
