//! `promtool`, Prometheus' own checker of metric pages, out of Debian's package.

use std::fs;
use std::path::PathBuf;

use crate::apt::Apt;
use crate::cache::Cache;
use crate::error::{Error, Result};

pub(crate) fn set_up(cache: &Cache) -> Result<PathBuf> {
    let item = cache.item("promtool", |scratch| {
        let apt = Apt::of_machine(cache)?;
        let unpacked = scratch.join("unpacked");
        // A package of its own since trixie, before that a part of the server's.
        let package = apt.newest("promtool").or_else(|_| apt.newest("prometheus"))?;
        apt.unpack(&[package], &unpacked)?;
        let found = unpacked.join("usr/bin/promtool");
        fs::rename(&found, scratch.join("promtool")).map_err(Error::file("move", &found))?;
        fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))
    })?;
    Ok(item.join("promtool"))
}
