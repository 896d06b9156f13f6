//! Decides which exchanges are replayed, and what may leave the process. Pure: no clock, no I/O.

use thiserror::Error;

pub mod adaptive;
pub mod chance;
pub mod credentials;
#[cfg(test)]
pub(crate) mod fixture;
pub mod mask;
mod place;
pub mod select;
pub mod session;
mod target;
pub mod tokens;

pub(crate) use target::percent_decode;

/// Why a policy cannot be built from its configuration.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The path of `only` or of a rule is not a glob.
    #[error(
        "select: the path `{path}` is not a valid glob ({source}); use `*` within a segment, `**` across segments"
    )]
    Glob {
        /// The path as configured.
        path: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A header or media type of a rule is not a glob.
    #[error("select.rules: `{glob}` is not a valid glob ({source}); `*` stands for anything")]
    ValueGlob {
        /// The glob as configured.
        glob: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A masked field is not a JSON path.
    #[error(
        "{section}.fields: `{path}` is not a JSON path ({source}); write one such as `$..email` (RFC 9535)"
    )]
    JsonPath {
        /// The section: `mask.keep` or `mask.send`.
        section: &'static str,
        /// The path as configured.
        path: String,
        /// What is wrong with it.
        source: serde_json_path::ParseError,
    },
    /// A pattern is not a regular expression.
    #[error(
        "{section}.patterns: `{name}` cannot be compiled ({source}); write a shorter or simpler expression"
    )]
    Pattern {
        /// The section: `mask.keep` or `mask.send`.
        section: &'static str,
        /// The name of the pattern.
        name: String,
        /// What is wrong with it.
        source: regex::Error,
    },
    /// There is no key to hash values with.
    #[error("mask: the action `hash` needs random bytes, and the system has none ({0}); use `redact`")]
    Random(getrandom::Error),
}
