//! One conversation with rtnetlink: a request, and everything that answers it.
//!
//! It belongs to the network namespace of the thread that opened it, whichever thread uses it later. What is asked, and
//! whether that changes anything, is up to the caller.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// What came back.
#[derive(Default)]
struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    /// How many more there were, of a form that is unknown here.
    unknown: usize,
}

/// A socket to rtnetlink.
#[derive(Debug)]
pub(in crate::capture) struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    /// Opens one in the namespace of the calling thread.
    pub(in crate::capture) fn open() -> io::Result<Connection> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Connection { socket, sequence: 0 })
    }

    /// Everything there is of what `ask` names.
    pub(in crate::capture) fn dump(
        &mut self,
        ask: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        Ok(self.request(ask, NLM_F_DUMP)?.messages)
    }

    /// The one thing that `ask` names.
    pub(in crate::capture) fn get(
        &mut self,
        ask: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        Ok(self.request(ask, NLM_F_ACK)?.messages)
    }

    /// How much there is of what `ask` names, whether or not its form is known here.
    pub(in crate::capture) fn count(&mut self, ask: RouteNetlinkMessage) -> io::Result<usize> {
        let answers = self.request(ask, NLM_F_DUMP)?;
        Ok(answers.messages.len() + answers.unknown)
    }

    /// Has the kernel do what `ask` says, with the flags of a new object, and waits until it has.
    pub(in crate::capture) fn change(&mut self, ask: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(ask, NLM_F_ACK | flags).map(|_| ())
    }

    fn request(&mut self, ask: RouteNetlinkMessage, flags: u16) -> io::Result<Answers> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(ask));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;

        let mut answers = Answers::default();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while let Some(length) = message_length(rest) {
                let (bytes, behind) = rest.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    // What is left of an earlier request that broke off.
                    Ok(message) if message.header.sequence_number != self.sequence => {}
                    Ok(message) => match message.payload {
                        NetlinkPayload::InnerMessage(answer) => answers.messages.push(answer),
                        NetlinkPayload::Done(_) => return Ok(answers),
                        NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                        NetlinkPayload::Error(error) => return Err(error.to_io()),
                        _ => {}
                    },
                    // A device that a newer kernel describes in a way unknown here must not hide the others.
                    Err(error) => {
                        answers.unknown += 1;
                        tracing::debug!(%error, "passed over a netlink message");
                    }
                }
                rest = behind.get(length.next_multiple_of(4) - length..).unwrap_or_default();
            }
        }
    }
}

/// The length that the next message says, its header included; `None` at the end.
pub(in crate::capture) fn message_length(bytes: &[u8]) -> Option<usize> {
    const HEADER: u32 = 16;
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    (length >= HEADER).then(|| usize::try_from(length).ok()).flatten()
}
