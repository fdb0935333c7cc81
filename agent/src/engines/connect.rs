//! The stream that a request for a page goes over.
//!
//! A socket belongs for ever to the network namespace of the thread that made it (`setns(2)`, `net/socket.c`
//! `sock_create`): one made by a thread of its own within an engine's namespace is connected, read and closed out here, like any other.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::Arc,
    thread,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::access::{Access, Network, Way};
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
    #[error("entering the network namespace {} (needs CAP_SYS_ADMIN, and CAP_SYS_PTRACE for a process's)", path.display())]
    Namespace { path: PathBuf, source: io::Error },
    #[error("{} is another network namespace by now", path.display())]
    AnotherNamespace { path: PathBuf },
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
    let failed = |source| ConnectError::Namespace { path: path.clone(), source };
    // A thread that has been elsewhere is not used again.
    let make = move || {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || make_in(&network, address))?
            .join()
            .map_err(|_| io::ErrorKind::Other.into())
    };
    tokio::task::spawn_blocking(make).await.map_err(|error| failed(error.into()))?.map_err(failed)?
}

fn make_in(network: &Network, address: SocketAddr) -> Result<TcpSocket, ConnectError> {
    let failed = |source| ConnectError::Namespace { path: network.path.clone(), source };
    let file = File::open(&network.path).map_err(failed)?;
    let inode = file.metadata().map_err(failed)?.ino();
    if network.inode.is_some_and(|expected| expected != inode) {
        return Err(ConnectError::AnotherNamespace { path: network.path.clone() });
    }
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .map_err(|errno| failed(errno.into()))?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
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
