//! What can be wrong with one value.

use crate::compare::descriptors::DescriptorsError;

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A boolean that is none.
    #[error("`{0}` is neither true nor false; write one of the two")]
    Boolean(String),
    /// A whole number that is none.
    #[error("`{0}` is not a whole number; write digits, or hexadecimal such as 0x5AD0")]
    Number(String),
    /// A decimal number that is none.
    #[error("`{0}` is not a number; write one such as 1.5")]
    Decimal(String),
    /// A duration that is none.
    #[error("`{0}` is not a duration; write a number with its unit, such as 250ms, 30s, 10m or 1h")]
    Duration(String),
    /// A size that is none.
    #[error("`{0}` is not a size; write a number with its unit, such as 64KiB, 16MiB or 1GiB")]
    Size(String),
    /// A rate that is none.
    #[error("`{0}` is not a rate; write requests per second such as 500/s, or unlimited")]
    Rate(String),
    /// A number of bytes per second that is none.
    #[error("`{0}` is not a number of bytes per second; write one such as 100MiB/s, or unlimited")]
    ByteRate(String),
    /// A budget under which nothing could be captured whole.
    #[error(
        "`{0}` is too small to capture anything whole; write at least 64KiB/s, or `enabled: false` to copy nothing"
    )]
    Budget(String),
    /// A share of a core that is none.
    #[error("`{0}` is not a share of a core; write one such as 50% or 200%, or unlimited")]
    Cores(String),
    /// A network namespace that is none.
    #[error(
        "`{0}` is not a network namespace; write a name that `ip netns` shows, or pid:NUMBER for that of a process"
    )]
    NetNs(String),
    /// A share that is none.
    #[error("`{0}` is not a share; write one from 0% to 100%, such as 25%")]
    Share(String),
    /// A port or range of ports that is none.
    #[error("`{0}` is not a port; write a number from 1 to 65535 or a range such as 9000-9010")]
    Ports(String),
    /// A value outside its bounds.
    #[error("`{value}` is out of bounds; write a value from {least} to {most}")]
    Bounds {
        /// The value.
        value: String,
        /// The least possible value.
        least: String,
        /// The greatest possible value.
        most: String,
    },
    /// A word that is none of those possible.
    #[error("`{value}` is not possible; write {possible}")]
    Choice {
        /// The value.
        value: String,
        /// The possible ones.
        possible: &'static str,
    },
    /// Something that is planned and that this version does not do yet.
    #[error("not supported by this version yet; leave it out")]
    Unsupported,
    /// A value that is planned and that this version does not do yet.
    #[error("`{value}` is not supported by this version yet; write {possible}")]
    UnsupportedValue {
        /// The value.
        value: String,
        /// What is supported.
        possible: &'static str,
    },
    /// A required value is missing or empty.
    #[error("required, and nothing was given; {0}")]
    Required(&'static str),
    /// An empty string.
    #[error("the value is empty; give one or leave the key out")]
    Empty,
    /// Too many entries of a list.
    #[error("{count} entries are more than the {most} possible; leave some out")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// More connections to targets than can be kept out of the capture.
    #[error(
        "the limits of all targets come to {count} connections, idle ones included, and at most {most} can be kept out of \
         the capture; lower the concurrency of some"
    )]
    TooManyConnections {
        /// How many there could be.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A network that is none.
    #[error(
        "`{0}` is not a network; write an address with its prefix length, such as 10.0.0.0/8 or fd00::/8"
    )]
    Network(String),
    /// A glob that is none.
    #[error("`{value}` is not a glob ({problem}); `*` stands for anything within a segment")]
    Glob {
        /// The value.
        value: String,
        /// What the glob parser said.
        problem: String,
    },
    /// A path, glob or pattern that can never match.
    #[error("`{0}` matches no path, because paths begin with a slash; write /{0}")]
    NoSlash(String),
    /// An endpoint pattern that is none.
    #[error(
        "`{0}` is not an endpoint pattern; write a path in which whole segments may be {{names}}, such as /users/{{id}}"
    )]
    Endpoint(String),
    /// A JSON path that is none.
    #[error(
        "`{value}` is not a JSON path of RFC 9535 ({problem}); write one such as $.items[*].price or $..email"
    )]
    JsonPath {
        /// The value.
        value: String,
        /// What the parser said.
        problem: String,
    },
    /// A method that is none.
    #[error("`{0}` is not an HTTP method that can be replayed; write one in capitals, such as GET or POST")]
    Method(String),
    /// A header name that is none.
    #[error("`{0}` is not a header name; write letters, digits and dashes, such as x-api-key")]
    HeaderName(String),
    /// A cookie name that is none.
    #[error(
        "`{0}` is not the name of a cookie; write letters, digits, dashes and underscores, such as session_id"
    )]
    CookieName(String),
    /// An entry of a list of masks that names nothing, or two things.
    #[error(
        "the entry needs a `name`, or a `path` of JSON, and not both; write one such as {{ name: email, action: hash }}"
    )]
    MaskEntry,
    /// A name that no pattern can have.
    #[error(
        "`{0}` cannot be the name of a pattern; write up to 32 lower-case letters, digits, dashes and underscores, a letter first"
    )]
    PatternName(String),
    /// Two patterns with one name.
    #[error("`{0}` is the name of another pattern too; give each its own")]
    PatternTwice(String),
    /// A regular expression that is none, or takes too much memory.
    #[error(
        "`{value}` is not a regular expression that can be used ({problem}); write one such as EMP-[0-9]{{6}}"
    )]
    Pattern {
        /// The expression.
        value: String,
        /// What the parser said.
        problem: String,
    },
    /// A regular expression that is too long.
    #[error("the expression has {length} bytes, more than the {most} possible; write several shorter ones")]
    PatternLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        most: usize,
    },
    /// A regular expression that matches everywhere.
    #[error(
        "`{0}` matches the empty text, and so everywhere; write an expression that needs at least one character"
    )]
    PatternEmpty(String),
    /// A header that replay itself has to write.
    #[error("`{0}` is written by the agent itself and cannot be configured; leave it out")]
    HeaderReserved(String),
    /// A header value that cannot be sent. The value is not repeated: it may be a secret.
    #[error("the value has characters that a header cannot carry; write visible ASCII on one line")]
    HeaderValue,
    /// An interface name or glob that no interface can have.
    #[error(
        "`{0}` cannot be the name of an interface; write a name such as eth0 or a glob such as \"veth*\""
    )]
    Interface(String),
    /// A URL that is none.
    #[error("`{0}` is not a URL with a host; write one such as http://10.0.0.9:8080")]
    Url(String),
    /// TLS settings of a target that is not spoken to over TLS.
    #[error("`{0}` is spoken to without TLS; write an https:// URL or leave `tls` out")]
    TlsUnused(String),
    /// A certificate without its key, or a key without its certificate.
    #[error("a client certificate needs both `cert` and `key`; give both or neither")]
    TlsPair,
    /// What TLS needs cannot be used; says what, and the remedy.
    #[error("{0}")]
    TlsUnusable(String),
    /// A name that no certificate can be for.
    #[error("`{0}` is not a name that a certificate can be for; write a host name or an IP address")]
    ServerName(String),
    /// A host that is none.
    #[error("`{0}` is not a host; write preserve, target, or a host such as shop.example:8080")]
    Host(String),
    /// A secret from two places, or from none.
    #[error("a credential comes either from `file` or from `env`; write one of the two")]
    SecretSource,
    /// A name of a query parameter that would have to be encoded.
    #[error("`{0}` is not the name of a query parameter; write up to 256 letters, digits and -_.~[]")]
    ParameterName(String),
    /// Credentials that are never sent.
    #[error(
        "credentials of a target's own are sent only with `replay.credentials: replace`; write that or leave them out"
    )]
    CredentialsUnused,
    /// A credential cannot be read; says which and the remedy, and never the value.
    #[error("{0}")]
    Credentials(String),
    /// A query or a fragment in a target's URL.
    #[error("`{0}` has a query, and requests bring their own; write the URL without it")]
    UrlQuery(String),
    /// A user name or password in a URL. The value is not repeated: it is a secret.
    #[error(
        "the URL holds a user name or password; leave it out and set an authorization header under headers.set"
    )]
    UrlUser,
    /// A target name that cannot be a label.
    #[error(
        "`{0}` cannot be the name of a target; write up to 63 lower-case letters, digits, dashes and underscores"
    )]
    TargetName(String),
    /// Two targets with one name.
    #[error("`{0}` is the name of another target too; give each its own")]
    DuplicateName(String),
    /// Candidate and baseline are the same host.
    #[error(
        "`{url}` is the URL of the baseline and of `{candidate}`, so that no difference could ever be seen; give the baseline production's own version"
    )]
    BaselineIsCandidate {
        /// The URL.
        url: String,
        /// The name of the candidate.
        candidate: String,
    },
    /// An unsafe method that would reach a target which is not isolated.
    #[error(
        "`{method}` is not a safe method and `{target}` is not declared isolated; leave the method out, or declare (isolated: true, --isolated) that nothing this target writes reaches anybody"
    )]
    UnsafeMethod {
        /// The method.
        method: String,
        /// The target.
        target: String,
    },
    /// A rule that both skips and samples, or does neither.
    #[error("the rule for `{0}` needs either `sample` or `skip: true`; write one of the two")]
    Rule(String),
    /// A rule that lists an unsafe method and does not say what becomes of it.
    #[error(
        "the rule lists `{0}`, which is not a safe method, and nothing says what becomes of such requests; write \
         mode: skip, send, dry-run or record-only"
    )]
    RuleWithoutMode(String),
    /// A glob that is longer than a glob can be.
    #[error("the glob is longer than the {0} characters possible; shorten it, or make several of it")]
    GlobLength(usize),
    /// A status, class or range that is none.
    #[error("`{0}` is not a status; write one such as 404, a class such as 5xx, or a range such as 500-599")]
    Status(String),
    /// A media type that is none.
    #[error("`{0}` matches no media type; write one such as application/json, or a glob such as image/*")]
    MediaType(String),
    /// Sizes of which the least is more than the greatest.
    #[error("min is more than max, so that no body fits; swap the two")]
    Sizes,
    /// Dry runs, and nobody who understands them.
    #[error(
        "stateful requests are to be dry runs and no target declares that it understands them; write dry_run: true at \
         a target that does, or another mode"
    )]
    NoDryRun,
    /// A place in messages that is none.
    #[error("no place in a message is named that is possible here; write {0}")]
    Places(&'static str),
    /// A name that no cookie or parameter can have.
    #[error(
        "`{0}` cannot be the name of a cookie or parameter; write up to 256 visible characters without ; , and ="
    )]
    PlaceName(String),
    /// A pattern in which no token can be found.
    #[error(
        "`{0}` is not a path with a token in it; write one in which one segment is {{token}}, such as /carts/{{token}}/**"
    )]
    TokenPath(String),
    /// A file of which the kind cannot be told.
    #[error("`{0}` is of no kind that can be written; end its name in .gor, .gor.gz, .har or .pcapng")]
    RecordKind(String),
    /// Requests that are recorded only, and no file.
    #[error("required by the mode record-only; name a file such as /var/lib/shadow-agent/kept.gor.gz")]
    NoRecord,
    /// An address to listen on that is none.
    #[error(
        "`{0}` is not an address to listen on; write an IP address and a port such as 127.0.0.1:9465, or off"
    )]
    Listen(String),
    /// The admin API would be open to the network.
    #[error(
        "`{0}` is not a loopback address, and no token protects it; set admin.token_file to a file with a token, or listen on 127.0.0.1"
    )]
    NoToken(String),
    /// The token file cannot be read.
    #[error("`{path}` cannot be read ({problem}); put the token into that file, readable by this user")]
    TokenUnreadable {
        /// The file.
        path: String,
        /// What the system said.
        problem: String,
    },
    /// The token file holds no usable token.
    #[error("`{0}` holds no token; write one line of 16 to 4096 visible characters into it")]
    TokenUnusable(String),
    /// The descriptor file cannot be read.
    #[error(
        "`{path}` cannot be read ({problem}); give the file that `protoc --descriptor_set_out` has written"
    )]
    DescriptorsUnreadable {
        /// The file.
        path: String,
        /// What the system said.
        problem: String,
    },
    /// The descriptor file is larger than a descriptor set can be.
    #[error("`{path}` is larger than {most}; is it the right file?")]
    DescriptorsTooLarge {
        /// The file.
        path: String,
        /// The bound.
        most: String,
    },
    /// The descriptor file holds nothing that messages can be decoded by.
    #[error("`{path}` {error}")]
    Descriptors {
        /// The file.
        path: String,
        /// What is wrong with it, and the remedy.
        error: DescriptorsError,
    },
    /// A bound of which no shard's part can hold what another bound allows.
    #[error(
        "`{value}` leaves too little for {other_key} ({other}) in every shard; raise it to {least} or lower the other"
    )]
    LessThan {
        /// The value.
        value: String,
        /// The key of the other value.
        other_key: &'static str,
        /// The other value.
        other: String,
        /// The least that is enough.
        least: String,
    },
    /// A stage of a ramp that is none.
    #[error(
        "`{0}` is not a stage of a ramp; write a share and how long it lasts, such as 10% 1h, and for the last stage the \
         share alone, such as 100%"
    )]
    Stage(String),
    /// A stage of a ramp that is no step forward.
    #[error("`{share}` is not more than the stage before it ({before}); write shares that rise")]
    StageFalls {
        /// The share.
        share: String,
        /// That of the stage before.
        before: String,
    },
    /// A stage of a ramp that would last for ever, with another one behind it.
    #[error("`{0}` does not say how long it lasts, and it is not the last stage; write one such as {0} 10m")]
    StageWithoutEnd(String),
    /// The last stage of a ramp with an end.
    #[error("`{0}` is the last stage and lasts for good; leave the time out")]
    StageEnds(String),
    /// Something that a guard does not have.
    #[error("this guard has no {0}; leave it out")]
    GuardWithout(&'static str),
    /// Rings that are too small for a packet.
    #[error(
        "`{size}` over {shards} shards is less than {least} for each; raise the size or lower the number of shards"
    )]
    RingTooSmall {
        /// The size of all rings together.
        size: String,
        /// The number of shards.
        shards: u16,
        /// The least for one.
        least: String,
    },
}
