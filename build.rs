//! Compiles `proto/` into the types of the `wire` room, with a compiler written in Rust: no installed `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile(["data.proto", "management.proto"], ["proto"])?;
    // Packet bytes are slices of the received message, not copies of it.
    tonic_prost_build::configure().bytes(".lippycat.data.CapturedPacket.data").compile_fds(files)?;
    Ok(())
}
