//! The kinds of files behind one face: what a file begins and ends with, and what an exchange becomes in it.

use super::file::Output;
use super::gor::Gor;
use super::har::{self, Har};
use super::names::Kind;
use super::pcapng::{Conversation, PcapNg};
use crate::exchange::{Exchange, Timestamp};
use crate::policy::mask::Kept;

/// Makes the bytes of one kind of file.
#[derive(Debug)]
pub(super) enum Encoder {
    Gor(Gor),
    Har(Har),
    PcapNg(Box<PcapNg>),
}

/// An exchange as it will be in the file.
pub(super) enum Prepared {
    /// In one piece.
    Record(Vec<u8>),
    /// In packets, among those of others.
    Packets(Conversation),
}

impl Prepared {
    /// Bytes that it takes in the file.
    pub(super) fn size(&self) -> u64 {
        match self {
            Prepared::Record(bytes) => bytes.len() as u64,
            Prepared::Packets(conversation) => conversation.size(),
        }
    }
}

impl Encoder {
    pub(super) fn new(kind: Kind) -> Encoder {
        match kind {
            Kind::Gor | Kind::GorGz => Encoder::Gor(Gor::default()),
            Kind::Har => Encoder::Har(Har::default()),
            Kind::PcapNg => Encoder::PcapNg(Box::default()),
        }
    }

    /// Forgets what was in the file before.
    pub(super) fn restart(&mut self) {
        match self {
            Encoder::Gor(gor) => *gor = Gor::default(),
            Encoder::Har(har) => *har = Har::default(),
            Encoder::PcapNg(pcapng) => **pcapng = PcapNg::default(),
        }
    }

    /// What a file begins with.
    pub(super) fn head(&self) -> Vec<u8> {
        match self {
            Encoder::Gor(_) => Vec::new(),
            Encoder::Har(_) => har::head(),
            Encoder::PcapNg(pcapng) => pcapng.head(),
        }
    }

    /// What a file ends with.
    pub(super) fn tail(&self) -> &'static str {
        match self {
            Encoder::Har(_) => har::TAIL,
            Encoder::Gor(_) | Encoder::PcapNg(_) => "",
        }
    }

    /// What an exchange becomes.
    pub(super) fn prepare(&mut self, exchange: &Kept<Exchange>) -> Prepared {
        match self {
            Encoder::Gor(gor) => Prepared::Record(gor.record(exchange.get())),
            Encoder::Har(har) => Prepared::Record(har.entry(exchange.get())),
            Encoder::PcapNg(pcapng) => Prepared::Packets(pcapng.conversation(exchange.get())),
        }
    }

    /// Puts it in the file.
    pub(super) fn commit(&mut self, prepared: Prepared, output: &mut Output) {
        match (prepared, self) {
            (Prepared::Record(bytes), _) => output.add(&bytes, 1),
            (Prepared::Packets(packets), Encoder::PcapNg(pcapng)) => {
                pcapng.hold(packets, &mut |bytes, ends| output.add(bytes, ends.into()));
            }
            (Prepared::Packets(_), _) => {}
        }
    }

    /// Puts in the file what is held back of the time before, or of all time.
    pub(super) fn release(&mut self, before: Option<Timestamp>, output: &mut Output) {
        if let Encoder::PcapNg(pcapng) = self {
            pcapng.release(before, &mut |bytes, ends| output.add(bytes, ends.into()));
        }
    }

    /// Bytes held back.
    pub(super) fn held(&self) -> u64 {
        match self {
            Encoder::PcapNg(pcapng) => pcapng.held() as u64,
            Encoder::Gor(_) | Encoder::Har(_) => 0,
        }
    }

    /// Exchanges held back.
    pub(super) fn held_exchanges(&self) -> u64 {
        match self {
            Encoder::PcapNg(pcapng) => pcapng.exchanges(),
            Encoder::Gor(_) | Encoder::Har(_) => 0,
        }
    }
}
