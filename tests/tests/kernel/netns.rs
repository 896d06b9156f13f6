//! Two network namespaces joined by a veth pair, gone when dropped.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use shadow_agent::capture::interfaces::{Device, Layer, Toward};

/// The server's addresses.
pub(crate) const SERVER: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// The client's addresses.
const CLIENT: [&str; 2] = ["10.77.0.2", "fd77::2"];
/// The client's end of the pair.
const PEER: &str = "user0";
/// The server's end of the pair.
pub(crate) const DEVICE: &str = "prod0";

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

    /// Lets both ends build IPv6 packets of up to `size` bytes (BIG TCP).
    pub(crate) fn set_largest_packet(&self, size: u32) {
        for (namespace, device) in [(&self.server, DEVICE), (&self.client, PEER)] {
            ip(&["-n", namespace, "link", "set", "dev", device, "gso_max_size", &size.to_string()]);
        }
    }

    /// Sends a frame from the client of which only the first `linear` bytes are in the linear part of the kernel's
    /// buffer.
    pub(crate) fn send_with_linear_part(&self, frame: &[u8], linear: u16) {
        let frame: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let script = format!(
            "import socket, struct\n\
             s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
             s.bind(('{PEER}', 0))\n\
             SOL_PACKET, PACKET_VNET_HDR = 263, 15\n\
             s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)\n\
             header = struct.pack('<BBHHHH', 0, 0, {linear}, 0, 0, 0)\n\
             s.send(header + bytes.fromhex('{frame}'))\n"
        );
        let output = Command::new("ip")
            .args(["netns", "exec", &self.client, "python3", "-c", &script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
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
