//! Tells the kernel programs which sockets are the agent's own, so that none of their packets is captured.
//!
//! A socket is known by its local address and port, which no NAT between here and a target changes on this host, unlike
//! the target's. Connects and closes nothing.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{HashMap as KernelMap, Map, MapData};
use shadow_ebpf::abi;

use super::control::Control;
use super::error::{self, KernelError};

const MAP: &str = "OWN";

/// An `abi::Endpoint`, as words.
type Key = [u64; 3];

const _: () = assert!(size_of::<Key>() == size_of::<abi::Endpoint>());

/// Takes note of the agent's own sockets; clones share what they know.
#[derive(Clone)]
pub struct OwnSockets(Arc<Mutex<Own>>);

struct Own {
    control: Arc<Control>,
    map: KernelMap<MapData, Key, u32>,
    /// How many sockets have a local end, at different times or in different namespaces.
    ends: HashMap<Key, u32>,
    /// How many of the ends have a port.
    ports: HashMap<u16, u32>,
}

/// A socket that is left alone until this is dropped.
#[must_use = "the socket is captured again once this is dropped"]
pub struct OwnSocket {
    own: OwnSockets,
    local: SocketAddr,
}

impl OwnSockets {
    pub(super) fn take(ebpf: &mut Ebpf, control: &Arc<Control>) -> Result<OwnSockets, KernelError> {
        let map: Map = ebpf.take_map(MAP).ok_or(KernelError::Object { name: MAP })?;
        let map = map.try_into().map_err(|source| error::map(MAP, source))?;
        let own = Own { control: Arc::clone(control), map, ends: HashMap::new(), ports: HashMap::new() };
        Ok(OwnSockets(Arc::new(Mutex::new(own))))
    }

    /// From now on leaves alone what a socket with this local end sends and receives. To be called after connecting and
    /// before the first byte.
    ///
    /// # Errors
    /// When there are too many ([`abi::MAX_OWN`]), or the kernel refuses.
    pub fn register(&self, local: SocketAddr) -> Result<OwnSocket, KernelError> {
        self.lock().add(local)?;
        Ok(OwnSocket { own: self.clone(), local })
    }

    /// How many sockets are left alone.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().ends.len()
    }

    fn lock(&self) -> MutexGuard<'_, Own> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    fn add(&mut self, local: SocketAddr) -> Result<(), KernelError> {
        let (key, port) = (key(local), local.port());
        if !self.ends.contains_key(&key) {
            if self.ends.len() >= abi::MAX_OWN as usize {
                return Err(KernelError::OwnSockets { limit: abi::MAX_OWN });
            }
            self.map.insert(key, 1, 0).map_err(|source| error::map(MAP, source))?;
            self.control.set_own_port(port, true);
            *self.ports.entry(port).or_default() += 1;
        }
        *self.ends.entry(key).or_default() += 1;
        Ok(())
    }

    fn remove(&mut self, local: SocketAddr) {
        let (key, port) = (key(local), local.port());
        if !release(&mut self.ends, key) {
            return;
        }
        if release(&mut self.ports, port) {
            self.control.set_own_port(port, false);
        }
        if let Err(error) = self.map.remove(&key) {
            tracing::warn!(%error, "a closed socket of the agent stays in the map of its own sockets");
        }
    }
}

/// Counts one down; says whether it was the last.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) -> bool {
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(&key);
    }
    last
}

/// As the programs see an end of a connection.
fn key(end: SocketAddr) -> Key {
    let address = match end.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64, end.port().into()]
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        self.own.lock().remove(self.local);
    }
}

impl fmt::Debug for OwnSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnSockets").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl fmt::Debug for OwnSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnSocket").field(&self.local).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_becomes_the_key_that_the_programs_make_of_a_packet() {
        for (end, expected) in [
            ("10.0.0.9:8080", [0, 0xFFFF_0A00_0009, 8080]),
            ("[::ffff:10.0.0.9]:8080", [0, 0xFFFF_0A00_0009, 8080]),
            ("[2001:db8::7]:65535", [0x2001_0DB8_0000_0000, 7, 65_535]),
        ] {
            assert_eq!(key(end.parse().unwrap()), expected, "{end}");
        }
    }

    #[test]
    fn the_last_one_is_told_from_those_before() {
        let mut counts = HashMap::from([(1, 2)]);
        assert!(!release(&mut counts, 1));
        assert!(release(&mut counts, 1));
        assert!(!release(&mut counts, 1));
    }
}
