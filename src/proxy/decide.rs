//! The first decisions about a request: whether it is refused, where it goes, and whether it
//! is admitted there.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TRANSFER_ENCODING};
use http::{Method, Version};
use ipnet::IpNet;
use log::debug;

use super::headers::{FORWARDING, Fields, REQUEST_ID};
use super::{EdgeProxy, ProxyConfig};
use crate::exchange::{Destination, Exchange, Failure, Hold, Request, Timeouts, keep_or_make};
use crate::http::Downstream;
use crate::upstream::Placement;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// It goes to a cell.
    Proxy,
    /// It is answered with this failure.
    Refuse(Failure),
    /// It asks what the edge serves.
    ShowConfig,
}

/// The head of a request, as far as decisions are made by it.
pub(super) struct Head<'h, F> {
    pub method: &'h Method,
    pub version: Version,
    /// The target as received.
    pub target: &'h [u8],
    pub path: &'h str,
    pub fields: &'h F,
}

impl EdgeProxy {
    /// Begins the exchange of a request.
    pub(super) fn begin(
        &self,
        downstream: Arc<Downstream>,
        head: &Head<'_, impl Fields>,
    ) -> Exchange {
        let length = head.fields.first(&CONTENT_LENGTH);
        let logged = self.recorder.access_log.is_enabled();
        let request = Request {
            id: keep_or_make(head.fields.first(&REQUEST_ID)),
            method: head.method.clone(),
            version: head.version,
            path: logged.then(|| String::from_utf8_lossy(head.target).into()),
            content_length: length
                .and_then(|length| std::str::from_utf8(length).ok()?.parse().ok()),
            key: head
                .fields
                .first(&self.config.routing_key)
                .map(Bytes::copy_from_slice),
        };
        Exchange::begin(
            self.recorder.clone(),
            self.lifecycle.request(),
            downstream,
            request,
            self.config.timeouts,
        )
    }

    /// Decides what becomes of a request.
    pub(super) fn decide(&self, exchange: &mut Exchange, head: &Head<'_, impl Fields>) -> Decision {
        let decided = self.refusal(exchange, head).map_or_else(
            || match self.asks_for_config(head) {
                true => Ok(Decision::ShowConfig),
                false => self.route(exchange, head).map(|()| Decision::Proxy),
            },
            Err,
        );
        decided.unwrap_or_else(|failure| {
            exchange.fail(failure);
            Decision::Refuse(failure)
        })
    }

    /// What the connection or the head has against the request.
    fn refusal(&self, exchange: &Exchange, head: &Head<'_, impl Fields>) -> Option<Failure> {
        if let Some(refusal) = exchange.downstream.refusal() {
            let client = exchange.client().peer;
            debug!(request_id = exchange.id_str(), client:%; "request refused: {refusal:?}");
            return Some(refusal.into());
        }
        let allowed = connection_options_allowed(head.fields, &self.config.routing_key);
        (!allowed).then_some(Failure::BAD_REQUEST)
    }

    fn asks_for_config(&self, head: &Head<'_, impl Fields>) -> bool {
        self.config.debug_config && head.method == Method::GET && head.path == "/debug/config"
    }

    /// Finds the placement of the request's key, and has it admitted there or at a fallback.
    fn route(&self, exchange: &mut Exchange, head: &Head<'_, impl Fields>) -> Result<(), Failure> {
        if head.fields.all(&self.config.routing_key).nth(1).is_some() {
            return Err(Failure::AMBIGUOUS_KEY);
        }
        if exchange.key().is_empty() {
            return Err(Failure::MISSING_KEY);
        }
        let destination = self.state.read(|generation| {
            let route = generation.table.route(exchange.key());
            Destination {
                placements: generation.placements.clone(),
                generation: generation.number,
                home: route.placement,
                reason: route.reason,
                hold: Hold::Nothing,
            }
        });
        let mut destination = destination.ok_or(Failure::NOT_READY)?;
        let (home, placements) = (destination.home, &destination.placements);
        let admitted = placements.admit(home, exchange.key(), exchange.started());
        let rejected = admitted.as_ref().err().copied();
        destination.hold = admitted.map_or_else(Hold::Rejected, Hold::Admitted);
        exchange.destination = Some(destination);
        if let Some(rejected) = rejected {
            return Err(count_rejection(exchange, rejected.into()));
        }
        self.taken(exchange).inspect_err(|_| {
            // Nothing comes of it, so it holds nothing.
            if let Some(destination) = &mut exchange.destination {
                destination.hold = Hold::Nothing;
            }
        })?;
        if head.version > Version::HTTP_10 && head.fields.has(&EXPECT) {
            exchange.downstream.expects_continue();
        }
        Ok(())
    }

    /// A placement took the request: its timeouts apply from here on.
    ///
    /// # Errors
    /// The request's body is larger than the placement takes.
    pub(super) fn taken(&self, exchange: &mut Exchange) -> Result<(), Failure> {
        let destination = exchange.destination.as_ref().ok_or(Failure::INTERNAL)?;
        let placement = destination.placement();
        let limit = placement.policy.max_request_body_bytes;
        exchange.set_timeouts(timeouts(&self.config, placement));
        match (limit, exchange.request.content_length) {
            (Some(limit), Some(length)) if length > limit => {
                Err(count_rejection(exchange, Failure::BODY_TOO_LARGE))
            }
            _ => Ok(()),
        }
    }

    /// `bytes` of the request's body were read so far. An announced length was checked before;
    /// this is for chunks.
    ///
    /// # Errors
    /// They are more than the placement takes. The engine has to close the connection to the
    /// cell, so that the cell cannot take a part for the whole.
    pub(super) fn body_read(&self, exchange: &mut Exchange, bytes: u64) -> Result<(), Failure> {
        let placement = exchange.destination.as_ref().map(Destination::placement);
        let limit = placement.and_then(|placement| placement.policy.max_request_body_bytes);
        match limit {
            Some(limit) if bytes > limit => {
                let failure = count_rejection(exchange, Failure::BODY_TOO_LARGE);
                exchange.fail(failure);
                Err(failure)
            }
            _ => Ok(()),
        }
    }
}

/// Counts a request that the placement did not take.
pub(super) fn count_rejection(exchange: &Exchange, failure: Failure) -> Failure {
    if let Some(destination) = &exchange.destination {
        let metrics = &destination.placement().state.metrics;
        metrics.rejected(failure.code);
    }
    failure
}

fn timeouts(config: &ProxyConfig, placement: &Placement) -> Timeouts {
    let (default, own) = (config.timeouts, &placement.policy.timeouts);
    Timeouts {
        connect: own.connect.unwrap_or(default.connect),
        response_header: own.response_header.unwrap_or(default.response_header),
        request: own.request.unwrap_or(default.request),
        stream_idle: own.stream_idle.unwrap_or(default.stream_idle),
        upstream_idle: own.upstream_idle.unwrap_or(default.upstream_idle),
    }
}

/// Whether `client` is one of the proxies in front of the edge that are believed.
pub(super) fn is_trusted(client: IpAddr, trusted: &[IpNet]) -> bool {
    let client = client.to_canonical();
    trusted.iter().any(|network| network.contains(&client))
}

/// The number of connection options at which Pingora fails a request, and only after it took
/// a connection to the cell.
const MAX_OPTIONS: usize = 10;

/// Whether the `Connection` header names only fields that may be removed.
///
/// A sender may name any field as meant for the next hop only (RFC 9110 §7.6.1). Naming the
/// fields that the edge itself sets or routes by would have them stripped after they were
/// decided on.
fn connection_options_allowed(fields: &impl Fields, routing_key: &HeaderName) -> bool {
    let options = fields
        .all(&CONNECTION)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty());
    options.enumerate().all(|(index, option)| {
        // Parsing checks that the option is a token.
        let name = HeaderName::from_bytes(option);
        index + 1 < MAX_OPTIONS && name.is_ok_and(|name| !is_protected(&name, routing_key))
    })
}

fn is_protected(name: &HeaderName, routing_key: &HeaderName) -> bool {
    name == routing_key
        || FORWARDING.contains(name)
        || [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn trust_is_by_network_and_sees_through_mapped_addresses() {
        let networks: Vec<IpNet> = ["10.0.0.0/8", "::1/128"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        for (client, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
        ] {
            let address = client
                .parse::<IpAddr>()
                .map(|client| is_trusted(client, &networks));
            assert_eq!(address, Ok(trusted), "{client}");
        }
    }

    #[test]
    fn fields_that_the_edge_decides_by_are_protected() {
        let key = HeaderName::from_static("x-routing-key");
        for (values, allowed) in [
            (vec![], true),
            (vec!["close"], true),
            (vec!["keep-alive, Upgrade"], true),
            (vec!["X-Custom", "close"], true),
            (vec!["1,2,3,4,5,6,7,8,9"], true),
            (vec!["1,2,3,4,5,6,7,8,9,10"], false),
            (vec!["1,2,3,4,5", "6,7,8,9,10"], false),
            (vec!["Host"], false),
            (vec!["close, X-Forwarded-For"], false),
            (vec!["x-routing-key"], false),
            (vec!["Transfer-Encoding"], false),
            (vec!["\"host\""], false),
            (vec![":authority"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(CONNECTION, HeaderValue::from_static(value));
            }
            assert_eq!(
                connection_options_allowed(&headers, &key),
                allowed,
                "{values:?}"
            );
        }
    }
}
