//! Removes a `clsact` queueing discipline that this process added, once nobody has a filter in it any more.
//!
//! aya adds one but has no way to take it off. This speaks just enough rtnetlink for that, and touches nothing else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

// From linux/rtnetlink.h, linux/netlink.h and linux/pkt_sched.h.
const RTM_DELQDISC: u16 = 37;
const RTM_GETTFILTER: u16 = 46;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TC_H_CLSACT: u32 = 0xFFFF_FFF1;
/// The discipline itself: `ffff:`.
const HANDLE: u32 = 0xFFFF_0000;
/// Its two hooks: ingress and egress.
const HOOKS: [u32; 2] = [0xFFFF_FFF2, 0xFFFF_FFF3];

/// Bytes of a message header and of `struct tcmsg`.
const HEADER: usize = 16;
const REQUEST: u32 = 36;
/// More than the kernel puts into one answer.
const ANSWER: usize = 64 * 1024;

/// Removes the discipline from a device of the calling thread's namespace if it is empty; says whether it did.
pub(super) fn remove_if_empty(ifindex: u32) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    for hook in HOOKS {
        if ask(&socket, RTM_GETTFILTER, NLM_F_DUMP, ifindex, 0, hook)? > 0 {
            return Ok(false);
        }
    }
    ask(&socket, RTM_DELQDISC, NLM_F_ACK, ifindex, HANDLE, TC_H_CLSACT)?;
    Ok(true)
}

/// Sends one request, and gives the number of objects in the answer.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, ifindex: u32, handle: u32, parent: u32) -> io::Result<usize> {
    let mut request = Vec::with_capacity(REQUEST as usize);
    request.extend(REQUEST.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port: one request at a time needs neither. Then the family, with its padding.
    request.extend([0; 12]);
    for field in [ifindex, handle, parent, 0] {
        request.extend(field.to_ne_bytes());
    }
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER];
    let mut objects = 0;
    loop {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let mut rest = answer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !rest.is_empty() {
            let message = Message::first(rest).ok_or(io::ErrorKind::InvalidData)?;
            match message.kind {
                NLMSG_DONE => return Ok(objects),
                NLMSG_ERROR => {
                    return match message.number {
                        0 => Ok(objects),
                        number => Err(Errno::from_raw(-number).into()),
                    };
                }
                _ => objects += 1,
            }
            rest = rest.get(message.length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// One message of an answer.
#[derive(Debug, PartialEq)]
struct Message {
    length: usize,
    kind: u16,
    /// What follows the header: the negative error number of an error message.
    number: i32,
}

impl Message {
    /// The message at the start of `bytes`.
    fn first(bytes: &[u8]) -> Option<Message> {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let number = bytes
            .get(HEADER..)
            .and_then(|body| body.first_chunk())
            .map_or(0, |field| i32::from_ne_bytes(*field));
        (HEADER..=bytes.len()).contains(&length).then_some(Message { length, kind, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_never_longer_than_what_there_is() {
        let message = |length: u32, kind: u16, number: i32| {
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &number.to_ne_bytes()].concat()
        };
        let check = |bytes: &[u8], expected: Option<Message>| assert_eq!(Message::first(bytes), expected);
        check(&message(20, NLMSG_ERROR, -2), Some(Message { length: 20, kind: NLMSG_ERROR, number: -2 }));
        check(&message(16, NLMSG_DONE, 0)[..16], Some(Message { length: 16, kind: NLMSG_DONE, number: 0 }));
        check(&message(21, 44, 0), None);
        check(&message(15, 44, 0), None);
        check(&[], None);
        check(&[16, 0, 0], None);
    }
}
