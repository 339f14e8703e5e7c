//! Compiles `proto/` into the types of the `wire` room, with a compiler written in Rust: no installed `protoc` is needed. Tells `lc --version` the
//! commit.

use std::error::Error;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile(["data.proto", "management.proto"], ["proto"])?;
    // Packet bytes are slices of the received message, not copies of it.
    tonic_prost_build::configure().bytes(".lippycat.data.CapturedPacket.data").compile_fds(files)?;
    tell_commit();
    pack_relocations();
    Ok(())
}

/// Half a megabyte of addresses to be adjusted at the start becomes some kilobytes: less to read, and less that stays in memory. glibc knows the form
/// since 2.36, that of Debian 12.
fn pack_relocations() {
    let is = |key: &str, value: &str| std::env::var(key).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Sets `LC_COMMIT`, unless whoever builds has. Only in a release: elsewhere every commit would compile everything again.
fn tell_commit() {
    println!("cargo:rerun-if-env-changed=LC_COMMIT");
    if std::env::var_os("LC_COMMIT").is_some() || std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // An archive has no commit (nor has it that of a repository around it), and a machine may have no git: then the version says nothing of it.
    if !Path::new(".git").exists() {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    println!("cargo:rustc-env=LC_COMMIT={commit}");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
