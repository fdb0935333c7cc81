//! Makes the kernel object available to `include_bytes_aligned!`. `cargo xtask build` writes the object; without it the
//! embedded object is empty and the daemon says so, so that `cargo check`, `clippy` and `test` need no BPF toolchain.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=PLUMBLINE_BPF_OBJECT");
    let object = env::var_os("PLUMBLINE_BPF_OBJECT").map_or_else(
        || {
            let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
            manifest.join("../target/bpf/plumbline.bpf.o")
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    let out = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default().join("plumbline.bpf.o");
    fs::write(out, fs::read(object).unwrap_or_default())
}
