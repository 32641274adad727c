//! What can be wrong.

/// Why a text is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first line is neither a request line nor a status line of SIP/2.0.
    #[error("bad start line")]
    StartLine,
    /// No empty line ends the header fields.
    #[error("the header fields have no end")]
    Unfinished,
    /// `Content-Length` is not a number, is told twice, or exceeds what came.
    #[error("bad content length")]
    Length,
    /// A header field that is needed is absent or cannot be read.
    #[error("missing or bad header field {0}")]
    Header(&'static str),
    /// Not a URI that can be taken apart.
    #[error("bad uri")]
    Uri,
    /// Neither a name-addr nor an addr-spec.
    #[error("bad address")]
    NameAddr,
    /// A control character where none may be.
    #[error("control character")]
    Control,
    /// Not a digest challenge, or one without realm or nonce.
    #[error("bad challenge")]
    Challenge,
    /// A digest challenge with an algorithm or a quality of protection that is not known here.
    #[error("unsupported challenge")]
    Unsupported,
}
