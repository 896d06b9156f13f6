//! Changes TC through rtnetlink: adds and removes `clsact`, and one filter at a time.
//!
//! A filter is named by all that the kernel knows it by: device, hook, priority, protocol, classifier and handle. No request
//! here can reach another one. Whose it is, and whether it should go, is decided by the caller.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use nix::libc::ETH_P_ALL;

use crate::capture::interfaces::netlink::{self, Connection, Filter};

/// The discipline that has a hook for either direction.
pub(super) const CLSACT: &str = "clsact";
/// The classifier of our filters.
const BPF: &str = "bpf";

/// A side of `clsact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Packets that come in.
    Ingress,
    /// Packets that go out.
    Egress,
}

impl Hook {
    pub(super) const ALL: [Hook; 2] = [Hook::Ingress, Hook::Egress];

    /// Its name, as in [`Filter::hook`].
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        }
    }

    const fn parent(self) -> TcHandle {
        let minor = match self {
            Hook::Ingress => TcHandle::MIN_INGRESS,
            Hook::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// What names a filter on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it is.
    pub(super) hook: Hook,
    /// Lower ones run first.
    pub(super) priority: u16,
    /// Its name among those of its priority; never 0, which means all of them.
    pub(super) handle: u32,
}

/// TC of one device, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Tc {
    connection: Connection,
    index: u32,
}

impl Tc {
    /// TC of the device with this index.
    pub(super) fn open(index: u32) -> io::Result<Tc> {
        Ok(Tc { connection: Connection::open()?, index })
    }

    /// The device's index.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// The kind of the queueing discipline that is where `clsact` would be: itself, or `ingress`.
    pub(super) fn discipline(&mut self) -> io::Result<Option<String>> {
        // The kernel does not narrow this dump to a device.
        let all =
            self.connection.dump(RouteNetlinkMessage::GetQueueDiscipline(self.message(TcHandle::UNSPEC)))?;
        Ok(all.into_iter().find_map(|message| {
            let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
            if u32::try_from(message.header.index) != Ok(self.index)
                || message.header.parent != TcHandle::CLSACT
            {
                return None;
            }
            message.attributes.into_iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            })
        }))
    }

    /// Adds `clsact`; `EEXIST` if it or `ingress` is there.
    pub(super) fn add_clsact(&mut self) -> io::Result<()> {
        let ask = RouteNetlinkMessage::NewQueueDiscipline(self.clsact());
        self.connection.change(ask, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes `clsact`, with every filter in it.
    pub(super) fn remove_clsact(&mut self) -> io::Result<()> {
        let ask = RouteNetlinkMessage::DelQueueDiscipline(self.clsact());
        self.connection.change(ask, 0)
    }

    /// Whether nobody has a filter at either hook.
    pub(super) fn is_empty(&mut self) -> io::Result<bool> {
        for hook in Hook::ALL {
            let ask = RouteNetlinkMessage::GetTrafficFilter(self.message(hook.parent()));
            if self.connection.count(ask)? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The filters of one priority, at both hooks.
    pub(super) fn filters(&mut self, priority: u16) -> io::Result<Vec<Filter>> {
        netlink::filters_of(&mut self.connection, self.index, Some(priority))
    }

    /// Adds a filter whose program decides by itself; `EEXIST` if the place is taken.
    pub(super) fn add_filter(&mut self, place: Place, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut message = self.filter(place);
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.into())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        let ask = RouteNetlinkMessage::NewTrafficFilter(message);
        self.connection.change(ask, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a filter; `ENOENT` if there is none in that place.
    pub(super) fn remove_filter(&mut self, place: Place) -> io::Result<()> {
        let ask = RouteNetlinkMessage::DelTrafficFilter(self.filter(place));
        self.connection.change(ask, 0)
    }

    fn clsact(&self) -> TcMessage {
        let mut message = self.message(TcHandle::CLSACT);
        message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        message.attributes.push(TcAttribute::Kind(CLSACT.into()));
        message
    }

    fn filter(&self, place: Place) -> TcMessage {
        let mut message = self.message(place.hook.parent());
        message.header.handle = place.handle.into();
        // All protocols, in the order of bytes of a network.
        message.header.info = u32::from(place.priority) << 16 | u32::from((ETH_P_ALL as u16).to_be());
        message.attributes.push(TcAttribute::Kind(BPF.into()));
        message
    }

    fn message(&self, parent: TcHandle) -> TcMessage {
        let index = i32::try_from(self.index).unwrap_or_default();
        TcMessage::from_parts(TcHeader { index, parent, ..TcHeader::default() }, Vec::new())
    }
}
