//! The way to a venue: a proxy, and whose certificates are trusted beside the well-known ones.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;
use yawc::{MaybeTlsStream, Options, TcpWebSocket, WebSocket, WebSocketError};

/// Largest message taken from a venue, as it is on the wire and with its compression undone.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no way to a venue.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The proxy's URL cannot be used. The URL is left out: it may hold a password.
    #[error(
        "a proxy is http://host:port or socks5://host:port, with user:password@ before the host if it wants them"
    )]
    Proxy,
    /// The file with certificates cannot be used.
    #[error("certificates in {file}: {reason}")]
    Certificates {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The proxy refused.
    #[error("the proxy gives no connection: {0}")]
    Refused(String),
    /// The connection or the handshake failed.
    #[error(transparent)]
    Socket(#[from] WebSocketError),
    /// The address leads nowhere.
    #[error("{0}: {1}")]
    Address(String, String),
    /// No connection to the venue, or its certificate is not to be trusted.
    #[error("no connection: {0}")]
    Unreachable(#[from] std::io::Error),
}

/// How venues are reached. TLS is always verified, against the well-known certificates and those of `ca_file`.
#[derive(Clone)]
pub struct Network {
    proxy: Option<Url>,
    tls: Arc<ClientConfig>,
    compression: bool,
}

/// Without the proxy, whose URL may hold a password.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("proxied", &self.proxy.is_some()).finish_non_exhaustive()
    }
}

impl Network {
    /// Through `proxy`, where one is given, trusting the certificates in `ca_file` (PEM) too.
    pub fn new(proxy: Option<&str>, ca_file: Option<&Path>) -> Result<Network, NetworkError> {
        // With two providers compiled in, rustls chooses none; an earlier choice is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let proxy = proxy.map(checked_proxy).transpose()?;
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(file) = ca_file {
            add_certificates(&mut roots, file)?;
        }
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Network { proxy, tls: Arc::new(tls), compression: true })
    }

    /// The same way, with or without compression (permessage-deflate, RFC 7692) where a venue offers it.
    #[must_use]
    pub fn with_compression(self, compression: bool) -> Network {
        Network { compression, ..self }
    }

    /// The same way for HTTP requests.
    pub(super) fn http(&self) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        let builder = reqwest::Client::builder().tls_backend_preconfigured((*self.tls).clone());
        Ok(match &self.proxy {
            Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.as_str())?),
            None => builder.no_proxy(),
        })
    }

    /// Opens a WebSocket.
    pub(super) async fn open(&self, address: &str) -> Result<TcpWebSocket, NetworkError> {
        let wrong = |reason: &str| NetworkError::Address(address.to_owned(), reason.to_owned());
        let url = Url::parse(address).map_err(|error| wrong(&error.to_string()))?;
        let host = url.host_str().ok_or_else(|| wrong("without a host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| wrong("without a port"))?;
        let stream = match &self.proxy {
            None => TcpStream::connect((bare(&host), port)).await?,
            Some(proxy) => tunnel(proxy, &host, port).await?,
        };
        // What is sent waits for nothing.
        stream.set_nodelay(true)?;
        let stream = match url.scheme() {
            "ws" => MaybeTlsStream::Plain(stream),
            "wss" => {
                let name = ServerName::try_from(bare(&host).to_owned())
                    .map_err(|error| wrong(&error.to_string()))?;
                let connector = TlsConnector::from(Arc::clone(&self.tls));
                MaybeTlsStream::Tls(connector.connect(name, stream).await?)
            }
            _ => return Err(wrong("neither ws:// nor wss://")),
        };
        Ok(WebSocket::handshake(url, stream, self.options()).await?)
    }

    fn options(&self) -> Options {
        // The library's limits are exclusive.
        let limit = MAX_MESSAGE_BYTES + 1;
        let options = Options::default().with_limits(limit, limit);
        if self.compression {
            // What a connector says is too short to gain by it.
            options.with_low_latency_compression().with_compression_threshold(usize::MAX)
        } else {
            options
        }
    }
}

/// A host as resolvers and certificates have it: an IPv6 address without the brackets that it has in a URL.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn checked_proxy(text: &str) -> Result<Url, NetworkError> {
    let url = Url::parse(text).map_err(|_| NetworkError::Proxy)?;
    let known = matches!(url.scheme(), "http" | "socks5" | "socks5h");
    if known && url.has_host() { Ok(url) } else { Err(NetworkError::Proxy) }
}

fn add_certificates(roots: &mut RootCertStore, file: &Path) -> Result<(), NetworkError> {
    let wrong =
        |reason: String| NetworkError::Certificates { file: file.display().to_string(), reason };
    let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    let before = roots.len();
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(wrong("it holds none (PEM is expected)".to_owned()));
    }
    Ok(())
}

fn refused(error: impl fmt::Display) -> NetworkError {
    NetworkError::Refused(error.to_string())
}

/// A connection through the proxy.
async fn tunnel(proxy: &Url, host: &str, port: u16) -> Result<TcpStream, NetworkError> {
    let target: Uri = format!("https://{host}:{port}").parse().map_err(refused)?;
    let at = proxy.host_str().ok_or(NetworkError::Proxy)?;
    let is_http = proxy.scheme() == "http";
    let port = proxy.port().unwrap_or(if is_http { 80 } else { 1_080 });
    let at: Uri = format!("http://{at}:{port}").parse().map_err(refused)?;
    let (user, password) = (decoded(proxy.username()), decoded(proxy.password().unwrap_or("")));
    let stream = if is_http {
        let mut tunnel = Tunnel::new(at, HttpConnector::new());
        if !user.is_empty() {
            tunnel = tunnel.with_auth(basic(&user, &password)?);
        }
        tunnel.call(target).await.map_err(refused)?
    } else {
        let mut socks =
            SocksV5::new(at, HttpConnector::new()).local_dns(proxy.scheme() == "socks5");
        if !user.is_empty() {
            socks = socks.with_auth(user, password);
        }
        socks.call(target).await.map_err(refused)?
    };
    Ok(stream.into_inner())
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, NetworkError> {
    use base64::Engine as _;
    let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    HeaderValue::from_str(&format!("Basic {both}")).map_err(|_| NetworkError::Proxy)
}

/// A part of a URL without its percent-encoding.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}
