//! Claims on a device among the agents of a host: locks that die with their process.
//!
//! A claim is a bound socket with an abstract name: one process at a time has it, the kernel gives it back however that
//! process ends, names are per network namespace as device indexes are, and it needs no file and no privilege. Nothing is
//! ever sent.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant};

/// How many agents can have filters on one device.
pub(in crate::capture::kernel) const SLOTS: u16 = 8;
/// How long one agent waits while another changes the device, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(5);

/// A claim, held until it is dropped.
#[derive(Debug)]
pub(super) struct Claim(#[expect(dead_code, reason = "held, never used")] UnixDatagram);

/// The right to change what is attached to a device; `None` when another agent does not let go of it.
pub(super) fn turn(index: u32) -> io::Result<Option<Claim>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let claim = take(&address(index, None)?)?;
        if claim.is_some() || Instant::now() >= deadline {
            return Ok(claim);
        }
        thread::sleep(NAP);
    }
}

/// The claim on a slot of a device; `None` when an agent that runs has it.
pub(super) fn slot(index: u32, slot: u16) -> io::Result<Option<Claim>> {
    take(&address(index, Some(slot))?)
}

/// Whether an agent that runs has a slot of a device in this thread's network namespace. Claims nothing.
pub(in crate::capture::kernel) fn is_held(index: u32, slot: u16) -> io::Result<bool> {
    match UnixDatagram::unbound()?.connect_addr(&address(index, Some(slot))?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

fn take(address: &SocketAddr) -> io::Result<Option<Claim>> {
    match UnixDatagram::bind_addr(address) {
        Ok(socket) => Ok(Some(Claim(socket))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

fn address(index: u32, slot: Option<u16>) -> io::Result<SocketAddr> {
    let name = match slot {
        Some(slot) => format!("shadow-agent/device/{index}/slot/{slot}"),
        None => format!("shadow-agent/device/{index}"),
    };
    SocketAddr::from_abstract_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No device has it.
    const INDEX: u32 = u32::MAX - 7;

    #[test]
    fn a_slot_has_one_owner_until_that_lets_go() {
        assert!(!is_held(INDEX, 0).unwrap());
        let first = slot(INDEX, 0).unwrap().expect("nobody has it");
        assert!(is_held(INDEX, 0).unwrap());
        assert!(slot(INDEX, 0).unwrap().is_none());
        assert!(slot(INDEX, 1).unwrap().is_some() && slot(INDEX - 1, 0).unwrap().is_some());
        drop(first);
        assert!(!is_held(INDEX, 0).unwrap());
        assert!(slot(INDEX, 0).unwrap().is_some());
    }

    #[test]
    fn a_turn_is_waited_for() {
        let first = turn(INDEX).unwrap().expect("nobody has it");
        thread::scope(|scope| {
            let second = scope.spawn(|| turn(INDEX).unwrap().is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
