//! The stream that a request for a page goes over.
//!
//! A socket that was made by a thread of its own within an engine's network namespace is connected, read and closed out here, like any other.

use std::{io, net::SocketAddr, os::fd::AsRawFd as _, path::PathBuf, sync::Arc, thread};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::access::{Access, Way};
use crate::netns::{Network, NetworkError};
use crate::trust::{self, TrustError};

/// Anything that carries a request and its answer.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting to {host}:{port}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("connecting to {}", path.display())]
    Unix { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Namespace(#[from] NetworkError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("agreeing on TLS with the engine")]
    Handshake(#[source] io::Error),
}

/// Nothing here has a time limit of its own.
pub async fn connect(access: &Access) -> Result<Box<dyn Stream>, ConnectError> {
    let (host, port) = (access.url.host(), access.url.port());
    let not_connected = |source| ConnectError::Connect { host: host.to_owned(), port, source };
    let stream: Box<dyn Stream> = match &access.way {
        Way::Tcp => Box::new(TcpStream::connect((host, port)).await.map_err(not_connected)?),
        Way::TcpIn(network, address) => {
            let socket = socket_in(network.clone(), *address).await?;
            Box::new(socket.connect(*address).await.map_err(not_connected)?)
        }
        Way::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            Box::new(stream.map_err(|source| ConnectError::Unix { path: path.clone(), source })?)
        }
        Way::UnixIn(within) => {
            let path = within.root.join(&within.path);
            let failed = |source| ConnectError::Unix { path: path.clone(), source };
            let opening = within.clone();
            let opened = tokio::task::spawn_blocking(move || opening.open()).await;
            let (socket, _) = opened.map_err(|error| failed(error.into()))?.map_err(failed)?;
            // What was opened, whatever stands at its name by now.
            let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await;
            Box::new(stream.map_err(failed)?)
        }
    };
    let Some(tls) = &access.tls else { return Ok(stream) };
    let connector = TlsConnector::from(Arc::new(trust::trusting(&tls.ca_file, tls.own.as_ref()).await?));
    let stream = connector.connect(tls.server_name.clone(), stream).await.map_err(ConnectError::Handshake)?;
    Ok(Box::new(stream))
}

/// A socket of the other namespace, not connected yet.
async fn socket_in(network: Network, address: SocketAddr) -> Result<TcpSocket, ConnectError> {
    let path = network.path.clone();
    let failed = |source| NetworkError::Enter { path: path.clone(), source };
    // A thread that has been elsewhere is not used again.
    let make = move || {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || make_in(&network, address))?
            .join()
            .map_err(|_| io::ErrorKind::Other.into())
    };
    tokio::task::spawn_blocking(make).await.map_err(|error| failed(error.into()))?.map_err(failed)?.map_err(Into::into)
}

fn make_in(network: &Network, address: SocketAddr) -> Result<TcpSocket, NetworkError> {
    network.enter()?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let failed = |source| NetworkError::Enter { path: network.path.clone(), source };
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(|errno| failed(errno.into()))?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::access::MetricsUrl;

    async fn check(way: Way, expect: &str) {
        let url = MetricsUrl::try_from("http://127.0.0.1:9".to_owned()).expect("a good url");
        let error = connect(&Access { way, ..Access::plain(url) }).await.err().expect("no connection");
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let said = error.to_string() + &source.unwrap_or_default();
        assert!(said.contains(expect), "{said}");
    }

    fn within(path: &str, inode: Option<u64>) -> Way {
        Way::TcpIn(Network { path: path.into(), inode }, SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    #[tokio::test]
    async fn what_is_no_way_to_an_engine_is_said() {
        check(Way::Unix("/nonexistent".into()), "connecting to /nonexistent: No such file").await;
        check(Way::Unix(format!("/{}", "x".repeat(200)).into()), "path must be shorter than").await;
        check(within("/nonexistent", None), "entering the network namespace /nonexistent").await;
        check(within("/proc/self/ns/net", Some(1)), "/proc/self/ns/net is another network namespace by now").await;
        // Neither a namespace nor, without privileges, ours to enter.
        check(within("/dev/null", None), "entering the network namespace /dev/null").await;
    }
}
