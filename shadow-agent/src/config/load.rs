//! Puts file, environment and flags together: a flag beats the environment, which beats the file, which beats defaults.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::file::{self, Raw};
use super::{Config, ConfigError, check, overlay, resolve};
use crate::cli::RunArgs;

/// The largest configuration file, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// The configuration in effect, checked as a whole.
///
/// `environment` is all of it; variables without our prefix are passed over.
///
/// # Errors
/// The first thing that is wrong, with the key, where its value came from, and the remedy.
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &RunArgs,
) -> Result<Config, ConfigError> {
    let mut raw = match path {
        Some(path) => file::parse(&read(path)?, path)?,
        None => Raw::default(),
    };
    let overrides = overlay::lay(&mut raw, environment, flags)?;
    resolve::resolve(&raw, &overrides)
        .and_then(|config| check::check(&config, &raw, &overrides).map(|()| config))
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
