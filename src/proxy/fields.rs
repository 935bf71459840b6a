//! Looking for header fields.
//!
//! A message has a handful of fields: comparing their names with the one that is
//! looked for costs less than hashing that one, which is what the map itself does.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The values of `name`, in their order.
pub(super) fn all<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h HeaderValue> {
    let fields = headers.iter().filter(move |(field, _)| *field == name);
    fields.map(|(_, value)| value)
}

/// The first value of `name`.
pub(super) fn first<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    all(headers, name).next()
}

/// Whether there is a field `name`.
pub(super) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|field| field == name)
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HOST, VIA};

    use super::*;

    #[test]
    fn finds_what_the_map_finds() {
        let mut headers = HeaderMap::new();
        let own = HeaderName::from_static("x-own");
        for (name, value) in [
            (&own, "1"),
            (&VIA, "a"),
            (&HOST, "h"),
            (&own, "2"),
            (&VIA, "b"),
            (&own, "3"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        for name in [&own, &VIA, &HOST, &ACCEPT] {
            let found: Vec<_> = all(&headers, name).collect();
            assert_eq!(found, headers.get_all(name).iter().collect::<Vec<_>>());
            assert_eq!(first(&headers, name), headers.get(name));
            assert_eq!(has(&headers, name), headers.contains_key(name));
        }
    }
}
