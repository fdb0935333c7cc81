//! Sixty-four engines: what asking them costs, beside Prometheus and VictoriaMetrics out of Debian's packages. The measuring is in the
//! package `plumbline-tests`.

use std::path::PathBuf;
use std::process::Command;

use crate::apt::Apt;
use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::error::Result;
use crate::privilege;
use crate::workspace;

pub(super) fn run(build: &Build) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--release", "--package", "plumbline-tests", "--bin", "bench-engines"]);
    cmd::run(&mut cargo)?;
    let cache = Cache::open()?;
    let prometheus = peer(&cache, "prometheus", "prometheus")?;
    let victoria = peer(&cache, "victoria-metrics", "victoria-metrics")?;
    let mut bench = privilege::elevated(&workspace::target().join("release/bench-engines"))?;
    bench.arg(build.binary()).arg(workspace::root().join("agent/src/engines/testdata/vllm-0.32.0.txt"));
    bench.arg(workspace::target().join("bench/engines"));
    bench.arg(format!("prometheus={}", prometheus.display())).arg(format!("victoria-metrics={}", victoria.display()));
    cmd::run(&mut bench)
}

fn peer(cache: &Cache, package: &str, program: &str) -> Result<PathBuf> {
    let item = cache.item(&format!("peer-{package}"), |scratch| {
        let apt = Apt::of_machine(cache)?;
        apt.unpack(&[apt.newest(package)?], scratch)
    })?;
    Ok(item.join("usr/bin").join(program))
}
