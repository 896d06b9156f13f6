//! `capture`: what the kernel copies, and from where.

use std::fmt;

use ipnet::IpNet;

use super::Share;

/// Whose requests are captured, seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Flows whose server is on our side of the interface.
    Server,
    /// Flows whose client is on our side of the interface.
    Client,
    /// Both.
    Both,
}

/// Which direction of an interface leads to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// Found from the device: an address of ours means ingress, a veth or bridge port means egress.
    Auto,
    /// Received packets go toward the server.
    Ingress,
    /// Sent packets go toward the server.
    Egress,
}

/// Where packets are copied as they come in. What goes out is always copied at TC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At TC: through TCX, or `clsact` below Linux 6.6.
    Tc,
    /// At XDP, which costs production more.
    Xdp(XdpMode),
}

/// Where in the kernel an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// After the driver, for every device.
    Generic,
    /// In the driver.
    Native,
}

/// A network namespace other than the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetNs {
    /// By its name below `/run/netns`.
    Name(String),
    /// That of a process.
    Pid(u32),
}

impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetNs::Name(name) => f.write_str(name),
            NetNs::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

/// `capture`: what the kernel copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Interface names or globs, at least one.
    pub interfaces: Vec<String>,
    /// The network namespace that the interfaces are in; `None` is the agent's own.
    pub netns: Option<NetNs>,
    /// Where incoming packets are copied.
    pub mode: Mode,
    /// The server's ports: inclusive ranges, at least one.
    pub ports: Vec<(u16, u16)>,
    /// Whose requests are meant.
    pub side: Side,
    /// Which direction leads to the server.
    pub polarity: Polarity,
    /// Networks that the server must (not) be in.
    pub server: Networks,
    /// Networks that the client must (not) be in.
    pub client: Networks,
    /// Seeds the flow hash; the same on all nodes.
    pub seed: u32,
    /// `SO_MARK` of our own sockets; packets that carry it are never captured. 0 turns the mark off.
    pub mark: u32,
    /// The share of flows captured, decided in the kernel.
    pub sample: Share,
    /// Payload bytes copied per second, enforced in the kernel; `None` is unlimited.
    pub budget: Option<u64>,
    /// The size of all ring buffers together, in bytes.
    pub ring_size: u64,
    /// The number of ring buffers and shard threads; `None` chooses by the number of CPUs.
    pub shards: Option<u16>,
    /// Whether the kernel programs log through aya-log (slow; for debugging).
    pub kernel_log: bool,
}

impl Capture {
    /// The most ring buffers when nobody says how many.
    pub const AUTO_SHARDS: u16 = 4;

    /// The number of ring buffers where nobody says how many and the agent may run on so many CPUs.
    #[must_use]
    pub fn auto_shards(cpus: usize) -> u16 {
        u16::try_from(cpus).map_or(Capture::AUTO_SHARDS, |cpus| cpus.clamp(1, Capture::AUTO_SHARDS))
    }
}

/// A list of networks to include (empty: all) and to exclude.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Only these, when not empty.
    pub include: Vec<IpNet>,
    /// Never these.
    pub exclude: Vec<IpNet>,
}

impl Default for Capture {
    fn default() -> Capture {
        Capture {
            interfaces: Vec::new(),
            netns: None,
            mode: Mode::Tc,
            ports: Vec::new(),
            side: Side::Server,
            polarity: Polarity::Auto,
            server: Networks::default(),
            client: Networks::default(),
            seed: 0,
            mark: 0x1050,
            sample: Share::ALL,
            budget: None,
            ring_size: 8 << 20,
            shards: None,
            kernel_log: false,
        }
    }
}
