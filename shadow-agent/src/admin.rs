//! The HTTP API: probes, metrics, status, the kill switch, and what else can be asked of a running agent. Reads
//! everything, writes only `control`, and has the rest done by whoever implements [`Operate`].
//!
//! It lives on a thread and a runtime of its own, so that it answers when the data path is busy, and the data path
//! does not notice when it is asked. Connections, request heads, bodies and times are bounded; who may ask what is
//! said in `access`. [`client`] is the other end, for `shadow-agent ctl`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::metrics::{Metrics, Sources};

mod access;
mod actions;
mod api;
pub mod client;
mod kill;
pub mod operate;
pub mod readiness;
mod serve;
pub mod status;
pub mod switch;

use access::{Access, Token};
pub use kill::KillSwitch;
pub use operate::Operate;
pub use readiness::Readiness;
pub use status::{InterfaceStatus, Status};
pub use switch::SwitchFile;

/// What the API reads, and what it changes.
#[derive(Clone)]
pub struct AdminState {
    /// Where the figures come from; `control` among them is the one thing written.
    pub sources: Sources,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What the agent still waits for before it is ready.
    pub readiness: Readiness,
    /// The kill switch.
    pub switch: Arc<KillSwitch>,
    /// What can be changed while it runs; none where all of that is settled at the start.
    pub operate: Option<Arc<dyn Operate>>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// Why the API is not served.
#[derive(Debug, Error)]
pub enum AdminError {
    /// Off loopback, anyone who reaches the port could switch capture off.
    #[error(
        "admin.listen is {listen}, which is not a loopback address, and there is no token: set admin.token_file to a \
         file that holds one, or listen on 127.0.0.1"
    )]
    TokenRequired {
        /// The address configured.
        listen: SocketAddr,
    },
    /// The token file cannot be read.
    #[error("admin.token_file {} cannot be read ({source}): give a file that the agent may read", path.display())]
    TokenFile {
        /// The file configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The token file holds no usable token.
    #[error(
        "admin.token_file {} holds no token: it needs one line of {} to {} visible ASCII characters",
        path.display(),
        access::TOKEN_MIN,
        access::TOKEN_MAX
    )]
    Token {
        /// The file configured.
        path: PathBuf,
    },
    /// Something else listens there.
    #[error(
        "admin.listen {listen} is already in use, perhaps by another shadow-agent: stop that one, or choose another \
         address with --admin"
    )]
    AddressInUse {
        /// The address configured.
        listen: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error(
        "admin.listen {listen} cannot be listened on ({source}): choose an address of this host and a free port with \
         --admin"
    )]
    Listen {
        /// The address configured.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused the thread or runtime that the API lives on.
    #[error("the admin API cannot start its own thread ({0}): check the limits on threads and open files")]
    Start(#[source] io::Error),
}

/// The running API; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// The address and the token of the API, had but not served yet.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    access: Access,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Door {
    /// Listens, and reads the token; `None` when `admin.listen` turns the API off. Whoever connects waits until the API
    /// is served. A low port, or a token of another user, takes privileges that the agent drops before it serves.
    ///
    /// # Errors
    /// When the address cannot be had, or off loopback without a token.
    pub fn open(admin: &config::Admin) -> Result<Option<Door>, AdminError> {
        let Some(listen) = admin.listen else { return Ok(None) };
        let token = admin.token_file.as_deref().map(Token::read).transpose()?;
        let loopback = listen.ip().to_canonical().is_loopback();
        if !loopback && token.is_none() {
            return Err(AdminError::TokenRequired { listen });
        }
        let listener = TcpListener::bind(listen).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => AdminError::AddressInUse { listen },
            _ => AdminError::Listen { listen, source },
        })?;
        let address = listener.local_addr().map_err(|source| AdminError::Listen { listen, source })?;
        listener.set_nonblocking(true).map_err(|source| AdminError::Listen { listen, source })?;
        Ok(Some(Door { listener, address, access: Access::new(loopback, token) }))
    }
}

impl Server {
    /// Serves behind a door.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(door: Door, state: AdminState) -> Result<Server, AdminError> {
        let Door { listener, address, access } = door;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Start)?;
        let router = api::router(state, access);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(serve::serve(listener, router, stopped));
                // A reload may wait for the resolver of names; the end of the agent does not.
                runtime.shutdown_background();
            })
            .map_err(AdminError::Start)?;
        Ok(Server { address, stop, thread: Some(thread) })
    }

    /// Where it listens; the port is the real one when 0 was configured.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets requests under way end for a moment, and returns when the thread is gone.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread had panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
