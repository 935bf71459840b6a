//! Canonical JSON (RFC 8785, JCS): no white space, members in the order of their names, no
//! unnecessary escapes.
//!
//! It relies on properties of valid documents: names are ASCII, so that their order by
//! UTF-16 is that by bytes; numbers are integers from 0 to 2^53, so that their text is
//! canonical already; and nesting is shallow.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::locate::{Member, Raw};

/// The object of `members`; members without a value are left out.
///
/// # Errors
///
/// A string in it is not valid text, such as an unpaired surrogate.
pub(super) fn object<'a>(
    members: impl IntoIterator<Item = (&'a str, Option<Raw<'a>>)>,
) -> Result<String, String> {
    let mut members: Vec<_> = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.into(), value?)))
        .collect();
    let mut text = String::new();
    write_members(&mut members, &mut text)?;
    Ok(text)
}

fn write_members<'a>(
    members: &mut [(Cow<'a, str>, Raw<'a>)],
    out: &mut String,
) -> Result<(), String> {
    members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    out.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        write(*value, out)?;
    }
    out.push('}');
    Ok(())
}

fn write(value: Raw<'_>, out: &mut String) -> Result<(), String> {
    if let Some(number) = value.number() {
        out.push_str(number);
    } else if value.is_string() {
        write_string(&text(value)?, out);
    } else if let Some(members) = members(value) {
        write_members(&mut members?, out)?;
    } else if let Some(Ok(elements)) = value.elements(usize::MAX) {
        out.push('[');
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            write(element, out)?;
        }
        out.push(']');
    } else {
        // true, false and null.
        out.push_str(&value.described().to_string());
    }
    Ok(())
}

fn text(value: Raw<'_>) -> Result<Cow<'_, str>, String> {
    value.string().map_err(|why| why.to_string())
}

type Members<'a> = Vec<(Cow<'a, str>, Raw<'a>)>;

/// The members of `value`; none if it is not an object.
fn members<'a>(value: Raw<'a>) -> Option<Result<Members<'a>, String>> {
    let mut members = Ok(Vec::new());
    let is_object = value.each_member(|Member { key, value }| match (&mut members, text(key)) {
        (Ok(members), Ok(name)) => {
            members.push((name, value));
            ControlFlow::Continue(())
        }
        (_, name) => {
            members = name.map(|_| Vec::new());
            ControlFlow::Break(())
        }
    });
    is_object.then_some(members)
}

/// Escapes as in RFC 8785, section 3.2.2.2. serde_json does the same.
fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_way_to_write_it() {
        let value = " { \"b\" : [ 1 , \"\\u0061\\/\\u20ac\" , null , true ] ,\r\n\t\"a\" : { \"\\u0062\" : {} , \"a\" : [] } } ";
        let value = Raw::parse(value).unwrap();
        assert_eq!(
            object([("z", Some(value)), ("absent", None), ("c", Some(value))]).unwrap(),
            r#"{"c":{"a":{"a":[],"b":{}},"b":[1,"a/€",null,true]},"z":{"a":{"a":[],"b":{}},"b":[1,"a/€",null,true]}}"#
        );
        let escapes = Raw::parse(r#""\u0000\u001F\u0008\t\n\u000c\r\"\\\u007f""#).unwrap();
        assert_eq!(
            object([("x", Some(escapes))]).unwrap(),
            "{\"x\":\"\\u0000\\u001f\\b\\t\\n\\f\\r\\\"\\\\\u{7f}\"}"
        );
        let half = Raw::parse(r#"["\ud800"]"#).unwrap();
        assert!(object([("x", Some(half))]).is_err());
    }
}
