//! What the filters still have to refuse of a request whose framing is sound.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};

use super::fields;
use crate::http::ORIGIN_FIELDS;

/// Connection options the proxy library handles; it fails at this many, and only
/// after it took a connection to the cell.
const MAX_OPTIONS: usize = 10;

/// Whether the `Connection` header asks only for what may be removed.
///
/// A sender may name any field as meant for the next hop only (RFC 9110 §7.6.1);
/// naming the fields that the edge itself sets or routes by would have them
/// stripped after they were decided on.
pub(super) fn connection_options_allowed(headers: &HeaderMap, routing_key: &HeaderName) -> bool {
    let options = fields::all(headers, &CONNECTION)
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty());
    let mut count = 0;
    for option in options {
        count += 1;
        // The parse checks that the option is a token.
        let Ok(name) = HeaderName::from_bytes(option) else {
            return false;
        };
        if count >= MAX_OPTIONS || is_protected(&name, routing_key) {
            return false;
        }
    }
    true
}

fn is_protected(name: &HeaderName, routing_key: &HeaderName) -> bool {
    name == routing_key
        || ORIGIN_FIELDS.contains(&name.as_str())
        || [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn protects_what_the_edge_decides_by() {
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
