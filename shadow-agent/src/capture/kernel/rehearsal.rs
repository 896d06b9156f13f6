//! Goes through a start as the agent does, without attaching: every program is loaded, privileges are dropped, and what
//! must work without them is tried. Leaves nothing behind.

use std::io;
use std::thread;

use socket2::{Domain, Socket, Type};

use super::tables::{self, MIN_RING};
use super::{Attachment, KernelCapture, KernelError, fill};
use crate::config;
use crate::privileges::{self, PrivilegeError, Reduction};

/// How a start would go.
#[derive(Debug)]
pub struct Rehearsal {
    /// The number of programs that the verifier accepted.
    pub programs: usize,
    /// What would be kept, and what dropped, after loading.
    pub reduction: Result<Reduction, PrivilegeError>,
    /// Whether maps can still be written to and read then.
    pub maps: Result<(), KernelError>,
    /// Whether a socket can still be given the mark of `capture.mark` then; always, when that is 0.
    pub mark: io::Result<()>,
}

/// Rehearses a start with `config`, on a thread of its own, with the least ring. `None` when that thread cannot be had.
///
/// # Errors
/// Those of [`KernelCapture::start`], save those of attaching.
pub fn rehearse(config: &config::Capture) -> Option<Result<Rehearsal, KernelError>> {
    // Capabilities are a thread's own, so the caller keeps its.
    thread::scope(|scope| {
        let stage = thread::Builder::new().name("rehearsal".to_owned());
        stage.spawn_scoped(scope, || play(config)).ok()?.join().ok()
    })
}

fn play(config: &config::Capture) -> Result<Rehearsal, KernelError> {
    tables::rings(config.ring_size, config.shards)?;
    let config = config::Capture { ring_size: MIN_RING, shards: Some(1), ..config.clone() };
    let (capture, _rings) = KernelCapture::open(&config, false, Attachment::Tcx)?;
    let programs = capture.load_programs(&config)?;
    let reduction = privileges::drop_after_loading();
    let networks = tables::networks(&config.server, &config.client)?;
    let written = fill(&mut capture.ebpf(), &networks);
    let maps = written.and_then(|()| capture.counters()).map(drop);
    Ok(Rehearsal { programs, reduction, maps, mark: mark(config.mark) })
}

fn mark(mark: u32) -> io::Result<()> {
    match mark {
        0 => Ok(()),
        mark => Socket::new(Domain::IPV4, Type::STREAM, None)?.set_mark(mark),
    }
}
