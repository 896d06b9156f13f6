//! Why a captured request cannot be expressed to a shadow.

use http::Method;
use http::header::{InvalidHeaderName, InvalidHeaderValue, MaxSizeReached};
use http::uri::{InvalidUri, InvalidUriParts};

/// Why a request cannot be expressed to the shadow.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsendable {
    #[error("its target or its host is not a valid one: {0}")]
    Target(#[from] InvalidUri),
    #[error("its target carries a fragment")]
    Fragment,
    #[error("its target and its host make no URL: {0}")]
    Url(#[from] InvalidUriParts),
    #[error("its host carries user information")]
    UserInfo,
    #[error("the method {0} needs a tunnel")]
    Method(Method),
    #[error("gRPC needs HTTP/2")]
    Grpc,
    #[error("a field name is not valid: {0}")]
    Name(#[from] InvalidHeaderName),
    #[error("a field value is not valid: {0}")]
    Value(#[from] InvalidHeaderValue),
    #[error("it has too many fields: {0}")]
    Fields(#[from] MaxSizeReached),
}
