//! Waits for devices, addresses and default routes to come, change or go (rtnetlink notifications), in the network
//! namespace that the calling thread is in when it subscribes.
//!
//! A notification says only that it is time to look again: what there is is asked for anew, so nothing is missed when
//! notifications are lost.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::netlink::message_length;

/// The multicast groups of links, of addresses and of routes (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`). Which way some devices lead depends on the default route.
const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40 | 0x400;
/// Notifications taken at once; more than that are lost, and what there is is asked for anew in any case.
const BUFFER: usize = 64 << 10;

/// What ended a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The agent stops.
    Stop,
    /// Something changed. These devices went away meanwhile, even if there are such again.
    Changed(Vec<u32>),
    /// The time is over.
    Nothing,
}

/// Ends the waits of the [`Watcher`] that has the other end, when it is dropped.
#[derive(Debug)]
pub struct Stop {
    _writer: PipeWriter,
}

/// Ends waits; see [`Stop`].
#[derive(Debug)]
pub struct Stopped {
    reader: PipeReader,
}

/// A wish to stop, and where it is heard.
///
/// # Errors
/// When there is no file descriptor left.
pub fn stop() -> io::Result<(Stop, Stopped)> {
    let (reader, writer) = io::pipe()?;
    Ok((Stop { _writer: writer }, Stopped { reader }))
}

impl Stopped {
    /// Waits for that time, or until the agent stops; says whether it does.
    ///
    /// # Errors
    /// When the system refuses to wait.
    pub fn within(&self, timeout: Duration) -> io::Result<bool> {
        let mut ends = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
        wait(&mut ends, Some(timeout))?;
        Ok(is_ready(&ends[0]))
    }
}

/// Hears of every change to devices, addresses and default routes since it was made.
#[derive(Debug)]
pub struct Watcher {
    socket: Socket,
}

impl Watcher {
    /// Subscribes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> io::Result<Watcher> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Watcher { socket })
    }

    /// Waits for a change, however long without `timeout`.
    ///
    /// # Errors
    /// When the system refuses to wait or to read.
    pub fn wait(&self, stopped: &Stopped, timeout: Option<Duration>) -> io::Result<Heard> {
        let mut ends = [
            PollFd::new(stopped.reader.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        wait(&mut ends, timeout)?;
        if is_ready(&ends[0]) {
            return Ok(Heard::Stop);
        }
        if !is_ready(&ends[1]) {
            return Ok(Heard::Nothing);
        }
        Ok(self.drain()?.map_or(Heard::Nothing, Heard::Changed))
    }

    /// Takes every notification that is there, and gives the devices that went; `None` when nothing of interest changed.
    fn drain(&self) -> io::Result<Option<Vec<u32>>> {
        let (mut changed, mut gone) = (false, Vec::new());
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => changed |= note(&buffer, &mut gone),
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => return Ok(changed.then_some(gone)),
                    Some(Errno::EINTR) => {}
                    // Some were lost. That something changed is all that has to be known.
                    Some(Errno::ENOBUFS) => changed = true,
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Notes the devices that went; says whether anything of interest changed. What cannot be read may be of interest.
fn note(mut rest: &[u8], gone: &mut Vec<u32>) -> bool {
    let mut changed = false;
    while let Some(length) = message_length(rest) {
        let Some((bytes, behind)) = rest.split_at_checked(length) else { return true };
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
            )) => changed |= route.header.destination_prefix_length == 0,
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                changed = true;
                // A port that leaves its bridge is announced in the same way, for another family.
                if link.header.interface_family == AddressFamily::Unspec {
                    gone.push(link.header.index);
                }
            }
            _ => changed = true,
        }
        rest = behind.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
    changed
}

/// Polls; a signal ends the wait early, as if the time were over.
fn wait(ends: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = match timeout {
        None => PollTimeout::NONE,
        // Rounded up: a wait that ends too early would be repeated in a tight loop.
        Some(time) => {
            let milliseconds = time.as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
        }
    };
    match poll(ends, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(number) => Err(number.into()),
    }
}

fn is_ready(end: &PollFd<'_>) -> bool {
    end.revents().is_some_and(|events| !events.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_time_and_with_the_wish_to_stop() {
        let (stop, stopped) = stop().unwrap();
        let watcher = Watcher::new().unwrap();
        assert!(!stopped.within(Duration::from_millis(1)).unwrap());
        drop(stop);
        assert!(stopped.within(Duration::from_secs(60)).unwrap());
        assert_eq!(watcher.wait(&stopped, None).unwrap(), Heard::Stop);
    }
}
