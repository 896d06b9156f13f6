//! Compares what gRPC says beside and within the body: its status, its message, and the messages of a call.
//!
//! The protocol is that of grpc/grpc, doc/PROTOCOL-HTTP2.md. Other trailers are not compared.

use prost_reflect::MessageDescriptor;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::body::Rules;
use super::weigh::{Findings, Other, Sort, ValueType, Weight};
use super::{descriptors, place};
use crate::content;
use crate::exchange::{Response, UncomparableReason};
use crate::policy::mask::Masker;
use crate::policy::percent_decode;

mod frames;

/// The place of a difference in gRPC's own status.
pub(super) const PLACE_STATUS: &str = "grpc-status";

const PLACE_MESSAGE: &str = "grpc-message";

/// The status codes in their order, with the HTTP status that stands for each (google/rpc/code.proto). Those from 500 on
/// say that the server is at fault.
const CODES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

/// What stands for a status that is missing or no known code: clients take it for UNKNOWN.
const NO_CODE: u16 = 500;

/// A status: the same twice when a client would take it for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    Code(u32),
    /// Something that is no number.
    Other(Vec<u8>),
}

const STATUS: Sort<Status> = Sort { same: Status::eq, value_type: |_| ValueType::Number, silenced: false };

const MESSAGE: Sort<Vec<u8>> = Sort { same: Vec::eq, value_type: |_| ValueType::String, silenced: true };

/// Whether a response is gRPC: `application/grpc`, or that with a `+` and the name of a message format.
pub(super) fn is_grpc(response: &Response) -> bool {
    content::media_type(&response.headers).is_some_and(|media_type| format(&media_type).is_some())
}

/// The message format of a media type of gRPC, `proto` when it names none.
fn format(media_type: &str) -> Option<&str> {
    match media_type.strip_prefix("application/grpc")? {
        "" => Some("proto"),
        rest => rest.strip_prefix('+'),
    }
}

/// The HTTP status that stands for what a response says: its own, or, of gRPC, which says 200 whatever happened, that of
/// the code in `grpc-status`. UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS are errors of
/// the server (from 500 on), as is a status that is missing.
#[must_use]
pub fn http_status(response: &Response) -> u16 {
    if response.status != 200 || !is_grpc(response) {
        return response.status;
    }
    match status(response) {
        Some(Status::Code(code)) => known(code).map_or(NO_CODE, |&(_, status)| status),
        Some(Status::Other(_)) | None => NO_CODE,
    }
}

fn known(code: u32) -> Option<&'static (&'static str, u16)> {
    CODES.get(usize::try_from(code).ok()?)
}

/// A field of the trailers, or of the headers when there is nothing but them ("Trailers-Only").
fn field<'a>(response: &'a Response, name: &str) -> Option<&'a [u8]> {
    let value = response.trailers.get(name).or_else(|| response.headers.get(name))?;
    Some(value.trim_ascii())
}

fn status(response: &Response) -> Option<Status> {
    if !is_grpc(response) {
        return None;
    }
    let value = field(response, PLACE_STATUS)?;
    let code = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    Some(code.map_or_else(|| Status::Other(value.to_vec()), Status::Code))
}

/// The message that explains a status, its percent-encoding undone; an empty one is none.
fn message(response: &Response) -> Option<Vec<u8>> {
    let value = if is_grpc(response) { field(response, PLACE_MESSAGE)? } else { return None };
    if value.is_empty() { None } else { Some(percent_decode(value).into_owned()) }
}

/// Enters a difference in `grpc-status`; gives its weight for the answer that is judged.
pub(super) fn compare_status(
    production: &Response,
    judged: &Response,
    other: Option<&Response>,
    masker: &Masker,
    findings: &mut Findings,
) -> Option<Weight> {
    let (ours, theirs) = (status(production), status(judged));
    let other = other.map_or(Other::Silent, |other| Other::Says(status(other)));
    let found = STATUS.weigh(ours.as_ref(), theirs.as_ref(), &other)?;
    let keep = |status: &Status| match status {
        Status::Code(code) => {
            let name = known(*code).map_or("unknown", |(name, _)| name);
            masker.keep_header(PLACE_STATUS, format!("{code} {name}").as_bytes())
        }
        Status::Other(value) => masker.keep_header(PLACE_STATUS, value),
    };
    findings.add(found, || PLACE_STATUS.to_owned(), || (ours.as_ref().map(keep), theirs.as_ref().map(keep)));
    Some(found.1)
}

/// Enters a difference in `grpc-message`.
pub(super) fn compare_message(
    production: &Response,
    judged: &Response,
    other: Option<&Response>,
    masker: &Masker,
    findings: &mut Findings,
) {
    let (ours, theirs) = (message(production), message(judged));
    let other = other.map_or(Other::Silent, |other| Other::Says(message(other)));
    if let Some(found) = MESSAGE.weigh(ours.as_ref(), theirs.as_ref(), &other) {
        let keep = |message: &Vec<u8>| masker.keep_header(PLACE_MESSAGE, message);
        findings.add(
            found,
            || PLACE_MESSAGE.to_owned(),
            || (ours.as_ref().map(keep), theirs.as_ref().map(keep)),
        );
    }
}

impl Rules<'_> {
    /// Enters the differences of the messages of two calls whose method answers with `answer`, as far as that is known.
    ///
    /// # Errors
    /// When a body is not made of whole messages, or one of these cannot be decompressed. The other shadow's counts as
    /// soon as there is any difference.
    pub(super) fn compare_messages(
        &self,
        production: &Response,
        judged: &Response,
        other: Option<&Response>,
        answer: Option<&MessageDescriptor>,
        findings: &mut Findings,
    ) -> Result<(), UncomparableReason> {
        let alike = |name: &str| production.headers.all(name).eq(judged.headers.all(name));
        if production.body == judged.body
            && ["content-encoding", "content-type", frames::ENCODING].into_iter().all(alike)
        {
            return Ok(());
        }
        let ours = self.messages(production, answer)?;
        let theirs = self.messages(judged, answer)?;
        if ours == theirs {
            return Ok(());
        }
        let other = other.map(|other| is_grpc(other).then(|| self.messages(other, answer)).transpose());
        match other.transpose() {
            Ok(other) => {
                let other = other.as_ref().map_or(Other::Silent, |other| Other::Says(other.as_ref()));
                self.documents([&ours, &theirs], other, place::of_message, findings);
                Ok(())
            }
            Err(reason) => {
                let mut alone = Findings::default();
                self.documents([&ours, &theirs], Other::Silent, place::of_message, &mut alone);
                if alone.worst().is_some() { Err(reason) } else { Ok(()) }
            }
        }
    }

    /// The messages of a response as one document, an array. What cannot be decoded is there by its bytes.
    fn messages(
        &self,
        response: &Response,
        answer: Option<&MessageDescriptor>,
    ) -> Result<Value, UncomparableReason> {
        let body = self.decode(response)?;
        let media_type = content::media_type(&response.headers).unwrap_or_default();
        let is_json = format(&media_type) == Some("json");
        let messages = frames::messages(&response.headers, &body, self.limit)?;
        let documents = messages.iter().map(|message| {
            let (decoded, kind) = match answer {
                _ if is_json => (serde_json::from_slice(message).ok(), "no JSON: "),
                Some(answer) => (descriptors::decode(answer, message), "undecodable: "),
                None => (None, ""),
            };
            decoded.unwrap_or_else(|| {
                Value::String(descriptors::digest(kind, message.len(), &Sha256::digest(message)))
            })
        });
        Ok(Value::Array(documents.collect()))
    }
}

#[cfg(test)]
mod tests;
