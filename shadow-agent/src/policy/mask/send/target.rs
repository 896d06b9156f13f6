//! Masks the target of a request, and URLs that are like one: parameters by name, whatever else by its form.

use bytes::Bytes;

use super::super::rules::Rules;
use super::super::whole::encoded;
use crate::exchange::SkipReason;
use crate::policy::target::{parameter_name, percent_decode};

impl Rules {
    /// The masked target; `None` when nothing in it is masked.
    ///
    /// # Errors
    /// [`SkipReason::Unmaskable`] when something is found in the path or the query as a whole that is in none of their pieces.
    pub(super) fn mask_target(&self, target: &[u8]) -> Result<Option<Bytes>, SkipReason> {
        let mut parts = target.splitn(2, |&byte| byte == b'?');
        let mut masked = Vec::with_capacity(target.len() + 16);
        let path = parts.next().unwrap_or_default();
        for (index, segment) in path.split(|&byte| byte == b'/').enumerate() {
            if index > 0 {
                masked.push(b'/');
            }
            for (index, part) in segment.split(|&byte| byte == b';').enumerate() {
                if index > 0 {
                    masked.push(b';');
                    self.mask_parameter(part, &mut masked)?;
                } else {
                    self.mask_piece(part, &mut masked)?;
                }
            }
        }
        let path_ends = masked.len();
        if let Some(query) = parts.next() {
            masked.push(b'?');
            for (index, parameter) in query.split(|&byte| byte == b'&').enumerate() {
                if index > 0 {
                    masked.push(b'&');
                }
                self.mask_parameter(parameter, &mut masked)?;
            }
        }
        if self.read_text() {
            let (path, query) = masked.split_at_checked(path_ends).unwrap_or_default();
            for whole in [path, query] {
                if self.finds(&plain(whole)).is_some() {
                    return Err(SkipReason::Unmaskable);
                }
            }
        }
        Ok(if masked == target { None } else { Some(masked.into()) })
    }

    /// A parameter: a name, and mostly a value.
    fn mask_parameter(&self, raw: &[u8], masked: &mut Vec<u8>) -> Result<(), SkipReason> {
        self.mask_pair(raw, self.parameter(&parameter_name(raw)).map(|hit| (hit, "query")), masked)
    }

    /// A parameter or a field of a form, which a rule may name.
    pub(super) fn mask_pair(
        &self,
        raw: &[u8],
        named: Option<(super::super::rules::Hit, &str)>,
        masked: &mut Vec<u8>,
    ) -> Result<(), SkipReason> {
        let mut parts = raw.splitn(2, |&byte| byte == b'=');
        self.mask_piece(parts.next().unwrap_or_default(), masked)?;
        match (parts.next(), named) {
            (None, None) => {}
            (value, Some((hit, label))) => {
                masked.push(b'=');
                let covered = self.cover(hit, label, &plain(value.unwrap_or_default()));
                masked.extend_from_slice(&encoded(&covered, fits));
            }
            (Some(value), None) => {
                masked.push(b'=');
                self.mask_piece(value, masked)?;
            }
        }
        Ok(())
    }

    /// What stands between two separators; where nothing is found it stays byte by byte.
    fn mask_piece(&self, raw: &[u8], masked: &mut Vec<u8>) -> Result<(), SkipReason> {
        match self.mask_text(&plain(raw))? {
            Some(found) => masked.extend_from_slice(&encoded(&found, fits)),
            None => masked.extend_from_slice(raw),
        }
        Ok(())
    }
}

/// A piece of a target or a form as it is meant; a plus is a space in most of them, and nothing to hide anywhere else.
pub(in crate::policy::mask) fn plain(raw: &[u8]) -> String {
    let spaced: Vec<u8> = raw.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    String::from_utf8_lossy(&percent_decode(&spaced)).into_owned()
}

/// What needs no percent-encoding in a path, a query and a form (RFC 3986, section 3.3), and separates nothing there.
pub(super) fn fits(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~@!$'()*,:".contains(&byte)
}
