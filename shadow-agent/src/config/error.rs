//! What can be wrong with a configuration, and how it is said: place, value and remedy in one sentence.

use std::fmt;
use std::io;
use std::path::PathBuf;

mod problem;

pub use problem::Problem;

/// Where a value came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A line of the configuration file, counted from 1.
    File {
        /// The line.
        line: u64,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
    /// Nowhere: it was not given.
    #[default]
    Missing,
}

/// A key and where its value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key in the notation of the file: `replay.targets[0].url`.
    pub key: String,
    /// Where its value came from.
    pub source: Source,
    /// The configuration file, when there is one.
    pub file: Option<PathBuf>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.source, &self.file) {
            (Source::File { line }, Some(file)) => {
                write!(f, "line {line} of {}: {}", file.display(), self.key)
            }
            (Source::File { line }, None) => write!(f, "line {line}: {}", self.key),
            (Source::Environment(name), _) => write!(f, "environment variable {name}"),
            (Source::Flag(name), _) => f.write_str(name),
            (Source::Missing, Some(file)) => write!(f, "{}: {}", file.display(), self.key),
            (Source::Missing, None) => f.write_str(&self.key),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: the configuration file cannot be read ({error}); give a readable file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is larger than a configuration can be.
    #[error("{}: the configuration file is larger than {limit} bytes; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// The file is not YAML, or a value has another shape than its key wants.
    #[error("line {line} of {}: {problem}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 when the parser does not know.
        line: u64,
        /// What the YAML parser said.
        problem: String,
    },
    /// A key that does not exist.
    #[error("line {line} of {}: unknown key `{key}`; {}", path.display(), Suggestion(suggestion.as_deref(), known))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The key.
        key: String,
        /// The existing key that is nearest.
        suggestion: Option<&'static str>,
        /// The keys that exist there.
        known: Vec<&'static str>,
    },
    /// An environment variable with our prefix that means nothing.
    #[error("environment variable {name} means nothing to shadow-agent; {}", Suggestion(*suggestion, known))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The existing variable that is nearest.
        suggestion: Option<&'static str>,
        /// The variables that exist.
        known: Vec<&'static str>,
    },
    /// A value that is not possible.
    #[error("{place}: {problem}")]
    Value {
        /// The key, and where its value came from.
        place: Box<Place>,
        /// The value, what is wrong with it, and the remedy.
        problem: Problem,
    },
}

struct Suggestion<'a>(Option<&'a str>, &'a [&'static str]);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "did you mean `{name}`?"),
            None => write!(f, "possible here: {}", self.1.join(", ")),
        }
    }
}
