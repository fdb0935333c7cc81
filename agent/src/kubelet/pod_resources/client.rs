//! One question: `v1.PodResourcesLister/List` over a connection of its own, one deadline for all, a bounded answer.

use std::{io, path::Path, time::Duration};

use hyper::{Uri, http::uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};
use tonic::{Request, Status, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

use super::message::{ListRequest, ListResponse};

/// From the start of connecting to the last byte. The kubelet answers at most a hundred a second, and this one waits its turn.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A thousand containers with sixteen devices each have a megabyte. Decoded, hostile bytes take forty times as much.
const ANSWER_BYTES: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("there is no such socket")]
    NoSocket,
    #[error("connecting")]
    Connect(#[source] tonic::transport::Error),
    #[error("no whole answer within {TIMEOUT:?}")]
    Timeout,
    #[error("the kubelet answered {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
}

pub(super) async fn list(socket: &Path) -> Result<ListResponse, AskError> {
    timeout(TIMEOUT, ask(socket)).await.unwrap_or(Err(AskError::Timeout))
}

async fn ask(socket: &Path) -> Result<ListResponse, AskError> {
    if !tokio::fs::try_exists(socket).await.unwrap_or(true) {
        return Err(AskError::NoSocket);
    }
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    // The address is that of the socket; this names the authority that HTTP wants.
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connect).await.map_err(AskError::Connect)?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES);
    grpc.ready().await.map_err(AskError::Connect)?;
    let path = PathAndQuery::from_static("/v1.PodResourcesLister/List");
    let answer = grpc.unary(Request::new(ListRequest {}), path, ProstCodec::default()).await;
    answer.map(tonic::Response::into_inner).map_err(|status| AskError::Status(Box::new(status)))
}
