//! Two network namespaces joined by a veth pair, gone when dropped.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::SetBool;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, setsockopt, socket};
use shadow_agent::capture::interfaces::{Device, Layer, Toward};

/// The server's addresses.
pub(crate) const SERVER: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// The client's addresses.
const CLIENT: [&str; 2] = ["10.77.0.2", "fd77::2"];
/// The client's end of the pair.
const PEER: &str = "user0";
/// The server's end of the pair.
pub(crate) const DEVICE: &str = "prod0";

/// Frames on a packet socket begin with a `struct virtio_net_hdr` (linux/if_packet.h).
#[derive(Clone)]
struct VirtualHeader;

nix::setsockopt_impl!(VirtualHeader, libc::SOL_PACKET, libc::PACKET_VNET_HDR, bool, SetBool);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The pair of namespaces.
pub(crate) struct Pair {
    server: String,
    client: String,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("shadow-{}-{number}-{role}", std::process::id());
        let pair = Pair { server: name("srv"), client: name("cli") };
        ip(&["netns", "add", &pair.server]);
        ip(&["netns", "add", &pair.client]);
        let peer = ["peer", "name", PEER, "netns", &pair.client];
        ip(&[&["-n", &pair.server, "link", "add", DEVICE, "type", "veth"][..], &peer].concat());
        for (namespace, device, addresses) in [(&pair.server, DEVICE, SERVER), (&pair.client, PEER, CLIENT)] {
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            ip(&["-n", namespace, "addr", "add", &format!("{}/24", addresses[0]), "dev", device]);
            ip(&["-n", namespace, "addr", "add", &format!("{}/64", addresses[1]), "dev", device, "nodad"]);
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        pair
    }

    /// The server's end, as a device to capture on.
    pub(crate) fn device(&self) -> Device {
        device(DEVICE, Toward::Ingress)
    }

    /// Runs something in the server's namespace, on a thread of its own.
    pub(crate) fn on_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.server, work)
    }

    /// Runs something in the client's namespace, on a thread of its own.
    pub(crate) fn on_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.client, work)
    }

    /// Sets the size of the largest packet, at both ends.
    pub(crate) fn set_mtu(&self, mtu: u32) {
        for (namespace, device) in [(&self.server, DEVICE), (&self.client, PEER)] {
            ip(&["-n", namespace, "link", "set", device, "mtu", &mtu.to_string()]);
        }
    }

    /// Lets both ends build IPv6 packets of up to `size` bytes (BIG TCP); says whether the kernel has that.
    pub(crate) fn set_largest_packet(&self, size: u32) -> bool {
        [(&self.server, DEVICE), (&self.client, PEER)].iter().all(|(namespace, device)| {
            let size = size.to_string();
            let arguments = ["-n", namespace, "link", "set", "dev", device, "gso_max_size", &size];
            Command::new("ip").args(arguments).output().unwrap().status.success()
        })
    }

    /// Sends a frame from the client of which only the first `linear` bytes are in the linear part of the kernel's
    /// buffer.
    pub(crate) fn send_with_linear_part(&self, frame: &[u8], linear: u16) {
        // `struct virtio_net_hdr`: flags, kind of segmentation, length of the headers, and three more fields.
        let [low, high] = linear.to_ne_bytes();
        let header = [0, 0, low, high, 0, 0, 0, 0, 0, 0];
        self.on_client(|| {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let mut addresses = getifaddrs().unwrap().filter(|address| address.interface_name == PEER);
            let address = addresses.find_map(|address| address.address?.as_link_addr().copied()).unwrap();
            bind(socket.as_raw_fd(), &address).unwrap();
            setsockopt(&socket, VirtualHeader, &true).unwrap();
            let sent = send(socket.as_raw_fd(), &[&header, frame].concat(), MsgFlags::empty()).unwrap();
            assert_eq!(sent, header.len() + frame.len());
        });
    }

    /// What a command prints in the server's namespace.
    pub(crate) fn output(&self, command: &[&str]) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.server]).args(command).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A device of the calling thread's namespace that carries Ethernet.
pub(crate) fn device(name: &str, toward_server: Toward) -> Device {
    Device { name: name.into(), index: 0, layer: Layer::Ethernet, toward_server }
}

fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let handle = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(handle, CloneFlags::CLONE_NEWNET).expect("these tests need root");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "these tests need root: ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
