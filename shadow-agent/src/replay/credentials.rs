//! The credentials of a target's own, which it is sent in the place of production's.
//!
//! Those from files are read again when the file changes: another time of change, size or inode. What cannot be read or is
//! empty then leaves the value of before, because a file is often empty for a moment while it is replaced; at the start it
//! is an error. Values are zeroed when they are let go. A request that is being sent holds a copy, which is not.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::unsendable::Unsendable;
use crate::config::{self, Secret};

/// The longest value of a credential, in bytes.
pub(super) const MAX_VALUE: usize = 16 << 10;

type Value = Zeroizing<Vec<u8>>;

/// Why a credential cannot be used. It never says the value.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("`{}` (for {name}) cannot be read ({error}); give a file that this user may read", path.display())]
    Unreadable {
        /// The header or parameter.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The environment has no such variable.
    #[error("the environment variable {variable} (for {name}) is not set; set it, or use a file")]
    NoVariable {
        /// The header or parameter.
        name: String,
        /// The variable.
        variable: String,
    },
    /// There is nothing in it.
    #[error("{place} (for {name}) is empty; write the value into it")]
    Empty {
        /// The header or parameter.
        name: String,
        /// Where it was to be.
        place: String,
    },
    /// It is longer than any credential.
    #[error("{place} (for {name}) is longer than {MAX_VALUE} bytes; is it the right one?")]
    TooLong {
        /// The header or parameter.
        name: String,
        /// Where it is.
        place: String,
    },
    /// A header cannot carry it.
    #[error("{place} (for {name}) has characters that cannot be sent; write visible ASCII on one line")]
    Characters {
        /// The header or parameter.
        name: String,
        /// Where it is.
        place: String,
    },
}

/// All credentials of one target.
#[derive(Debug)]
pub(super) struct Credentials {
    target: String,
    headers: Vec<(HeaderName, Credential)>,
    query: Vec<(String, Credential)>,
}

/// One credential: where it is read, and what was read last.
struct Credential {
    name: String,
    secret: Secret,
    state: Mutex<State>,
}

struct State {
    value: Value,
    stamp: Option<Stamp>,
    /// It was said that the file is of no use now.
    complained: bool,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            changed: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

impl Credentials {
    /// Reads what is configured for `target`.
    ///
    /// # Errors
    /// The first that cannot be read or sent.
    pub(super) fn new(target: &config::Target) -> Result<Credentials, CredentialsError> {
        let own = &target.credentials;
        let headers = own.headers.iter().map(|(name, secret)| {
            let header = HeaderName::try_from(name.as_str());
            let header = header.map_err(|_| CredentialsError::Characters {
                name: name.clone(),
                place: "the name of the header".to_owned(),
            })?;
            Ok((header, Credential::new(name, secret)?))
        });
        let query = own.query.iter().map(|(name, secret)| Ok((name.clone(), Credential::new(name, secret)?)));
        Ok(Credentials {
            target: target.name.clone(),
            headers: headers.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, _>>()?,
        })
    }

    /// Whether one of them comes from a file.
    pub(super) fn can_change(&self) -> bool {
        self.all().any(|credential| matches!(credential.secret, Secret::File(_)))
    }

    /// Reads those again whose file has changed; blocks.
    pub(super) fn reread(&self) {
        self.all().for_each(|credential| credential.reread(&self.target));
    }

    /// Puts the header fields in, in the place of what was there; those of HTTP/2 are kept out of tables.
    pub(super) fn put(&self, headers: &mut HeaderMap) -> Result<(), Unsendable> {
        for (name, credential) in &self.headers {
            let mut value = HeaderValue::from_bytes(&credential.lock().value)?;
            value.set_sensitive(true);
            headers.try_insert(name, value)?;
        }
        Ok(())
    }

    /// The target with the parameters.
    pub(super) fn in_target(&self, target: &Bytes) -> Bytes {
        if self.query.is_empty() {
            return target.clone();
        }
        let mut whole = target.to_vec();
        for (name, credential) in &self.query {
            whole.push(if whole.contains(&b'?') { b'&' } else { b'?' });
            whole.extend_from_slice(name.as_bytes());
            whole.push(b'=');
            encode(&credential.lock().value, &mut whole);
        }
        whole.into()
    }

    fn all(&self) -> impl Iterator<Item = &Credential> {
        let headers = self.headers.iter().map(|(_, credential)| credential);
        headers.chain(self.query.iter().map(|(_, credential)| credential))
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credential {
    fn new(name: &str, secret: &Secret) -> Result<Credential, CredentialsError> {
        let (value, stamp) = match secret {
            Secret::File(path) => {
                let (value, stamp) = read(name, path)?;
                (value, Some(stamp))
            }
            Secret::Env(variable) => {
                let missing =
                    || CredentialsError::NoVariable { name: name.to_owned(), variable: variable.clone() };
                let value = std::env::var_os(variable).ok_or_else(missing)?;
                let value = Zeroizing::new(value.into_encoded_bytes());
                (checked(name, format!("the environment variable {variable}"), value)?, None)
            }
        };
        let state = Mutex::new(State { value, stamp, complained: false });
        Ok(Credential { name: name.to_owned(), secret: secret.clone(), state })
    }

    fn reread(&self, target: &str) {
        let Secret::File(path) = &self.secret else { return };
        let stamp = std::fs::metadata(path).map(|metadata| Stamp::of(&metadata)).ok();
        if stamp.is_some() && stamp == self.lock().stamp {
            self.lock().complained = false;
            return;
        }
        match read(&self.name, path) {
            Ok((value, stamp)) => {
                *self.lock() = State { value, stamp: Some(stamp), complained: false };
                tracing::info!(
                    target_name = target,
                    name = self.name,
                    "a credential of a target has changed"
                );
            }
            Err(error) => {
                if !std::mem::replace(&mut self.lock().complained, true) {
                    tracing::warn!(
                        target_name = target,
                        %error,
                        "a credential of a target cannot be read again; the one of before is used on",
                    );
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a value that is whole: it is replaced at once.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(name: &str, path: &Path) -> Result<(Value, Stamp), CredentialsError> {
    let unreadable =
        |error| CredentialsError::Unreadable { name: name.to_owned(), path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    // Before reading: what changes meanwhile is read again.
    let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
    // An end of line behind the longest value, and one byte more, which is too much. Nothing is moved by growing.
    let most = MAX_VALUE + 3;
    let mut value = Zeroizing::new(Vec::with_capacity(most));
    file.take(most as u64).read_to_end(&mut value).map_err(unreadable)?;
    Ok((checked(name, format!("`{}`", path.display()), value)?, stamp))
}

/// The value without the space around it.
fn checked(name: &str, place: String, value: Value) -> Result<Value, CredentialsError> {
    let name = name.to_owned();
    let trimmed = value.trim_ascii();
    if trimmed.is_empty() {
        return Err(CredentialsError::Empty { name, place });
    }
    if trimmed.len() > MAX_VALUE {
        return Err(CredentialsError::TooLong { name, place });
    }
    match trimmed.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        true => Ok(Zeroizing::new(trimmed.to_vec())),
        false => Err(CredentialsError::Characters { name, place }),
    }
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
fn encode(value: &[u8], into: &mut Vec<u8>) {
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            into.push(byte);
        } else {
            into.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
