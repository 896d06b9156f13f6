//! Makes connections to one target: finds its address, connects, registers the socket as the agent's own, and only then
//! sends the first byte, which over TLS is that of the handshake. It knows no HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

use super::ReplayError;
use super::gate::Gate;
use super::names::{Lookup, Names};
use super::own::{Registrar, Registration};
use super::tls::{Complaints, HTTP2, Kind, Offer, Tls};
use crate::config;

/// Makes connections to one target.
#[derive(Debug)]
pub(super) struct Connector {
    host: Host,
    tls: Option<Tls>,
    mark: Option<u32>,
    own: Registrar,
}

/// What connecting needs beside the target.
#[derive(Clone, Debug)]
pub(super) struct Means {
    pub(super) mark: Option<u32>,
    pub(super) own: Registrar,
    pub(super) lookup: Lookup,
    pub(super) tasks: TaskTracker,
    pub(super) gate: Arc<Gate>,
}

/// A connection, known as the agent's own for as long as it is there.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: Stream,
    peer: SocketAddr,
    /// Dropped after the stream, in the order of the fields: the last packet is the agent's own, too.
    _registration: Registration,
}

/// What carries the bytes of HTTP.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP itself.
    Plain(TcpStream),
    /// TLS, after its handshake.
    Tls(Box<TlsStream<TcpStream>>, Arc<Complaints>),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The target, its name or the way to it.
    Target(io::Error),
    /// There is a connection, and no TLS on it.
    Tls(io::Error),
    /// What this host ran out of, or refuses.
    Ours(io::Error),
}

#[derive(Debug)]
enum Host {
    Address(SocketAddr),
    Name(Names),
}

impl Connector {
    /// For the authority of the target's URL.
    ///
    /// # Errors
    /// When that is no `http` or `https` URL with a host, or TLS cannot be configured.
    pub(super) fn new(target: &config::Target, means: Means) -> Result<Connector, ReplayError> {
        let url = &target.url;
        let scheme = url.scheme_str();
        let host = url.host().filter(|host| !host.is_empty() && matches!(scheme, Some("http" | "https")));
        let host = host.ok_or_else(|| ReplayError::url(target))?;
        let tls = match target.is_tls() {
            true => {
                let tls = Tls::new(target);
                Some(tls.map_err(|error| ReplayError::Tls { target: target.name.clone(), error })?)
            }
            false => None,
        };
        let Means { mark, own, lookup, tasks, gate } = means;
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let host = match literal.parse::<IpAddr>() {
            Ok(address) => Host::Address(SocketAddr::new(address, target.port())),
            Err(_) => Host::Name(Names::new(host, target.port(), target.dns_refresh, lookup, tasks, gate)),
        };
        Ok(Connector { host, tls, mark, own })
    }

    /// Whether connections speak TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the target is at that address still.
    pub(super) fn leads_to(&self, peer: SocketAddr) -> bool {
        match &self.host {
            Host::Address(_) => true,
            Host::Name(names) => names.has(peer),
        }
    }

    /// Looks the target's name up again if it is time.
    pub(super) fn sweep(&self, now: Instant) {
        if let Host::Name(names) = &self.host {
            names.sweep(now);
        }
    }

    /// A new connection, registered as the agent's own; the addresses of a name are tried in order. Over TLS, `offer` is
    /// what the target may choose from.
    ///
    /// # Errors
    /// The last address's error, be it in connecting, in registering or in TLS, or why the name cannot be resolved.
    pub(super) async fn connect(&self, offer: Offer) -> Result<Link, ConnectError> {
        let names = match &self.host {
            Host::Address(address) => return self.connect_to(*address, offer).await,
            Host::Name(names) => names,
        };
        let mut last =
            ConnectError::Target(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for &address in names.addresses().await.map_err(ConnectError::Target)?.iter() {
            match self.connect_to(address, offer).await {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Says that the target agreed to none of the protocols that it must speak.
    pub(super) fn complain_of_protocol(&self) {
        if let Some(tls) = &self.tls {
            tls.complaints.say(Kind::NoProtocol);
        }
    }

    /// The local end is known, and can be registered, once connected. Binding earlier would show it earlier, and would
    /// take a whole port away from the host for each connection; what passes until then carries no data.
    async fn connect_to(&self, address: SocketAddr, offer: Offer) -> Result<Link, ConnectError> {
        let socket = self.socket(address).map_err(ConnectError::Ours)?;
        let stream = socket.connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => ConnectError::Ours(error),
            _ => ConnectError::Target(error),
        })?;
        let local = stream.local_addr().map_err(ConnectError::Target)?;
        // On loopback, a connection to an ephemeral port that nobody listens on can meet itself.
        if local == stream.peer_addr().map_err(ConnectError::Target)? {
            return Err(ConnectError::Target(io::ErrorKind::ConnectionRefused.into()));
        }
        let registration = self.own.register(local).map_err(ConnectError::Ours)?;
        let link = Link { stream: Stream::Plain(stream), peer: address, _registration: registration };
        match &self.tls {
            Some(tls) => Box::pin(link.secured(tls, offer)).await,
            None => Ok(link),
        }
    }

    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.set_nodelay(true)?;
        // Closing resets: nothing that was not sent yet, and nothing of what the target still sends, passes once the
        // registration is gone. Nor does a closed connection occupy a port of the production host for a minute.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        Ok(socket)
    }
}

impl Link {
    /// The address that it leads to.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether both ends agreed on HTTP/2; without TLS nobody is asked.
    pub(super) fn agreed_on_http2(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(stream, _) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
        }
    }

    /// The same connection after the handshake. However that ends, the socket is closed before its registration goes.
    async fn secured(self, tls: &Tls, offer: Offer) -> Result<Link, ConnectError> {
        let Link { stream, peer, _registration: registration } = self;
        let Stream::Plain(stream) = stream else {
            return Ok(Link { stream, peer, _registration: registration });
        };
        let secured = tls.connector(offer).connect(tls.server_name.clone(), stream).await;
        match secured {
            Ok(stream) => {
                let stream = Stream::Tls(Box::new(stream), Arc::clone(&tls.complaints));
                Ok(Link { stream, peer, _registration: registration })
            }
            Err(error) if tls.complaints.about(&error) => Err(ConnectError::Tls(error)),
            Err(error) => Err(ConnectError::Target(error)),
        }
    }
}

/// The mark that sockets can be given: `mark`, or none where it is 0 or the privilege is missing.
///
/// Without it, replayed requests that pass a captured interface are known by their headers only; so this warns.
pub(super) fn usable_mark(mark: u32) -> Option<u32> {
    if mark == 0 {
        return None;
    }
    let probe = TcpSocket::new_v4().or_else(|_| TcpSocket::new_v6());
    match probe.and_then(|socket| SockRef::from(&socket).set_mark(mark)) {
        Ok(()) => Some(mark),
        Err(error) => {
            tracing::warn!(
                mark,
                %error,
                "sockets to the targets cannot be given the SO_MARK of capture.mark; grant CAP_NET_ADMIN, or set it to 0",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests;
