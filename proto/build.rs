//! Generates the gRPC code with protox, so that no system `protoc` is needed, and the descriptor set for reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=taffrail");
    let public = ["admin", "consumer", "errors", "groups", "metadata", "producer", "records"];
    let public = public.map(|file| format!("taffrail/v1/{file}.proto"));
    let internal = ["controller", "partitions", "replicas"].map(|file| format!("taffrail/internal/v1/{file}.proto"));
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // What is between brokers is not shown by reflection.
    std::fs::write(out.join("taffrail.v1.bin"), protox::compile(&public, ["."])?.encode_to_vec())?;
    let descriptors = protox::compile(public.iter().chain(&internal), ["."])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::MessageCodec").compile_fds(descriptors)?;
    Ok(())
}
