//! Where the edge listens; no two listeners may use one port.

use std::net::SocketAddr;

use super::reader::{At, Reader, Section};
use super::yaml::Node;
use super::{Listen, Settings, value};

/// The places of the listeners in the file, for problems that are found after `PORT` is
/// applied.
pub(super) struct Listeners<'a> {
    /// One for each listener; empty if they are the default.
    listen: Vec<At<'a>>,
    admin: Option<At<'a>>,
}

/// Reads `listen` and `admin_listen`.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    settings: &mut Settings,
) -> Listeners<'a> {
    let mut places = Vec::new();
    if let Some(at) = section.get("listen") {
        let (listen, at) = read_list(reader, at).into_iter().unzip();
        settings.listen = listen;
        places = at;
    }
    reader.set(
        section,
        "admin_listen",
        &mut settings.admin_listen,
        value::socket_address,
    );
    Listeners {
        listen: places,
        admin: section.get("admin_listen").cloned(),
    }
}

fn read_list<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Vec<(Listen, At<'a>)> {
    let want = "a list of addresses, such as [0.0.0.0:8080]";
    let items = reader.list(at, want);
    if items.as_ref().is_some_and(Vec::is_empty) {
        reader.problem(at, format!("got an empty list, want {want}"));
    }
    let items = items.unwrap_or_default().into_iter();
    items
        .filter_map(|at| Some((read_one(reader, &at)?, at)))
        .collect()
}

/// An address, or a map with one: `{address: 0.0.0.0:8080}`.
fn read_one<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Option<Listen> {
    let address = match at.node {
        Node::Map(_) => {
            let listener = reader.section_at(at, "cellgate.listen[]");
            if listener.get("address").is_none() {
                let message = "got no address, want a map such as {address: 0.0.0.0:8080}";
                reader.problem(at, message.to_owned());
            }
            reader.read(&listener, "address", value::socket_address)
        }
        node => value::socket_address(node)
            .map_err(|message| reader.problem(at, message))
            .ok(),
    };
    address.map(|address| Listen { address })
}

/// Refuses listeners that use the same port. `port_from` is the variable that set the
/// first one's port.
pub(super) fn check<'a>(
    reader: &mut Reader<'a>,
    settings: &Settings,
    places: &Listeners<'a>,
    port_from: Option<&str>,
) {
    let mut all: Vec<(String, SocketAddr, Option<&At<'a>>)> = Vec::new();
    for (nth, listen) in settings.listen.iter().enumerate() {
        let at = places.listen.get(nth);
        let name = match (nth, port_from, at) {
            (0, Some(variable), _) => variable.to_owned(),
            (_, _, Some(at)) => at.key.clone(),
            _ => "cellgate.listen".to_owned(),
        };
        all.push((name, listen.address, at));
    }
    let admin = "cellgate.admin_listen".to_owned();
    all.push((admin, settings.admin_listen, places.admin.as_ref()));

    for (nth, (name, address, at)) in all.iter().enumerate() {
        let mut earlier = all.iter().take(nth);
        let Some((other, taken, _)) = earlier.find(|(_, taken, _)| overlap(*taken, *address))
        else {
            continue;
        };
        let message = format!("got {address}, want an address that is free: {other} has {taken}");
        match at {
            Some(at) => reader.problem(at, message),
            None => reader.problem_elsewhere(name, message),
        }
    }
}

/// An unspecified address takes the port on every address of its family.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || same_family && any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_addresses() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            // The system decides whether [::] takes IPv4 as well.
            ("0.0.0.0:80", "[::]:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }
}
