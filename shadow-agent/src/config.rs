//! The configuration as the rest of the agent uses it: typed, with defaults, already checked.
//!
//! Where the values come from (file, environment, flags) is the business of the submodules; nothing here does I/O.
//! Each section is handed to the one subsystem that it is about.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shadow_ebpf::abi;

use crate::compare::descriptors::Descriptors;

pub mod advice;
mod capture;
pub mod check;
mod error;
mod file;
mod guards;
mod load;
mod mask;
mod overlay;
pub mod reload;
mod resolve;
mod select;
mod session;
pub mod show;
mod target;
pub mod units;
pub mod writes;

pub use capture::{Capture, Mode, NetNs, Networks, Polarity, Side, XdpMode};
pub use error::{ConfigError, Place, Problem, Source};
pub use guards::{GuardAction, GuardRule, Guards, Portion};
pub use load::{Needs, load};
pub use mask::{
    Detector, Detectors, MAX_COMPILED_PATTERN, Mask, MaskAction, MaskPattern, MaskRule, MaskRules,
};
pub use select::{Condition, RecordOnly, Select, SelectRule, Sizes, Stateful};
pub use session::{Missing, Order, Place as TokenPlace, TokenRule};
pub use target::{Breaker, HostHeader, Http, OwnCredentials, Secret, Tls};

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The kill switch, as configuration.
    pub enabled: bool,
    /// What the kernel copies.
    pub capture: Capture,
    /// The bounds of the userspace side.
    pub limits: Limits,
    /// Which exchanges are replayed.
    pub select: Select,
    /// What is hidden, and from whom.
    pub mask: Mask,
    /// Where and how requests are replayed.
    pub replay: Replay,
    /// What counts as a difference.
    pub compare: Compare,
    /// What may be shipped.
    pub verdict: Verdict,
    /// The HTTP API.
    pub admin: Admin,
    /// Which traces replayed requests belong to, and who is told.
    pub traces: Traces,
    /// Who did what.
    pub audit: Audit,
    /// What replaying must not do, and what happens if it does.
    pub guards: Guards,
    /// How much of what is selected is replayed.
    pub portion: Portion,
}

/// A share of a whole, `0.0..=1.0`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(pub f64);

impl Share {
    /// The whole.
    pub const ALL: Share = Share(1.0);

    /// The flow hash below which a flow is in a sample of this share; [`abi::SAMPLE_ALL`] is every flow.
    #[must_use]
    pub fn threshold(self) -> u32 {
        if self.0 >= 1.0 {
            return abi::SAMPLE_ALL;
        }
        // Saturates at both ends, and takes NaN for nothing. One below: `SAMPLE_ALL` itself means "do not even ask".
        ((self.0 * f64::from(u32::MAX)) as u32).min(abi::SAMPLE_ALL - 1)
    }
}

/// `limits`: the bounds of the userspace side.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Flows tracked at once, all shards together.
    pub flows: usize,
    /// Out-of-order bytes buffered for one flow.
    pub flow_buffer: usize,
    /// Bytes buffered for all flows, message bodies under way included.
    pub total_buffer: usize,
    /// The largest body of a request or response, in bytes, before and after content decoding.
    pub body: usize,
    /// From the first byte of a request to the last of its response.
    pub exchange_timeout: Duration,
    /// CPU time of the agent per second, as a share of one core; beyond it fewer flows are captured. `None` is
    /// unlimited.
    pub cpu: Option<Share>,
}

/// What happens to requests that carry credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// They are not replayed; the summary says how many, and the remedy.
    Skip,
    /// They are replayed with their credentials.
    Forward,
    /// They are replayed without their credentials.
    Strip,
    /// They are replayed with credentials of each target's own instead.
    Replace,
}

/// `replay`: where and how requests are replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// What happens to requests that carry credentials.
    pub credentials: Credentials,
    /// The new version, at least one.
    pub targets: Vec<Target>,
    /// Production's own version, as a shadow.
    pub baseline: Option<Target>,
    /// The header that says that a request is a dry run: its name, lower case, and its value.
    pub dry_run: (String, String),
    /// Which requests go one after the other, and over one connection.
    pub order: Order,
    /// Values that production issues and that shadows issue anew.
    pub tokens: Vec<TokenRule>,
}

impl Replay {
    /// Every host that requests are replayed to, the baseline last.
    pub fn all(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().chain(&self.baseline)
    }
}

/// One shadow host.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name in labels and reports.
    pub name: String,
    /// Its scheme (`http` or `https`), authority and path prefix.
    pub url: http::Uri,
    /// Whether the operator declares that what it writes reaches nobody.
    pub isolated: bool,
    /// Whether it understands the header of [`Replay::dry_run`], and then changes nothing.
    pub dry_run: bool,
    /// Requests per second; `None` is unlimited.
    pub rate: Option<f64>,
    /// Requests under way at once.
    pub concurrency: usize,
    /// From sending to the end of the answer.
    pub timeout: Duration,
    /// Headers set on each request, replacing what was there.
    pub set_headers: Vec<(String, String)>,
    /// Headers removed from each request, lower case.
    pub remove_headers: Vec<String>,
    /// How TLS is spoken where the URL says `https`.
    pub tls: Tls,
    /// The protocol version that it is asked by.
    pub http: Http,
    /// The `Host` that it is asked for.
    pub host: HostHeader,
    /// How often its name is looked up again.
    pub dns_refresh: Duration,
    /// When it is left alone for a while; `None` never.
    pub breaker: Option<Breaker>,
    /// The header that makes unsafe requests idempotent where they carry none, lower case; `None` adds none.
    pub idempotency_header: Option<String>,
    /// What it is sent in the place of production's credentials.
    pub credentials: OwnCredentials,
}

/// `compare`: what counts as a difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Response headers compared, lower case.
    pub headers: Vec<String>,
    /// JSON paths (RFC 9535) never compared.
    pub ignore: Vec<String>,
    /// What gRPC messages are decoded by; without it they are compared by their bytes.
    pub descriptors: Option<DescriptorFile>,
    /// Endpoints by pattern; the rest are learned.
    pub endpoints: Vec<EndpointRule>,
    /// Endpoints told apart at most; the rest share one.
    pub max_endpoints: usize,
}

/// A descriptor set, and the file that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorFile {
    /// Where it was read.
    pub path: PathBuf,
    /// What was in it.
    pub descriptors: Descriptors,
}

/// One configured endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointRule {
    /// A path pattern such as `/users/{id}`.
    pub path: String,
    /// A limit on the share of mismatches that replaces `verdict.limits.mismatch_per_endpoint`.
    pub mismatch: Option<Share>,
}

/// `verdict`: what may be shipped.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Share of mismatches over all endpoints.
    pub mismatch: Share,
    /// Share of mismatches of one endpoint.
    pub mismatch_per_endpoint: Share,
    /// Error responses and failures of the candidate, as a multiple of the reference's.
    pub error_ratio: f64,
    /// p95 of the candidate's time to first byte, as a multiple of the baseline's.
    pub latency_ratio_p95: f64,
    /// Share of exchanges lost.
    pub loss: Share,
    /// Confidence of every bound.
    pub confidence: Share,
}

/// `admin`: the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; `None` turns it off.
    pub listen: Option<SocketAddr>,
    /// A file with the bearer token; required off loopback.
    pub token_file: Option<PathBuf>,
}

/// Which trace a replayed request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceContext {
    /// One of its own.
    #[default]
    Mint,
    /// The original's, if there is one.
    Propagate,
}

/// `traces`: the trace contexts of replayed requests, and spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Which trace a replayed request belongs to.
    pub context: TraceContext,
    /// The collector that is told the spans of every exchange, over OTLP/HTTP; `None` tells nobody.
    pub otlp: Option<http::Uri>,
}

/// `audit`: where it is written down who did what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Where.
    pub place: AuditPlace,
    /// Bytes after which another file is begun.
    pub max_size: u64,
    /// Older files kept.
    pub keep: usize,
}

/// Where the audit log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditPlace {
    /// In the state directory; without one there is none.
    State,
    /// Nowhere.
    Off,
    /// In this file.
    File(PathBuf),
}

impl Default for Audit {
    fn default() -> Audit {
        Audit { place: AuditPlace::State, max_size: 16 << 20, keep: 8 }
    }
}

impl Default for Config {
    /// Everything at its default; `capture.interfaces`, `capture.ports` and `replay.targets` are still empty.
    fn default() -> Config {
        Config {
            enabled: true,
            capture: Capture::default(),
            limits: Limits::default(),
            select: Select::default(),
            mask: Mask::default(),
            replay: Replay::default(),
            compare: Compare::default(),
            verdict: Verdict::default(),
            admin: Admin { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9465))), token_file: None },
            traces: Traces::default(),
            audit: Audit::default(),
            guards: Guards::default(),
            portion: Portion::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            flows: 65_536,
            flow_buffer: 1 << 20,
            total_buffer: 256 << 20,
            body: 4 << 20,
            exchange_timeout: Duration::from_secs(60),
            cpu: Some(Share::ALL),
        }
    }
}

impl Default for Target {
    /// A target without name and URL; the rest at its default.
    fn default() -> Target {
        Target {
            name: String::new(),
            url: http::Uri::default(),
            isolated: false,
            dry_run: false,
            rate: None,
            concurrency: 64,
            timeout: Duration::from_secs(5),
            set_headers: Vec::new(),
            remove_headers: Vec::new(),
            tls: Tls::default(),
            http: Http::Auto,
            host: HostHeader::Preserve,
            dns_refresh: Duration::from_secs(30),
            breaker: Some(Breaker::default()),
            idempotency_header: Some("idempotency-key".to_owned()),
            credentials: OwnCredentials::default(),
        }
    }
}

impl Default for Replay {
    /// Without targets.
    fn default() -> Replay {
        Replay {
            credentials: Credentials::Skip,
            targets: Vec::new(),
            baseline: None,
            dry_run: ("x-dry-run".to_owned(), "1".to_owned()),
            order: Order::None,
            tokens: Vec::new(),
        }
    }
}

impl Default for Compare {
    fn default() -> Compare {
        Compare {
            headers: ["content-type", "cache-control", "location", "set-cookie"].map(str::to_owned).into(),
            ignore: Vec::new(),
            descriptors: None,
            endpoints: Vec::new(),
            max_endpoints: 256,
        }
    }
}

impl Default for Verdict {
    fn default() -> Verdict {
        Verdict {
            mismatch: Share(0.001),
            mismatch_per_endpoint: Share(0.01),
            error_ratio: 1.2,
            latency_ratio_p95: 1.5,
            loss: Share(0.01),
            confidence: Share(0.95),
        }
    }
}
