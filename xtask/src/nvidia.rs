//! NVIDIA's own runtime and NCCL, out of the packages that frameworks install: no GPU is needed to call them, they say that there is none.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::python::Python;

/// Package and version, and the library within it.
const LIBRARIES: [(&str, &str, &str); 2] = [
    ("nvidia-cuda-runtime-cu12", "12.9.79", "nvidia/cuda_runtime/lib/libcudart.so.12"),
    ("nvidia-nccl-cu12", "2.32.3", "nvidia/nccl/lib/libnccl.so.2"),
];

/// The directory with the libraries, and nothing else of the packages.
pub(crate) fn set_up(cache: &Cache) -> Result<PathBuf> {
    let python = Python::for_tests(cache)?;
    let versions = LIBRARIES.map(|(package, version, _)| format!("{package}-{version}"));
    cache.item(&versions.join("-"), |scratch| {
        LIBRARIES.iter().try_for_each(|(package, version, library)| fetch(&python, scratch, package, version, library))
    })
}

fn fetch(python: &Python, scratch: &Path, package: &str, version: &str, library: &str) -> Result<()> {
    println!("setup: fetching {package} {version}");
    let unpacked = scratch.join(package);
    let install = ["install", "--quiet", "--no-deps", "--target"];
    cmd::output(python.pip().args(install).arg(&unpacked).arg(format!("{package}=={version}")))?;
    let found = unpacked.join(library);
    let name = found.file_name().ok_or_else(|| Error::said(format!("{library} has no name")))?;
    fs::rename(&found, scratch.join(name)).map_err(Error::file("move", &found))?;
    fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))
}
