//! What a cell is told as its Host (RFC 9110, section 7.2).

use crate::routing::endpoint::host_and_port;
use crate::routing::locate::Raw;
use crate::routing::policy::HostHeader;
use crate::routing::wording::{Quoted, nearest};

const PRESERVE: &str = "preserve";
const REWRITE: &str = "rewrite";

/// `preserve`, `rewrite`, or a host.
pub(super) fn host_header(value: Raw<'_>) -> Result<HostHeader, String> {
    let text = value.string()?;
    match &*text {
        PRESERVE => return Ok(HostHeader::Preserve),
        REWRITE => return Ok(HostHeader::Rewrite),
        _ => {}
    }
    // A slip in one of the words would be a valid host, sent to the cell.
    if !text.contains(':')
        && let Some(word) = nearest([PRESERVE, REWRITE].into_iter(), &text)
    {
        return Err(format!(
            "unknown host {} (did you mean {}? a host of that name needs its port)",
            Quoted(&text),
            Quoted(word)
        ));
    }
    host_and_port(&text)
        .map(HostHeader::Fixed)
        .map_err(|why| format!("{why}; also valid: {PRESERVE}, {REWRITE}"))
}

/// `rewrite` or a host: a probe comes from no client whose host it could
/// preserve.
pub(super) fn probe_host(value: Raw<'_>) -> Result<Option<String>, String> {
    match host_header(value)? {
        HostHeader::Rewrite => Ok(None),
        HostHeader::Fixed(host) => Ok(Some(host)),
        HostHeader::Preserve => Err(format!(
            "{} has no meaning for probes, which come from no client (valid: {REWRITE} or a host)",
            Quoted(PRESERVE)
        )),
    }
}
