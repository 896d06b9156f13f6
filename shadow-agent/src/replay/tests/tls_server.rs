//! Certificates made by the test, and servers behind TLS that use them.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// An authority, and a folder with what it has signed.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub(super) struct Identity {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    pub(super) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    /// The file with its own certificate.
    pub(super) fn pem(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name or address, valid until the end of a year.
    pub(super) fn identity(&self, name: &str, year: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        let own = KeyPair::generate().unwrap();
        let signed = params.signed_by(&own, &self.issuer).unwrap();
        let file = |end: &str| self.folder.path().join(format!("{name}-{year}.{end}"));
        let (cert, key) = (file("pem"), file("key"));
        std::fs::write(&cert, signed.pem()).unwrap();
        std::fs::write(&key, own.serialize_pem()).unwrap();
        Identity { cert, key }
    }

    /// What a server with this identity does; with `wants_client`, only clients of this authority may use it.
    pub(super) fn acceptor(&self, identity: &Identity, alpn: &[&str], wants_client: bool) -> TlsAcceptor {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        // What comes behind the handshake is HTTP only, which some tests count.
        config.send_tls13_tickets = 0;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a server understood of a request: its protocol, authority and body.
pub(super) type Seen = (http::Version, String, String);

/// A server behind TLS that speaks what was agreed on, and answers what it was asked for and by which version.
pub(super) struct TlsServer {
    pub(super) port: u16,
    seen: tokio::sync::mpsc::UnboundedReceiver<Seen>,
}

impl TlsServer {
    pub(super) async fn start(acceptor: TlsAcceptor) -> TlsServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, send) = (acceptor.clone(), send.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, send).await;
                    }
                });
            }
        });
        TlsServer { port, seen }
    }

    /// The next request that came.
    pub(super) fn seen(&mut self) -> Option<Seen> {
        self.seen.try_recv().ok()
    }
}

async fn serve(stream: TlsStream<TcpStream>, seen: tokio::sync::mpsc::UnboundedSender<Seen>) {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
            let authority = head.uri.authority().map(ToString::to_string);
            let body = String::from_utf8_lossy(&body).into_owned();
            let _ = seen.send((head.version, authority.or(host).unwrap_or_default(), body));
            Ok::<_, hyper::Error>(http::Response::new(Full::new(bytes::Bytes::from_static(b"ok"))))
        }
    });
    let io = TokioIo::new(stream);
    // A client that has gone away is for the test to notice.
    if http2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}
