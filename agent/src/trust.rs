//! What a client needs to be sure of whom it asks, and to prove who asks: certificates and bearer tokens out of files, which are read anew
//! for each question, as they are renewed under us.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::header::HeaderValue;
use thiserror::Error;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Why a file is of no use.
#[derive(Debug, Error)]
pub enum TrustError {
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} has no certificate that could be used: {why}", path.display())]
    Certificates { path: PathBuf, why: String },
    #[error("{} has no private key that could be used: {why}", path.display())]
    Key { path: PathBuf, why: String },
    #[error("{} has no token", path.display())]
    Token { path: PathBuf },
    #[error("TLS is not possible here")]
    Tls(#[source] rustls::Error),
}

/// Certificate and private key of this side, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// TLS 1.3 with whose certificate one of those in `ca_file` has signed; one that signed itself is its own.
pub async fn trusting(ca_file: &Path, own: Option<&OwnCertificate>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(ca_file).await?);
    if added == 0 {
        return Err(TrustError::Certificates { path: ca_file.to_owned(), why: "it has none".to_owned() });
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TrustError::Tls)?
        .with_root_certificates(roots);
    let Some(OwnCertificate { cert_file, key_file }) = own else { return Ok(config.with_no_client_auth()) };
    let chain = certificates(cert_file).await?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_file).await?)
        .map_err(|error| TrustError::Key { path: key_file.clone(), why: error.to_string() })?;
    config.with_client_auth_cert(chain, key).map_err(TrustError::Tls)
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    CertificateDer::pem_slice_iter(&read(path).await?)
        .collect::<Result<_, _>>()
        .map_err(|error| TrustError::Certificates { path: path.to_owned(), why: error.to_string() })
}

/// `Bearer` and what the file holds, not to be shown.
pub async fn bearer(path: &Path) -> Result<HeaderValue, TrustError> {
    let text = read(path).await?;
    let text = text.trim_ascii();
    let value = HeaderValue::from_bytes(&[b"Bearer ", text].concat()).ok().filter(|_| !text.is_empty());
    let mut value = value.ok_or_else(|| TrustError::Token { path: path.to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    tokio::fs::read(path).await.map_err(|source| TrustError::File { path: path.to_owned(), source })
}
