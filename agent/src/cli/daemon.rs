//! Saying something to the running daemon.

use std::{error::Error, fs, net::SocketAddr, path::PathBuf};

use super::{ConfigFile, post};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct DaemonArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the daemon serves [default: from the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

impl DaemonArguments {
    pub(super) fn address(&self) -> Result<SocketAddr, Box<dyn Error>> {
        self.read().map(|(address, _)| address)
    }

    /// With the token of the configuration; the answer.
    pub(super) fn post(&self, path: &str, payload: &serde_json::Value) -> Result<String, Box<dyn Error>> {
        let (address, token_file) = self.read()?;
        let file = token_file.ok_or("the configuration has no `incident.token_file`, so that nobody may say so")?;
        let token = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let answer = post(address, path, token.trim(), &payload.to_string());
        answer.map_err(|error| format!("the daemon on {address} refuses: {error}").into())
    }

    fn read(&self) -> Result<(SocketAddr, Option<PathBuf>), Box<dyn Error>> {
        let (config, _) = Config::load(self.config.config.as_deref())?;
        let address = self.listen.or(config.listen);
        let address = address.ok_or("the configuration says that the daemon serves nothing (`listen: null`)")?;
        Ok((address, config.incident.token_file))
    }
}
