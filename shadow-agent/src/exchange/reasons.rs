//! Every reason for which an exchange, a request or an answer is not used, by its name in labels and reports.

use std::fmt;

/// Declares an enum of reasons with a stable snake-case name each, as used in metric labels and reports.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of declaration; its position is `reason as usize`.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The name in labels and reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why an exchange is deliberately not replayed.
    SkipReason {
        /// The method is not selected.
        Method = "method",
        /// A selection rule, built-in or configured, skips the path.
        Rule = "rule",
        /// Sampled out in userspace by a rule's share.
        Sampled = "sampled",
        /// The request carries credentials and the operator has not decided what to do with them.
        Credentials = "credentials",
        /// The request is a replayed one, or was caused by one.
        Marked = "marked",
        /// The kill switch is off.
        Disabled = "disabled",
        /// Production answered 304: there is nothing to compare.
        NotModified = "not_modified",
        /// The response is an event stream.
        Streaming = "streaming",
        /// A body is larger than `limits.body`.
        BodyTooLarge = "body_too_large",
        /// The connection is TLS.
        Tls = "tls",
        /// A header field of HTTP/2 refers to what was sent before capture began, or in a gap.
        HeaderTable = "header_table",
        /// The connection changed protocol (101) or became a tunnel (CONNECT).
        Upgrade = "upgrade",
        /// The connection is not HTTP.
        NotHttp = "not_http",
        /// Masking for the shadow could not be applied to the body (fail closed).
        Unmaskable = "unmaskable",
        /// Its connection is outside of the share that the ramp replays at present.
        Ramp = "ramp",
        /// Its request is not sent; it is kept in a file instead.
        Recorded = "recorded",
        /// It was to be kept in a file, and could not be written.
        NotRecorded = "not_recorded",
        /// A masking rule with the action `drop-exchange` found something.
        DropExchange = "drop_exchange",
        /// The self-check found something that masking should have hidden (fail closed).
        MaskFailed = "mask_failed",
    }
}

reasons! {
    /// Why an exchange that should have been whole is not.
    LostReason {
        /// Bytes of the stream are missing.
        Gap = "gap",
        /// The connection ended before the response did.
        Truncated = "truncated",
        /// The connection was reset before the response ended.
        Reset = "reset",
        /// The flow was evicted: table full, buffers full, or idle for too long.
        Evicted = "evicted",
        /// No response within `limits.exchange_timeout`.
        Timeout = "timeout",
        /// The bytes violate the protocol.
        Malformed = "malformed",
        /// A response without the request it belongs to.
        Unpaired = "unpaired",
        /// The asynchronous side did not keep up.
        Backlog = "backlog",
        /// The agent stopped while the exchange was under way.
        Shutdown = "shutdown",
        /// Sampling was lowered while the exchange was under way, and left its flow out.
        SampledOut = "sampled_out",
        /// The byte budget left its flow out while the exchange was under way.
        Shed = "shed",
    }
}

reasons! {
    /// Why a request was not sent to a target at all.
    DropReason {
        /// The target's queue is full.
        Queue = "queue",
        /// The target's rate limit is used up.
        Rate = "rate",
        /// The target's circuit breaker is open.
        Breaker = "breaker",
        /// No slot under the concurrency limit became free in time.
        Concurrency = "concurrency",
        /// Answers that wait for those of another target fill the memory that they may take.
        Memory = "memory",
        /// The agent's own host had no connection for it: no file descriptor or port, or no room to register it.
        Socket = "socket",
        /// The kill switch was thrown before sending.
        Disabled = "disabled",
        /// The agent stopped before sending.
        Shutdown = "shutdown",
        /// A guard paused the target.
        Paused = "paused",
        /// It is a dry run, and the target does not declare that it understands what that is.
        DryRun = "dry_run",
        /// Its turn in its session did not come in time, or too many of the session waited already.
        Order = "order",
        /// It carries a value that production issued, and the target has issued none in its place.
        Token = "token",
    }
}

reasons! {
    /// Why a request that was sent got no usable answer.
    FailReason {
        /// No connection could be made.
        Connect = "connect",
        /// No complete answer within the target's timeout.
        Timeout = "timeout",
        /// The connection was closed or reset before the answer ended.
        Closed = "closed",
        /// The answer is not valid HTTP.
        Malformed = "malformed",
        /// The answer's body is larger than `limits.body`.
        BodyTooLarge = "body_too_large",
        /// The request cannot be expressed to the shadow.
        Request = "request",
        /// The agent stopped before the answer ended.
        Shutdown = "shutdown",
        /// The agent itself stood still meanwhile, so that nobody knows what the target would have done.
        Stalled = "stalled",
        /// There is no TLS with the target: an invalid certificate, an alert, or no protocol in common.
        Tls = "tls",
    }
}

reasons! {
    /// Why an answer cannot be compared.
    UncomparableReason {
        /// The request was altered by masking and there is no baseline to compare with.
        MaskedRequest = "masked_request",
        /// Production's response was masked when it was recorded, and the answer cannot be masked like it.
        MaskedResponse = "masked_response",
        /// A body cannot be decoded: broken or unknown content-encoding.
        Encoding = "encoding",
        /// A decoded body is larger than the cap, or made of more gRPC messages than are compared.
        TooLarge = "too_large",
        /// A gRPC body is not a sequence of whole messages.
        Framing = "framing",
        /// The baseline did not answer, so a difference cannot be told from noise.
        NoBaseline = "no_baseline",
    }
}

pub(crate) use reasons;
