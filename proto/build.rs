//! Generates the gRPC code with protox, so that no system `protoc` is needed, and the descriptor set for reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["admin", "consumer", "errors", "groups", "metadata", "producer", "records"]
        .map(|f| format!("taffrail/v1/{f}.proto"));
    println!("cargo:rerun-if-changed=taffrail");
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("taffrail.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::MessageCodec").compile_fds(descriptors)?;
    Ok(())
}
