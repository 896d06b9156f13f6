//! TLS to a target: what is trusted, who the agent says it is, and why a connection failed. It makes no connection.
//!
//! `rustls` with `ring`, which builds with a C compiler alone. Without `tls.ca` the authorities are those that this host
//! trusts, because shadows are internal and their authority is installed there; none are built in, which would age.
//! Nothing is ever sent before the handshake has ended (no early data), because that can be replayed by others.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use crate::config;

/// The largest file of certificates or keys, in bytes.
pub(super) const MAX_PEM: u64 = 1 << 20;

/// HTTP/2 and HTTP/1.1 as ALPN calls them (RFC 7301, section 6; RFC 9113, section 3.1).
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why TLS to a target cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read ({error}); give a PEM file that this user may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is larger than such files are.
    #[error("`{}` is larger than {MAX_PEM} bytes; is it the right file?", .0.display())]
    TooLarge(PathBuf),
    /// A file without a usable certificate.
    #[error("`{}` holds no usable certificate; give one or more in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    Certificates(PathBuf),
    /// A file without a usable key.
    #[error("`{}` holds no usable private key; give one in PEM, without a passphrase", .0.display())]
    Key(PathBuf),
    /// A key that is not that of the certificate.
    #[error("the key `{}` is not that of the certificate `{}`; give the two that belong together", key.display(), cert.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Nothing that could vouch for the target.
    #[error(
        "this host trusts no certificate authority; install ca-certificates, or give the target's authority with tls.ca"
    )]
    NoRoots,
    /// A host that no certificate can be for.
    #[error("`{0}` is not a name that a certificate can be for; set tls.server_name")]
    ServerName(String),
}

/// Whether a certificate can be for that name or address.
pub(crate) fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Which protocols a connection offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/1.1 only.
    One,
    /// HTTP/2 only.
    Two,
    /// Both, HTTP/1.1 first.
    OneOrTwo,
    /// Both, HTTP/2 first.
    TwoOrOne,
}

/// How one target is spoken to over TLS.
pub(super) struct Tls {
    /// By [`Offer`].
    configs: [Arc<ClientConfig>; 4],
    pub(super) server_name: ServerName<'static>,
    pub(super) complaints: Arc<Complaints>,
}

impl Tls {
    /// Reads the files that are configured for `target`, which has an `https` URL.
    ///
    /// # Errors
    /// A file or a name that is of no use.
    pub(super) fn new(target: &config::Target) -> Result<Tls, TlsError> {
        let tls = &target.tls;
        let host = target.url.host().unwrap_or_default();
        let name = tls.server_name.as_deref().unwrap_or(host.trim_start_matches('[').trim_end_matches(']'));
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            // The provider has suites for every version.
            .map_err(|_| TlsError::NoRoots)?;
        let builder = match tls.verify {
            true => builder.with_root_certificates(roots(tls.ca.as_deref())?),
            false => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        };
        let config = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let (chain, own) = (certificates(cert)?, private_key(key)?);
                builder.with_client_auth_cert(chain, own).map_err(|error| match error {
                    Error::InconsistentKeys(_) => TlsError::Pair { cert: cert.clone(), key: key.clone() },
                    Error::InvalidCertificate(_) => TlsError::Certificates(cert.clone()),
                    _ => TlsError::Key(key.clone()),
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let configs =
            [offering(&[HTTP1]), offering(&[HTTP2]), offering(&[HTTP1, HTTP2]), offering(&[HTTP2, HTTP1])];
        let complaints = Arc::new(Complaints { target: target.name.clone(), said: AtomicU32::new(0) });
        Ok(Tls { configs, server_name, complaints })
    }

    pub(super) fn connector(&self, offer: Offer) -> TlsConnector {
        let [one, two, one_or_two, two_or_one] = &self.configs;
        let config = match offer {
            Offer::One => one,
            Offer::Two => two,
            Offer::OneOrTwo => one_or_two,
            Offer::TwoOrOne => two_or_one,
        };
        TlsConnector::from(Arc::clone(config))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|_| TlsError::Certificates(path.to_owned()))?;
            }
        }
        // One of the system's that cannot be read or is of no use vouches for nobody.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| TlsError::Certificates(path.to_owned()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::Key(path.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Unreadable { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(MAX_PEM + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_PEM { Err(TlsError::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

/// Takes any certificate of which the target has the key (`tls.verify: false`).
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with a TLS connection, as far as an operator can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Untrusted,
    Expired,
    NotYetValid,
    WrongName,
    Certificate,
    Refused,
    NoProtocol,
    Broken,
}

impl Kind {
    pub(super) fn of(error: &Error) -> Kind {
        match error {
            Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Kind::Untrusted,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Kind::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Kind::NotYetValid
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Kind::WrongName
                }
                _ => Kind::Certificate,
            },
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Kind::NoProtocol
            }
            Error::AlertReceived(_) => Kind::Refused,
            _ => Kind::Broken,
        }
    }

    fn said(self) -> &'static str {
        match self {
            Kind::Untrusted => {
                "its certificate is signed by no authority that is trusted; give the authority with tls.ca"
            }
            Kind::Expired => "its certificate has expired; renew it there",
            Kind::NotYetValid => "its certificate is not valid yet; compare the clocks of both hosts",
            Kind::WrongName => {
                "its certificate is for another name; set tls.server_name to the one it is for"
            }
            Kind::Certificate => "its certificate is not valid; replace it there",
            Kind::Refused => {
                "it refused the connection with an alert; it may want a client certificate (tls.cert and tls.key)"
            }
            Kind::NoProtocol => {
                "it agrees to no HTTP version that is offered; set `http` of the target, or leave it out"
            }
            Kind::Broken => "what it sends is no valid TLS; is its port one for https?",
        }
    }
}

/// Says what is wrong with a target's TLS, once for each kind; none of it quotes the target.
#[derive(Debug)]
pub(super) struct Complaints {
    target: String,
    /// A bit for each [`Kind`].
    said: AtomicU32,
}

impl Complaints {
    /// Says so if `error` is one of TLS; returns whether it is.
    pub(super) fn about(&self, error: &io::Error) -> bool {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return false;
        };
        self.say(Kind::of(error));
        true
    }

    pub(super) fn say(&self, kind: Kind) {
        let bit = 1 << kind as u32;
        if self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            tracing::warn!(
                target_name = %self.target,
                "a target cannot be spoken to over TLS: {}; requests to it fail with reason `tls`",
                kind.said(),
            );
        }
    }
}

#[cfg(test)]
mod tests;
