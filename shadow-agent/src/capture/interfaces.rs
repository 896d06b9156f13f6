//! Finds network devices, what they are, and which direction leads to the server.

/// What a device's packets begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IP header (tun, WireGuard, ipip, netkit in L3 mode).
    Ip,
}

/// Which hook carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Toward {
    /// Ingress leads to the server; attach both hooks.
    Ingress,
    /// Egress leads to the server; attach both hooks.
    Egress,
    /// Both directions pass either hook (`lo`): attach egress only, direction unknown.
    Both,
}

/// A device to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in this network namespace.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// What its packets begin with.
    pub layer: Layer,
    /// Which hook carries requests to the server.
    pub toward_server: Toward,
}
