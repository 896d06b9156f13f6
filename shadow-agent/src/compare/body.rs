//! Compares bodies by what they are: JSON by structure, text by line, anything else by its bytes.

use bytes::Bytes;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::json::{self, Ignored};
use super::place;
use super::weigh::{Findings, Other, Sort, ValueType};
use crate::content::{self, DecodeError};
use crate::exchange::{Response, UncomparableReason};
use crate::policy::mask::{Kept, Masker, Step};

/// A body as a whole, when no structure can be compared. An empty one counts as missing.
struct Whole<'a> {
    bytes: &'a [u8],
    document: Option<&'a Value>,
}

impl Whole<'_> {
    fn value_type(&self) -> ValueType {
        match self.document {
            Some(Value::Array(_)) => ValueType::Array,
            Some(_) => ValueType::Object,
            None => ValueType::Bytes,
        }
    }
}

/// The rules that bodies are compared by.
pub(super) struct Rules<'a> {
    pub ignore: &'a [JsonPath],
    pub masker: &'a Masker,
    pub limit: usize,
}

impl Rules<'_> {
    /// Enters the differences of two bodies.
    ///
    /// # Errors
    /// When one of them cannot be decoded. Without the other shadow's body nothing can be called noise, so an
    /// undecodable one counts as soon as there is any difference.
    pub(super) fn compare(
        &self,
        production: &Response,
        judged: &Response,
        other: Option<&Response>,
        findings: &mut Findings,
    ) -> Result<(), UncomparableReason> {
        if production.body == judged.body
            && production.headers.all("content-encoding").eq(judged.headers.all("content-encoding"))
        {
            return Ok(());
        }
        let ours = self.decode(production)?;
        let theirs = self.decode(judged)?;
        if ours == theirs {
            return Ok(());
        }
        let other = match other.map(|other| self.decode(other)).transpose() {
            Ok(other) => other,
            Err(reason) => {
                let mut alone = Findings::default();
                self.decoded(&ours, &theirs, None, form(production, judged, &ours, &theirs), &mut alone);
                return if alone.worst().is_some() { Err(reason) } else { Ok(()) };
            }
        };
        let form = form(production, judged, &ours, &theirs);
        self.decoded(&ours, &theirs, other.as_ref(), form, findings);
        Ok(())
    }

    pub(super) fn decode(&self, response: &Response) -> Result<Bytes, UncomparableReason> {
        content::decode(&response.headers, &response.body, self.limit).map_err(UncomparableReason::from)
    }

    fn decoded(
        &self,
        ours: &Bytes,
        theirs: &Bytes,
        other: Option<&Bytes>,
        form: Form,
        findings: &mut Findings,
    ) {
        match form {
            Form::Json => self.json(ours, theirs, other, findings),
            Form::Text => self.lines(ours, theirs, other, findings),
            Form::Bytes => self.wholes([ours, theirs], other, [None, None, None], findings),
        }
    }

    fn json(&self, ours: &Bytes, theirs: &Bytes, other: Option<&Bytes>, findings: &mut Findings) {
        let parse = |body: &Bytes| serde_json::from_slice::<Value>(body).ok();
        let documents = [parse(ours), parse(theirs), other.and_then(parse)];
        let [Some(our_document), Some(their_document), other_document] = &documents else {
            return self.wholes([ours, theirs], other, documents.each_ref().map(Option::as_ref), findings);
        };
        let other = other.map_or(Other::Silent, |_| Other::Says(other_document.as_ref()));
        self.documents([our_document, their_document], other, place::of_json, findings);
    }

    /// Enters the differences of two documents.
    pub(super) fn documents(
        &self,
        [ours, theirs]: [&Value; 2],
        other: Other<&Value>,
        place: fn(&[Step<'_>]) -> String,
        findings: &mut Findings,
    ) {
        let mut ignored = Ignored::default();
        let third = match &other {
            Other::Says(document) => *document,
            Other::Silent => None,
        };
        for document in [ours, theirs].into_iter().chain(third) {
            ignored.find(self.ignore, document);
        }
        json::compare(ours, theirs, other, &ignored, self.masker, place, findings);
    }

    fn lines(&self, ours: &[u8], theirs: &[u8], other: Option<&Bytes>, findings: &mut Findings) {
        let (mut ours, mut theirs) = (lines(ours), lines(theirs));
        let mut other = other.map(|other| lines(other));
        let sort: Sort<&[u8]> =
            Sort { same: |one, other| one == other, value_type: |_| ValueType::String, silenced: true };
        loop {
            let (our_line, their_line) = (ours.next(), theirs.next());
            let other_line = other.as_mut().map_or(Other::Silent, |other| Other::Says(other.next()));
            if (our_line.is_none() && their_line.is_none()) || findings.is_full() {
                return;
            }
            if let Some(found) = sort.weigh(our_line.as_ref(), their_line.as_ref(), &other_line) {
                let keep = |line: &[u8]| self.masker.keep_text(&String::from_utf8_lossy(line));
                findings.add(found, || "body:line".to_owned(), || (our_line.map(keep), their_line.map(keep)));
            }
        }
    }

    /// Enters at most one difference: that of the bodies as wholes.
    fn wholes(
        &self,
        [ours, theirs]: [&Bytes; 2],
        other: Option<&Bytes>,
        documents: [Option<&Value>; 3],
        findings: &mut Findings,
    ) {
        fn whole<'a>(bytes: &'a [u8], document: Option<&'a Value>) -> Option<Whole<'a>> {
            if bytes.is_empty() { None } else { Some(Whole { bytes, document }) }
        }
        let sort: Sort<Whole<'_>> = Sort {
            same: |one, other| one.bytes == other.bytes,
            value_type: Whole::value_type,
            silenced: true,
        };
        let [our_document, their_document, other_document] = documents;
        let other = other.map_or(Other::Silent, |other| Other::Says(whole(other, other_document)));
        let (ours, theirs) = (whole(ours, our_document), whole(theirs, their_document));
        if let Some(found) = sort.weigh(ours.as_ref(), theirs.as_ref(), &other) {
            let keep = |whole: &Whole<'_>| -> Kept<String> {
                match whole.document {
                    Some(document) => self.masker.keep_json(&self.masker.document(document), &[]),
                    None => self.masker.keep_digest(whole.bytes),
                }
            };
            findings.add(
                found,
                || "body".to_owned(),
                || (ours.as_ref().map(keep), theirs.as_ref().map(keep)),
            );
        }
    }
}

impl From<DecodeError> for UncomparableReason {
    fn from(error: DecodeError) -> UncomparableReason {
        match error {
            DecodeError::TooLarge(_) | DecodeError::Bomb => UncomparableReason::TooLarge,
            DecodeError::Unknown(_) | DecodeError::Broken(_) | DecodeError::TooMany(_) => {
                UncomparableReason::Encoding
            }
        }
    }
}

/// What a pair of bodies is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Text,
    Bytes,
}

/// JSON when either side says so, or when neither says anything better and both begin like it.
fn form(production: &Response, judged: &Response, ours: &[u8], theirs: &[u8]) -> Form {
    let types = [content::media_type(&production.headers), content::media_type(&judged.headers)];
    if types.iter().flatten().any(|media_type| content::is_json(media_type)) {
        return Form::Json;
    }
    let vague = |media_type: &Option<String>| matches!(media_type.as_deref(), None | Some("text/plain"));
    if types.iter().all(vague) && content::begins_like_json(ours) && content::begins_like_json(theirs) {
        return Form::Json;
    }
    let text = |media_type: &Option<String>| media_type.as_deref().is_some_and(is_text);
    if types.iter().all(text) { Form::Text } else { Form::Bytes }
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/")
        || media_type.ends_with("+xml")
        || matches!(media_type, "application/xml" | "application/javascript")
}

/// Lines without their line feeds; an empty body has none.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let count = if body.is_empty() { 0 } else { usize::MAX };
    body.split(|&byte| byte == b'\n').take(count)
}
