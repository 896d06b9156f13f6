//! `select` as the rest of the agent uses it: which exchanges are replayed, and what becomes of those that change
//! something.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use http::Method;

use super::Share;

/// `select`: which exchanges are replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// Methods replayed.
    pub methods: BTreeSet<String>,
    /// Globs over the path, outside of which nothing is replayed; every path is inside when there are none. They narrow
    /// what the rules and the built-in skips leave, and override neither.
    pub only: Vec<String>,
    /// Rules, evaluated top down before the built-in skips; the first that matches decides.
    pub rules: Vec<SelectRule>,
    /// What becomes of stateful requests where no rule says so. `None`: those are sent whose methods are listed.
    pub stateful: Option<Stateful>,
    /// Where requests are kept that are recorded only.
    pub record: Option<RecordOnly>,
}

/// One rule of [`Select`].
#[derive(Clone, Debug, PartialEq)]
pub struct SelectRule {
    /// What it matches.
    pub condition: Condition,
    /// The share of matching exchanges that is replayed; 0 skips them all.
    pub share: Share,
    /// What becomes of the stateful ones among them.
    pub mode: Option<Stateful>,
}

/// What a rule matches: all that is given must hold. Without anything, every exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// One of these methods; any when empty.
    pub methods: BTreeSet<String>,
    /// A glob over the path: `*` within a segment, `**` across segments.
    pub path: Option<String>,
    /// Request headers by name, lower case, and a glob over the value; one line of each must match.
    pub headers: Vec<(String, String)>,
    /// Inclusive ranges of production's status; any when empty.
    pub status: Vec<(u16, u16)>,
    /// The size of the request's body.
    pub request_body: Sizes,
    /// The size of the body of production's response.
    pub response_body: Sizes,
    /// Globs over the media type of the request, lower case; any when empty.
    pub request_type: Vec<String>,
    /// Globs over the media type of production's response, lower case; any when empty.
    pub response_type: Vec<String>,
}

/// Sizes of bodies in bytes, after transfer decoding and before content decoding; both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
}

/// What becomes of a stateful request: one with an unsafe method, or one that acts although its method is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stateful {
    /// It is not replayed.
    Skip,
    /// It is sent.
    Send,
    /// It is sent with a header that says so, to targets that understand it.
    DryRun,
    /// It is kept in a file, and not sent.
    RecordOnly,
}

/// `select.record`: where requests are kept that are recorded only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOnly {
    /// What the names of the files are made of; its end says their kind.
    pub out: PathBuf,
    /// The largest file, in bytes, before compression.
    pub rotate_size: u64,
    /// How many files of a run stay; the oldest goes.
    pub keep: usize,
}

impl Stateful {
    /// Every one.
    pub const ALL: [Stateful; 4] = [Stateful::Skip, Stateful::Send, Stateful::DryRun, Stateful::RecordOnly];

    /// The name in a configuration file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Stateful::Skip => "skip",
            Stateful::Send => "send",
            Stateful::DryRun => "dry-run",
            Stateful::RecordOnly => "record-only",
        }
    }
}

impl fmt::Display for Stateful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { min: 0, max: u64::MAX }
    }
}

impl Sizes {
    /// Whether so many bytes are among them.
    #[must_use]
    pub fn contains(self, bytes: usize) -> bool {
        (self.min..=self.max).contains(&(bytes as u64))
    }
}

impl SelectRule {
    /// A rule by path alone.
    #[must_use]
    pub fn by_path(path: &str, share: Share) -> SelectRule {
        let condition = Condition { path: Some(path.to_owned()), ..Condition::default() };
        SelectRule { condition, share, mode: None }
    }
}

impl Select {
    /// Where the files of `record` go when nobody says how large or how many.
    pub const ROTATE_SIZE: u64 = 64 << 20;
    /// How many of them stay then.
    pub const KEEP: usize = 16;

    /// The unsafe methods (RFC 9110, section 9.2.1) among these.
    pub fn unsafe_among(methods: &BTreeSet<String>) -> impl Iterator<Item = &String> {
        let is_safe = |name: &str| Method::from_bytes(name.as_bytes()).is_ok_and(|method| method.is_safe());
        methods.iter().filter(move |method| !is_safe(method))
    }
}

impl Default for Select {
    fn default() -> Select {
        let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
        Select {
            methods: methods.iter().map(|method| method.as_str().to_owned()).collect(),
            only: Vec::new(),
            rules: Vec::new(),
            stateful: None,
            record: None,
        }
    }
}
