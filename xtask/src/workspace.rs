//! Paths of this checkout.

use std::path::PathBuf;

/// The repository's root; cargo says where this package lies.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The object with the programs at CUDA's driver.
pub(crate) fn cuda_object() -> PathBuf {
    target().join("bpf/cuda.bpf.o")
}

/// The kernel object, where the agent's build embeds it from.
pub(crate) fn bpf_object() -> PathBuf {
    target().join("bpf/plumbline.bpf.o")
}
