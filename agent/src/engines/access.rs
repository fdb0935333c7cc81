//! How an engine's page is reached: over TCP here or in another network namespace, over a unix socket, with TLS, with a
//! token. Configured ways are checked when the configuration is read; discovery makes its own.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use hyper::Uri;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::ServerName;

use super::config::ConfigError;
use crate::netns::Network;
use crate::trust::OwnCertificate;

/// Where an engine's page is: `http://host[:port]/path` or the same with `https`, the path `/metrics` where none is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MetricsUrl {
    uri: Uri,
    host: String,
    port: u16,
}

/// One engine's page, and the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub url: MetricsUrl,
    pub way: Way,
    /// There exactly if the URL is `https`.
    pub tls: Option<Tls>,
    /// Its content is sent as a bearer token.
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    Tcp,
    /// From within another network namespace, where the host of the URL is this address.
    TcpIn(Network, SocketAddr),
    /// The host of the URL is only what the engine is told that it is called.
    Unix(PathBuf),
    /// The same, of another process.
    UnixIn(Within),
}

/// A socket below the root of another process, which may have set traps there: symbolic links lead no further than that root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// `/proc/PID/root` or `/proc/PID/cwd`.
    pub root: PathBuf,
    pub path: PathBuf,
    /// Device and inode of the socket that was found.
    pub socket: Option<(u64, u64)>,
}

impl Within {
    /// The socket itself, opened but not connected, and which it is. Blocks where a file system does.
    pub fn open(&self) -> io::Result<(OwnedFd, (u64, u64))> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = open(&self.root, flags | OFlags::DIRECTORY, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let socket = openat2(&root, &self.path, flags, Mode::empty(), resolve)?;
        let stat = fstat(&socket)?;
        let found = (stat.st_dev, stat.st_ino);
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        if !is_socket || self.socket.is_some_and(|known| known != found) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the engine's socket is not there any more"));
        }
        Ok((socket, found))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates, one of which must have signed the engine's.
    pub ca_file: PathBuf,
    pub server_name: ServerName<'static>,
    pub own: Option<OwnCertificate>,
}

/// The keys of a target that say how it is reached.
#[derive(Debug, Default)]
pub struct Written {
    pub unix_socket: Option<PathBuf>,
    pub network_namespace: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub server_name: Option<String>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
}

impl Access {
    pub fn new(url: MetricsUrl, written: Written) -> Result<Self, ConfigError> {
        let Written { unix_socket, network_namespace, ca_file, server_name, cert_file, key_file, token_file } = written;
        let way = match (unix_socket, network_namespace) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoWays),
            (Some(path), None) if path.is_absolute() => Way::Unix(path),
            (Some(path), None) => return Err(ConfigError::Relative { key: "unix_socket", path }),
            (None, Some(path)) if !path.is_absolute() => {
                return Err(ConfigError::Relative { key: "network_namespace", path });
            }
            (None, Some(path)) => {
                Way::TcpIn(Network { path, inode: None }, url.address().ok_or(ConfigError::NoAddress)?)
            }
            (None, None) => Way::Tcp,
        };
        let tls = match (url.is_tls(), ca_file) {
            (true, None) => return Err(ConfigError::NoCa),
            (true, Some(ca_file)) => {
                let name = server_name.unwrap_or_else(|| url.host.clone());
                let server_name = ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name))?;
                let own = match (cert_file, key_file) {
                    (Some(cert_file), Some(key_file)) => Some(OwnCertificate { cert_file, key_file }),
                    (None, None) => None,
                    _ => return Err(ConfigError::HalfCertificate),
                };
                Some(Tls { ca_file, server_name, own })
            }
            (false, ca_file) => {
                let is_asked = [ca_file, cert_file, key_file].iter().any(Option::is_some) || server_name.is_some();
                if is_asked {
                    return Err(ConfigError::TlsWithoutHttps);
                }
                None
            }
        };
        let stays_here = matches!(way, Way::Unix(_)) || url.is_loopback();
        if token_file.is_some() && tls.is_none() && !stays_here {
            return Err(ConfigError::OpenToken);
        }
        Ok(Self { url, way, tls, token_file })
    }

    /// Plainly, over TCP, from where the daemon is.
    pub fn plain(url: MetricsUrl) -> Self {
        Self { url, way: Way::Tcp, tls: None, token_file: None }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, way, .. } = self;
        match way {
            Way::Tcp => write!(f, "{url}"),
            Way::TcpIn(Network { inode: Some(inode), .. }, _) => write!(f, "{url} in net:[{inode}]"),
            Way::TcpIn(Network { path, inode: None }, _) => write!(f, "{url} in {}", shown(path)),
            // By the socket itself: who shares it, such as a wrapper and its child, is one engine.
            Way::UnixIn(Within { path, socket: Some((device, inode)), .. }) => {
                write!(f, "{url} at {} (socket {device}:{inode})", shown(path))
            }
            Way::UnixIn(Within { path, .. }) => write!(f, "{url} at {}", shown(path)),
            Way::Unix(path) => write!(f, "{url} at {}", shown(path)),
        }
    }
}

/// A path is foreign text.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

impl TryFrom<String> for MetricsUrl {
    type Error = ConfigError;

    fn try_from(url: String) -> Result<Self, ConfigError> {
        let Ok(uri) = url.parse::<Uri>() else { return Err(ConfigError::Url(url)) };
        let (scheme, usual_port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            _ => return Err(ConfigError::Url(url)),
        };
        let Some(authority) = uri.authority() else { return Err(ConfigError::Url(url)) };
        if authority.as_str().contains('@') {
            return Err(ConfigError::Credentials);
        }
        // IPv6 stands in brackets in a URL and without them in an address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => usual_port,
            _ => authority.port_u16().unwrap_or(0),
        };
        if host.is_empty() || port == 0 {
            return Err(ConfigError::Url(url));
        }
        let path = match uri.path_and_query().map(hyper::http::uri::PathAndQuery::as_str) {
            None | Some("" | "/") => "/metrics",
            Some(path) => path,
        };
        match format!("{scheme}://{authority}{path}").parse() {
            Ok(uri) => Ok(Self { uri, host, port }),
            Err(_) => Err(ConfigError::Url(url)),
        }
    }
}

impl MetricsUrl {
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// A name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the host is an address, and no name.
    pub fn address(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.ip().is_loopback())
    }

    fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

impl fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}
