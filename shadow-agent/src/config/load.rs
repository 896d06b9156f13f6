//! Puts file, environment and flags together: a flag beats the environment, which beats the file, which beats defaults.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::file::{self, Raw, Text};
use super::{Config, ConfigError, Source, check, overlay, resolve};
use crate::cli::RunArgs;

/// The largest configuration file, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// What a command cannot go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Interfaces and ports to capture from. Without, the admin API listens only where a flag or the environment says.
    pub capture: bool,
    /// A target to replay to.
    pub targets: bool,
}

impl Needs {
    /// Capture and replay.
    pub const RUN: Needs = Needs { capture: true, targets: true };
    /// Capture.
    pub const RECORD: Needs = Needs { capture: true, targets: false };
    /// Replay what a file holds.
    pub const REPLAY: Needs = Needs { capture: false, targets: true };
    /// Look at what a file holds.
    pub const INSPECT: Needs = Needs { capture: false, targets: false };
}

/// The configuration in effect, checked as a whole.
///
/// `environment` is all of it; variables without our prefix are passed over.
///
/// # Errors
/// The first thing that is wrong, with the key, where its value came from, and the remedy.
pub fn load(
    needs: Needs,
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &RunArgs,
) -> Result<Config, ConfigError> {
    let mut raw = match path {
        Some(path) => file::parse(&read(path)?, path)?,
        None => Raw::default(),
    };
    if !needs.capture {
        // The file is perhaps that of an agent which runs on this host and has the address.
        raw.admin.listen = Some(Text::new("off", Source::default()));
    }
    let overrides = overlay::lay(&mut raw, environment, flags)?;
    resolve::resolve(&raw, &overrides)
        .and_then(|config| check::check(needs, &config, &raw, &overrides).map(|()| config))
        .map_err(|error| with_file(error, path))
}

fn with_file(error: ConfigError, path: Option<&Path>) -> ConfigError {
    match error {
        ConfigError::Value { mut place, problem } => {
            place.file = path.map(Path::to_owned);
            ConfigError::Value { place, problem }
        }
        other => other,
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let error = |error| ConfigError::Read { path: path.to_owned(), error };
    let mut text = String::new();
    let read =
        File::open(path).map_err(error)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(error)?;
    if read as u64 > MAX_FILE {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
