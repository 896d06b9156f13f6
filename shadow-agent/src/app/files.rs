//! The limit on open files, raised before anything is opened that counts. It opens nothing.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many files open as it may: each program and map is one, each device needs one for each hook,
/// and each replay under way has a socket.
pub(super) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}
