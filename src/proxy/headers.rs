//! How heads change on their way: what a request loses and gains towards the cell, and an
//! answer towards the client.
//!
//! All of it is decided here, as a short list of [`Change`]s, and applied by the engine that
//! holds the head, in whatever form it has it.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;

use crate::exchange::{Destination, Exchange, Request};
use crate::table::HostHeader;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The fields that tell a cell whom a request comes from (RFC 7239 §5, and what was in use
/// before it) and which request it is.
pub(super) static FORWARDING: [HeaderName; 5] = [
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    REQUEST_ID,
];

/// The fields that tell a client about its request. A cell cannot set them.
static ROUTING: [HeaderName; 5] = [
    REQUEST_ID,
    HeaderName::from_static("x-routed-to"),
    HeaderName::from_static("x-route-reason"),
    HeaderName::from_static("x-failover-reason"),
    HeaderName::from_static("x-circuit-state"),
];

/// The fields that concern one connection only (RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    UPGRADE,
];

/// One change of a head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Remove every field of this name.
    Remove(HeaderName),
    /// Set this field, in the place of every field of its name. The name is as it is sent.
    Set(&'static str, HeaderValue),
}

/// Changes in the order in which they are applied.
pub(super) type Changes = SmallVec<[Change; 8]>;

/// The fields of a head, in whatever form an engine has them.
pub(super) trait Fields {
    /// The values of `name`, in their order.
    fn all<'f>(&'f self, name: &'f HeaderName) -> impl Iterator<Item = &'f [u8]>;

    /// The first value of `name`.
    fn first<'f>(&'f self, name: &'f HeaderName) -> Option<&'f [u8]> {
        self.all(name).next()
    }

    /// Whether there is a field `name`.
    fn has(&self, name: &HeaderName) -> bool {
        self.first(name).is_some()
    }

    /// The first value of `name`, to set another field to.
    fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.first(name)?).ok()
    }
}

impl Fields for HeaderMap {
    /// A head has a handful of fields: comparing their names costs less than hashing the one
    /// that is looked for, which is what the map's own methods do.
    fn all<'f>(&'f self, name: &'f HeaderName) -> impl Iterator<Item = &'f [u8]> {
        let fields = self.iter().filter(move |(field, _)| *field == name);
        fields.map(|(_, value)| value.as_bytes())
    }

    fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        let mut fields = self.iter();
        fields
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value.clone())
    }
}

/// How a request changes towards the cell: whom it comes from, which Host it is for. `target`
/// is the request's as received. What an untrusted client claims in those fields is replaced.
pub(super) fn to_cell(
    exchange: &Exchange,
    trusted: bool,
    target: &[u8],
    fields: &impl Fields,
) -> Changes {
    let mut changes = Changes::new();
    let client = exchange.client();
    let given = |name: &HeaderName| trusted && fields.has(name);

    let from = match given(&FORWARDED_FOR) {
        true => appended(fields, &client.ip_header),
        false => client.ip_header.clone(),
    };
    changes.push(Change::Set("X-Forwarded-For", from));
    if !given(&FORWARDED_PROTO) {
        let scheme = HeaderValue::from_static(client.transport.scheme());
        changes.push(Change::Set("X-Forwarded-Proto", scheme));
    }
    let host = fields.value(&HOST);
    // HTTP/1.1, which the cell is sent, requires one (RFC 9112 §3.2).
    let missing = host.is_none();
    let host = host.unwrap_or_else(|| {
        let authority = absolute(target).map_or(&b""[..], |(authority, _)| authority);
        HeaderValue::from_bytes(authority).unwrap_or(HeaderValue::from_static(""))
    });
    if !given(&FORWARDED_HOST) {
        changes.push(Change::Set("X-Forwarded-Host", host.clone()));
    }
    if !trusted && fields.has(&FORWARDED) {
        changes.push(Change::Remove(FORWARDED));
    }
    changes.push(Change::Set("X-Request-Id", exchange.id().clone()));
    if exchange.request.version == Version::HTTP_10 && fields.has(&EXPECT) {
        changes.push(Change::Remove(EXPECT));
    }
    match exchange.destination.as_ref().and_then(host_of_placement) {
        Some(host) => changes.push(Change::Set("Host", host)),
        None if missing => changes.push(Change::Set("Host", host)),
        None => {}
    }
    changes
}

/// The addresses given so far, then ours; several fields are one list (RFC 9110 §5.3).
fn appended(fields: &impl Fields, client: &HeaderValue) -> HeaderValue {
    let mut list = Vec::new();
    for value in fields.all(&FORWARDED_FOR) {
        if !value.is_empty() && value.is_ascii() {
            list.extend_from_slice(value);
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(client.as_bytes());
    // Made of header values, so it is one.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).unwrap_or_else(|_| client.clone())
}

/// The Host that the placement asks for; `None` for the client's.
fn host_of_placement(destination: &Destination) -> Option<HeaderValue> {
    let placement = destination.placement();
    match &placement.policy.host_header {
        HostHeader::Rewrite => {
            let attempt = destination.attempt()?;
            Some(attempt.backend().origin.authority.clone())
        }
        HostHeader::Fixed(_) => placement.fixed_host.clone(),
        HostHeader::Preserve => None,
    }
}

/// Authority and path of a target in absolute form.
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    if matches!(target.first(), None | Some(b'/' | b'*')) {
        return None;
    }
    let scheme = memchr::memmem::find(target, b"://")?;
    let rest = target.get(scheme + 3..)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    Some(rest.split_at(end.unwrap_or(rest.len())))
}

/// The origin form of a target in absolute form, because a cell is an origin server (RFC 9112
/// §3.2.1); `*` for an OPTIONS without a path (§3.2.4). `None`: the target stays as it is.
pub(super) fn origin_form(method: &Method, target: &[u8]) -> Option<Vec<u8>> {
    let (_, path) = absolute(target)?;
    Some(match path {
        [b'/', ..] => path.to_vec(),
        [_, ..] => [b"/", path].concat(),
        [] if *method == Method::OPTIONS => b"*".to_vec(),
        [] => b"/".to_vec(),
    })
}

/// How a cell's answer changes towards the client.
pub(super) fn to_client(exchange: &Exchange, status: StatusCode, fields: &impl Fields) -> Changes {
    let mut changes = Changes::new();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        // In a 101 they are the message (RFC 9110 §7.8).
        hop_by_hop(status, fields, &mut changes);
    }
    // A cell cannot say these things in the edge's name.
    let claimed = ROUTING.iter().filter(|name| fields.has(name));
    changes.extend(claimed.cloned().map(Change::Remove));
    if !is_interim(status) {
        framing(&exchange.request, status, fields, &mut changes);
        changes.extend(routing(exchange));
    }
    changes
}

/// Whether an answer is followed by another: 101 is a final one, other 1xx are not.
pub(super) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Removes what concerned only the connection to the cell. `Connection` itself is written
/// anew for every response.
fn hop_by_hop(status: StatusCode, fields: &impl Fields, changes: &mut Changes) {
    // 426 has to say which protocol it asks for (RFC 9110 §15.5.22).
    let keeps = |name: &HeaderName| *name == UPGRADE && status == StatusCode::UPGRADE_REQUIRED;
    let named = fields
        .all(&CONNECTION)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // Most cells only say whether they close; that names no field.
        .filter(|option| {
            !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive")
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        // A cell cannot have its framing taken away by naming it.
        .filter(|name| ![CONTENT_LENGTH, TRANSFER_ENCODING].contains(name));
    let always = HOP_BY_HOP.iter().cloned();
    let removed = named.chain(always);
    let removed = removed.filter(|name| !keeps(name) && fields.has(name));
    changes.extend(removed.map(Change::Remove));
}

/// Frames the answer for the client that asked.
fn framing(request: &Request, status: StatusCode, fields: &impl Fields, changes: &mut Changes) {
    let mut remove = |name: HeaderName| {
        if fields.has(&name) {
            changes.push(Change::Remove(name));
        }
    };
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6, RFC 9112 §6.1.
        remove(CONTENT_LENGTH);
        remove(TRANSFER_ENCODING);
        return;
    }
    if request.version == Version::HTTP_10 {
        // It knows no chunks: the end of the body is the end of the connection
        // (RFC 9112 §6.3).
        remove(TRANSFER_ENCODING);
    }
    // Equal repeats were accepted; the client gets one.
    if let Some(length) = one_of_many(fields.all(&CONTENT_LENGTH)) {
        changes.push(Change::Set("Content-Length", length));
    }
}

/// The first of equal lengths; `None` if there is only one, or none at all.
fn one_of_many<'f>(mut lengths: impl Iterator<Item = &'f [u8]>) -> Option<HeaderValue> {
    let first = lengths.next()?;
    if lengths.next().is_none() && !first.contains(&b',') {
        return None;
    }
    let one = first.split(|byte| *byte == b',').next().unwrap_or_default();
    HeaderValue::from_bytes(one.trim_ascii()).ok()
}

/// Whether the client can tell the end of the answer's body by anything else than the end of
/// the connection.
pub(super) fn is_delimited(request: &Request, status: StatusCode, fields: &impl Fields) -> bool {
    request.version != Version::HTTP_10
        || request.method == Method::HEAD
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
        || fields.has(&CONTENT_LENGTH)
}

/// What every final answer tells the client: under which id its request is known, where it
/// went, and why.
pub(super) fn routing(exchange: &Exchange) -> Changes {
    let mut set = Changes::new();
    set.push(Change::Set("X-Request-Id", exchange.id().clone()));
    let Some(destination) = &exchange.destination else {
        return set;
    };
    let placement = destination.placement().name_header.clone();
    set.push(Change::Set("X-Routed-To", placement));
    let mut add = |name, value| set.push(Change::Set(name, HeaderValue::from_static(value)));
    add("X-Route-Reason", destination.reason.as_str());
    if let Some(reason) = destination.failover() {
        add("X-Failover-Reason", reason.as_str());
    }
    if let Some(state) = destination.circuit() {
        add("X-Circuit-State", state.as_str());
    }
    set
}

#[cfg(test)]
mod tests;
