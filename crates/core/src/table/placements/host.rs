//! What a cell is told as its Host (RFC 9110, section 7.2).

use std::borrow::Cow;
use std::fmt;

use crate::table::endpoint::host_and_port;
use crate::table::locate::{NotText, Raw};
use crate::table::policy::HostHeader;
use crate::table::wording::{Quoted, nearest_within};

const PRESERVE: &str = "preserve";
const REWRITE: &str = "rewrite";

/// Why a value is none of a host header.
pub(super) enum NotHost<'a> {
    NotText(NotText<'a>),
    /// It is nearly this word, and would be a host.
    Slip(Cow<'a, str>, &'static str),
    /// In the words of who reads hosts.
    Invalid(String),
    /// `preserve`, for a probe.
    Preserve,
}

/// `preserve`, `rewrite`, or a host.
pub(super) fn host_header(value: Raw<'_>) -> Result<HostHeader, NotHost<'_>> {
    let text = value.string().map_err(NotHost::NotText)?;
    match &*text {
        PRESERVE => return Ok(HostHeader::Preserve),
        REWRITE => return Ok(HostHeader::Rewrite),
        _ => {}
    }
    // A slip in one of the words would be a valid host, sent to the cell. More
    // than one edit is another word: there are hosts called `presence`.
    if !text.contains(':')
        && let Some(word) = nearest_within([PRESERVE, REWRITE].into_iter(), &text, 1)
    {
        return Err(NotHost::Slip(text, word));
    }
    host_and_port(&text)
        .map(HostHeader::Fixed)
        .map_err(NotHost::Invalid)
}

/// `rewrite` or a host: a probe comes from no client whose host it could
/// preserve.
pub(super) fn probe_host(value: Raw<'_>) -> Result<Option<String>, NotHost<'_>> {
    match host_header(value)? {
        HostHeader::Rewrite => Ok(None),
        HostHeader::Fixed(host) => Ok(Some(host)),
        HostHeader::Preserve => Err(NotHost::Preserve),
    }
}

impl fmt::Display for NotHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(why) => why.fmt(f),
            Self::Slip(text, word) => write!(
                f,
                "unknown host {} (did you mean {}? a host of that name needs its port)",
                Quoted(text),
                Quoted(word)
            ),
            Self::Invalid(why) => write!(f, "{why}; also valid: {PRESERVE}, {REWRITE}"),
            Self::Preserve => write!(
                f,
                "{} has no meaning for probes, which come from no client \
                 (valid: {REWRITE} or a host)",
                Quoted(PRESERVE)
            ),
        }
    }
}
