//! The test bed: a production host between its clients and the shadows, as three namespaces.
//!
//! ```text
//! client eth0 ── front production back ── eth0 shadow
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::netns::{self, End, Namespace};
use crate::wire::{Impairment, Wire};

/// The interface of production that its clients come in by.
pub const FRONT: &str = "front";
/// The port that production serves on.
pub const PORT: u16 = 8080;
/// The port of the candidate, in the namespace of the shadows.
pub const CANDIDATE_PORT: u16 = 8081;
/// The port of the baseline, in the namespace of the shadows.
pub const BASELINE_PORT: u16 = 8082;

const PRODUCTION_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const PRODUCTION_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1);
const SHADOW_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

/// Three namespaces, and a folder for what runs in them. Everything goes when this value goes.
#[derive(Debug)]
pub struct Bed {
    /// Where clients are.
    pub client: Namespace,
    /// Where production and the agent are.
    pub production: Namespace,
    /// Where candidate and baseline are.
    pub shadow: Namespace,
    /// Where the wire runs that clients come over, if it is a bad one.
    middle: Option<Namespace>,
    folder: TempDir,
}

/// The devices of the bad wire, on the clients' side and on production's.
const WIRE: [&str; 2] = ["near", "far"];

impl Bed {
    /// Makes the namespaces and joins them.
    ///
    /// # Errors
    /// When not run as root, or when `ip` fails.
    pub fn new() -> Result<Bed> {
        let bed = Bed::namespaces(None)?;
        netns::join(bed.client_end(), bed.front_end())?;
        Ok(bed)
    }

    /// Makes the same with a wire between clients and production that loses, doubles and delays packets.
    ///
    /// # Errors
    /// When not run as root, or when `ip` or the wire fails.
    pub fn with_wire(impairment: Impairment) -> Result<(Bed, Wire)> {
        let bed = Bed::namespaces(Some(Namespace::new("middle")?))?;
        let middle = bed.middle.as_ref().context("there is a middle")?;
        let [near, far] = WIRE;
        netns::join(bed.client_end(), (middle, near, &[]))?;
        netns::join((middle, far, &[]), bed.front_end())?;
        let wire = Wire::start(middle, WIRE, impairment, bed.folder())?;
        Ok((bed, wire))
    }

    fn namespaces(middle: Option<Namespace>) -> Result<Bed> {
        let bed = Bed {
            client: Namespace::new("client")?,
            production: Namespace::new("production")?,
            shadow: Namespace::new("shadow")?,
            middle,
            folder: tempfile::Builder::new().prefix("shadow-test-").tempdir()?,
        };
        netns::join((&bed.production, "back", &["10.77.2.1/24"]), (&bed.shadow, "eth0", &["10.77.2.2/24"]))?;
        Ok(bed)
    }

    fn client_end(&self) -> End<'_> {
        (&self.client, "eth0", &["10.77.1.2/24", "fd77:1::2/64"])
    }

    fn front_end(&self) -> End<'_> {
        (&self.production, FRONT, &["10.77.1.1/24", "fd77:1::1/64"])
    }

    /// A folder that goes when the bed goes. Servers that drop privileges may read it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where production serves.
    #[must_use]
    pub fn production_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(PRODUCTION_V4), PORT)
    }

    /// Where production serves over IPv6.
    #[must_use]
    pub fn production_address_v6(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(PRODUCTION_V6), PORT)
    }

    /// Where the candidate serves.
    #[must_use]
    pub fn candidate_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(SHADOW_V4), CANDIDATE_PORT)
    }

    /// Where the baseline serves.
    #[must_use]
    pub fn baseline_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(SHADOW_V4), BASELINE_PORT)
    }

    /// The URL of the candidate.
    #[must_use]
    pub fn candidate_url(&self) -> String {
        format!("http://{}", self.candidate_address())
    }

    /// The URL of the baseline.
    #[must_use]
    pub fn baseline_url(&self) -> String {
        format!("http://{}", self.baseline_address())
    }
}
