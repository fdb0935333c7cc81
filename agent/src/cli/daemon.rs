//! Asking the running daemon, and saying something to it.

use std::{error::Error, fs, io, net::SocketAddr};

use super::{ConfigFile, ask, post};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DaemonArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the daemon serves [default: from the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

/// Where it serves.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Daemon(SocketAddr);

impl Daemon {
    /// Its answer.
    pub(in crate::cli) fn ask(self, path: &str) -> Result<String, Box<dyn Error>> {
        let Self(address) = self;
        ask(address, path).map_err(|error| match error.kind() {
            io::ErrorKind::Other => format!("the daemon on {address} says: {error}").into(),
            _ => format!("no daemon answers on {address}: {error}").into(),
        })
    }
}

impl DaemonArguments {
    pub(in crate::cli) fn config(&self) -> Result<Config, Box<dyn Error>> {
        Ok(Config::load(self.config.config.as_deref())?.0)
    }

    pub(in crate::cli) fn daemon(&self) -> Result<Daemon, Box<dyn Error>> {
        Ok(Daemon(self.address(&self.config()?)?))
    }

    pub(in crate::cli) fn ask(&self, path: &str) -> Result<String, Box<dyn Error>> {
        self.daemon()?.ask(path)
    }

    /// With the token of the configuration; the answer.
    pub(in crate::cli) fn post(&self, path: &str, payload: &serde_json::Value) -> Result<String, Box<dyn Error>> {
        let config = self.config()?;
        let address = self.address(&config)?;
        let file = config
            .incident
            .token_file
            .ok_or("the configuration has no `incident.token_file`, so that nobody may say so")?;
        let token = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let answer = post(address, path, token.trim(), &payload.to_string());
        answer.map_err(|error| format!("the daemon on {address} refuses: {error}").into())
    }

    fn address(&self, config: &Config) -> Result<SocketAddr, Box<dyn Error>> {
        let address = self.listen.or(config.listen);
        Ok(address.ok_or("the configuration says that the daemon serves nothing (`listen: null`)")?)
    }
}
