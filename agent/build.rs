//! Makes the kernel objects available to `include_bytes_aligned!`. `cargo xtask build` writes them; without them the embedded objects are
//! empty and the daemon says so, so that `cargo check`, `clippy` and `test` need no BPF toolchain.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=PLUMBLINE_BPF_OBJECTS");
    let directory = env::var_os("PLUMBLINE_BPF_OBJECTS").map_or_else(
        || {
            let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
            manifest.join("../target/bpf")
        },
        PathBuf::from,
    );
    let out = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    for name in ["plumbline.bpf.o", "cuda.bpf.o"] {
        let object = directory.join(name);
        println!("cargo::rerun-if-changed={}", object.display());
        fs::write(out.join(name), fs::read(object).unwrap_or_default())?;
    }
    Ok(())
}
