//! A Python with the packages that tests compare against: signatures and schemas checked by code that is not ours.
//!
//! The machine's `python3` serves where there is one, else Debian's is unpacked into the cache. Packages go to a virtual
//! environment in the cache, put there by Debian's `pip` wheel, as a bare Debian has no `pip`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};

/// What tests import; exact, so that a new release is a change of this line.
const PACKAGES: [&str; 7] = [
    "cryptography==50.0.2",
    "grpcio==1.85.3",
    "jsonschema==4.26.0",
    "ocsf-json-schema==1.2.0",
    "opentelemetry-proto==1.45.2",
    "prometheus-client==0.26.0",
    "pyyaml==6.0.3",
];

/// A virtual environment, and how to start its interpreter.
#[derive(Debug)]
pub(crate) struct Python {
    pub(crate) program: PathBuf,
    pip_wheel: PathBuf,
}

impl Python {
    /// The environment for tests.
    pub(crate) fn for_tests(cache: &Cache) -> Result<Self> {
        Self::with(cache, "python", &PACKAGES)
    }

    /// An environment of its own for one purpose. Its packages are part of its name: another list is another item.
    pub(crate) fn with(cache: &Cache, name: &str, packages: &[&str]) -> Result<Self> {
        let name = &format!("{name}-{}", packages.join("-").replace("==", "-"));
        let wheels = cache.item("pip", |scratch| {
            let apt = Apt::of_machine(cache)?;
            apt.unpack(&[apt.newest("python3-pip-whl")?], scratch)
        })?;
        let pip_wheel = the_file(&wheels.join("usr/share/python-wheels"), "pip-")?;
        let base = interpreter(cache)?;
        let item = cache.item(name, |scratch| {
            println!("setup: installing Python packages: {}", packages.join(", "));
            cmd::output(base.command().args(["-m", "venv", "--without-pip"]).arg(scratch.join("venv")))?;
            let program = scratch.join("python3");
            // By a script, because an unpacked interpreter must be told where its libraries are.
            let venv = cache.path(name).join("venv/bin/python3");
            let script = format!("#!/bin/sh\n{}exec '{}' \"$@\"\n", base.environment(), venv.display());
            fs::write(&program, script).map_err(Error::file("write", &program))?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(Error::file("mark", &program))?;

            let mut pip = base.command_of(&scratch.join("venv/bin/python3"));
            pip.env("PYTHONPATH", &pip_wheel).args(["-m", "pip", "install", "--quiet"]).args(packages);
            cmd::output(&mut pip).map(drop)
        })?;
        Ok(Self { program: item.join("python3"), pip_wheel })
    }

    /// `pip` of this environment.
    pub(crate) fn pip(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("PYTHONPATH", &self.pip_wheel).args(["-m", "pip"]);
        command
    }
}

/// An interpreter to make environments from.
#[derive(Debug)]
struct Base {
    program: PathBuf,
    libraries: Option<PathBuf>,
}

impl Base {
    fn command(&self) -> Command {
        self.command_of(&self.program)
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    fn environment(&self) -> String {
        let Some(libraries) = &self.libraries else { return String::new() };
        format!("LD_LIBRARY_PATH='{}' ", libraries.display())
    }
}

fn interpreter(cache: &Cache) -> Result<Base> {
    let usable = ["-c", "import venv, ssl, ctypes, sys; sys.exit(sys.version_info < (3, 9))"];
    if cmd::output(Command::new("python3").args(usable)).is_ok() {
        return Ok(Base { program: "python3".into(), libraries: None });
    }
    let root = cache.item("python-debian", |scratch| {
        let apt = Apt::of_machine(cache)?;
        apt.unpack(&apt.closure("python3")?, scratch)
    })?;
    Ok(Base { program: root.join("usr/bin/python3"), libraries: Some(root.join("usr/lib/x86_64-linux-gnu")) })
}

/// The one file in `dir` whose name starts so.
fn the_file(dir: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).map_err(Error::file("list", dir))?;
    entries
        .filter_map(std::result::Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .ok_or_else(|| Error::said(format!("there is no `{start}*` in {}", dir.display())))
}
