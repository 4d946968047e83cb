//! The way to a venue: proxies carry WebSockets and REST alike, and certificates are verified.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tapeline::venue::driver::{Network, VenueConfig};
use tapeline_schemas::Kind;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::going_on::Run;
use crate::stage::{Stage, eventually};

/// Passes connections on, as HTTP or SOCKS5 asks for, and counts them. Wants `user` and `pass word`.
async fn proxy(is_http: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let target =
                    if is_http { connect(&mut client).await } else { socks(&mut client).await };
                counted.fetch_add(1, Ordering::Relaxed);
                let mut target = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut target).await;
            });
        }
    });
    (address, count)
}

async fn connect(client: &mut BufReader<TcpStream>) -> String {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        client.read_line(&mut request).await.unwrap();
    }
    let lower = request.to_lowercase();
    assert!(lower.contains("proxy-authorization: basic dxnlcjpwyxnzihdvcmq="), "{request}");
    // Without TLS, a request by HTTP names its whole address instead.
    let target = request.split(' ').nth(1).unwrap().to_owned();
    if request.starts_with("CONNECT") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        return target;
    }
    let target = target.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let mut onward = TcpStream::connect(&target).await.unwrap();
    let request = request.replacen(&format!("http://{target}"), "", 1);
    let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    onward.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    onward.read_to_end(&mut answer).await.unwrap();
    client.write_all(&answer).await.unwrap();
    target
}

async fn socks(client: &mut BufReader<TcpStream>) -> String {
    let mut head = [0; 2];
    client.read_exact(&mut head).await.unwrap();
    let mut methods = vec![0; usize::from(head[1])];
    client.read_exact(&mut methods).await.unwrap();
    assert!(methods.contains(&2), "it has a password");
    client.write_all(&[5, 2]).await.unwrap();
    let mut login = [0; 2 + 4 + 1 + 9];
    client.read_exact(&mut login).await.unwrap();
    assert_eq!(&login[2..6], b"user");
    assert_eq!(&login[7..], b"pass word");
    client.write_all(&[1, 0]).await.unwrap();
    let mut wanted = [0; 4];
    client.read_exact(&mut wanted).await.unwrap();
    assert_eq!(wanted, [5, 1, 0, 1], "an address of version 4");
    let mut target = [0; 6];
    client.read_exact(&mut target).await.unwrap();
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let [a, b, c, d, high, low] = target;
    format!("{a}.{b}.{c}.{d}:{}", u16::from_be_bytes([high, low]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_carries_the_connection_and_the_requests() {
    for is_http in [true, false] {
        let stage = Stage::open(&["AAA"]).await;
        let (address, count) = proxy(is_http).await;
        let scheme = if is_http { "http" } else { "socks5" };
        let url = format!("{scheme}://user:pass%20word@{address}");
        let network = Network::new(Some(&url), None).unwrap();
        assert!(!format!("{network:?}").contains("pass"));
        let config = stage.config(&["AAA"], &[Kind::Trade]);
        let run = Run::start(VenueConfig { network, ..config });
        eventually("connected", || stage.came() == 1).await;
        let id = stage.trade("AAA");
        eventually("a trade", || run.trades("AAA") == [id]).await;
        assert!(count.load(Ordering::Relaxed) >= 2, "the table of symbols and the stream");
        run.end().await;
    }
}

#[test]
fn a_proxy_or_a_file_of_certificates_that_cannot_be_used_is_refused_without_its_password() {
    for url in ["ftp://user:secret@host:1", "user:secret", "http://"] {
        let error = Network::new(Some(url), None).unwrap_err().to_string();
        assert!(error.contains("socks5://") && !error.contains("secret"), "{error}");
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = Network::new(None, Some(&file)).unwrap_err().to_string();
    assert!(error.contains("Cargo.toml: it holds none"), "{error}");
}

/// A certificate for 127.0.0.1, signed by itself, with its key: two PEM files.
fn certificate() -> (PathBuf, PathBuf) {
    let dir = std::env::temp_dir().join(format!("tapeline_venue_tls_{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (certificate, key) = (dir.join("venue.pem"), dir.join("venue.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]);
    openssl.args(["ec_paramgen_curve:P-256", "-subj", "/CN=Venue"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (certificate, key)
}

/// Takes connections over TLS for the venue at `behind`; its address, and how many clients refused the certificate.
async fn over_tls(behind: &str, certificate: &Path, key: &Path) -> (String, Arc<AtomicUsize>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let acceptor = TlsAcceptor::from(Arc::new(server.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (count, behind) = (Arc::new(AtomicUsize::new(0)), behind.to_owned());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, behind, counted) = (acceptor.clone(), behind.clone(), counted.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else {
                    counted.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let mut venue = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut venue).await;
            });
        }
    });
    (address, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_s_certificate_is_verified_against_the_named_file_and_nothing_is_sent_without_o7() {
    let (certificate, key) = certificate();
    let stage = Stage::open(&["AAA"]).await;
    let (address, refused) = over_tls(stage.address(), &certificate, &key).await;
    let config = |network: Network| VenueConfig {
        network,
        ws_url: format!("wss://{address}"),
        ..stage.config(&["AAA"], &[Kind::Trade])
    };

    let unknown = Run::start(config(Network::new(None, None).unwrap()));
    eventually("refused", || refused.load(Ordering::Relaxed) > 0).await;
    assert_eq!(stage.came(), 0);
    unknown.end().await;

    let named = config(Network::new(None, Some(&certificate)).unwrap());
    let run = Run::start(VenueConfig { rest_url: format!("https://{address}"), ..named });
    eventually("connected", || stage.came() == 1).await;
    let id = stage.trade("AAA");
    eventually("a trade", || run.trades("AAA") == [id]).await;
    run.end().await;
}
