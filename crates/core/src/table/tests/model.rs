//! A naive model of routing, and the ways to write it down as a document.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{RouteReason, check_key};

/// A valid document before it is written down.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub keys: Vec<(String, usize)>,
    pub placements: Vec<Home>,
    default: usize,
    default_tenancy: Option<&'static str>,
    default_fallback: Option<usize>,
}

/// One placement of it. In `cellEndpoints` it can say nothing but its name.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub name: String,
    pub cell: bool,
    /// `null` switches the default off.
    tenancy: Option<&'static str>,
    /// How far down the list its own fallback is, so that there is no circle.
    fallback: Option<usize>,
    pub weights: Vec<u32>,
}

impl Model {
    /// A few lines that say what routing is.
    pub fn route(&self, key: &str) -> (&str, RouteReason) {
        let Some((_, home)) = self.keys.iter().find(|(known, _)| known == key) else {
            return (&self.placements[self.default].name, RouteReason::Default);
        };
        let placement = &self.placements[*home];
        let name = &placement.name;
        let own = placement.tenancy.filter(|_| !placement.cell);
        let shared = match own.or(self.default_tenancy) {
            Some("dedicated") => false,
            Some("shared") => true,
            _ => {
                let tier = name.len() > 4
                    && name.starts_with("tier")
                    && name[4..].chars().all(|c| c.is_ascii_digit());
                let keys = self.keys.iter().filter(|(_, other)| other == home).count();
                *home == self.default || tier || keys >= 2
            }
        };
        let reason = if shared {
            RouteReason::Tier
        } else {
            RouteReason::Dedicated
        };
        (name, reason)
    }

    fn own_fallback(&self, index: usize) -> Option<usize> {
        let home = &self.placements[index];
        // All that inherits leads to the default one, which may lead nowhere.
        if home.cell || self.default_fallback == Some(index) {
            return None;
        }
        Some(index + 1 + home.fallback?).filter(|to| *to < self.placements.len())
    }

    pub fn fallback(&self, index: usize) -> Option<&str> {
        let default = self.default_fallback.filter(|to| *to != index);
        let to = self.own_fallback(index).or(default)?;
        Some(&self.placements[to].name)
    }

    pub fn document(&self, style: &Style) -> String {
        let name = |index: usize| style.string(&self.placements[index].name);
        let object = |members: Vec<String>| format!("{{{}}}", members.join(","));
        let of = |cell: bool| {
            let all = 0..self.placements.len();
            all.filter(move |index| self.placements[*index].cell == cell)
        };
        let mut fields = vec![
            format!("\"version\"{}:\"1\"", style.space),
            format!(
                "\"routingTable\":{}",
                object(
                    self.keys
                        .iter()
                        .map(|(key, home)| format!("{}:{}", style.string(key), name(*home)))
                        .collect()
                )
            ),
            format!("\"defaultPlacement\":{}", name(self.default)),
        ];
        let cells: Vec<_> = of(true)
            .map(|index| format!("{}:\"http://c{index}\"", name(index)))
            .collect();
        let placements: Vec<_> = of(false)
            .map(|index| format!("{}:{}", name(index), object(self.fields(index, style))))
            .collect();
        if !cells.is_empty() {
            fields.push(format!(
                "\"cellEndpoints\":{}{}",
                style.space,
                object(cells)
            ));
        }
        if !placements.is_empty() {
            fields.push(format!(
                "\"placements\":{}{}",
                object(placements),
                style.space
            ));
        }
        let tenancy = self.default_tenancy;
        let defaults = [
            tenancy.map(|tenancy| format!("\"tenancy\":{}", style.string(tenancy))),
            self.default_fallback
                .map(|to| format!("\"fallback\"{}:{}", style.space, name(to))),
        ];
        if defaults.iter().any(Option::is_some) {
            let defaults = defaults.into_iter().flatten().collect();
            fields.push(format!("\"defaults\":{}", object(defaults)));
        }
        let rotate = style.rotate % fields.len();
        fields.rotate_left(rotate);
        format!("{}{}{}", style.space, object(fields), style.space)
    }

    /// The fields of a placement in `placements`.
    fn fields(&self, index: usize, style: &Style) -> Vec<String> {
        let home = &self.placements[index];
        let endpoints: Vec<_> = home
            .weights
            .iter()
            .enumerate()
            .map(|(n, weight)| {
                let space = style.space;
                format!("{{\"weight\":{weight},{space}\"url\":\"http://c{index}-{n}\"}}")
            })
            .collect();
        let mut fields = vec![format!("\"endpoints\":[{}]", endpoints.join(","))];
        fields.extend(home.tenancy.map(|tenancy| match tenancy {
            "null" => "\"tenancy\":null".to_owned(),
            other => format!("\"tenancy\":{}", style.string(other)),
        }));
        fields.extend(self.own_fallback(index).map(|to| {
            let name = style.string(&self.placements[to].name);
            format!("\"fallback\":{name}")
        }));
        let rotate = style.rotate % fields.len();
        fields.rotate_left(rotate);
        fields
    }
}

/// Ways to write the same document down.
#[derive(Clone, Debug)]
pub(super) struct Style {
    space: &'static str,
    escaped: bool,
    rotate: usize,
}

impl Style {
    fn string(&self, text: &str) -> String {
        if !self.escaped {
            return serde_json::to_string(text).unwrap();
        }
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        format!("\"{}\"", units.collect::<String>())
    }
}

pub(super) fn style() -> impl Strategy<Value = Style> {
    (select(vec!["", " ", "\r\n\t"]), any::<bool>(), 0..6usize).prop_map(
        |(space, escaped, rotate)| Style {
            space,
            escaped,
            rotate,
        },
    )
}

pub(super) fn model() -> impl Strategy<Value = Model> {
    let key = prop_oneof!["[a-c]{1,2}", "\\PC{1,6}"]
        .prop_filter("no header carries it", |key| check_key(key).is_ok());
    let name = prop_oneof!["tier[0-9]{0,2}", "[!-~]{1,8}"];
    let keys = prop::collection::btree_map(key, any::<prop::sample::Index>(), 0..12);
    let tenancy = || prop::option::of(select(vec!["shared", "dedicated", "null"]));
    let home = (
        any::<bool>(),
        tenancy(),
        prop::option::of(0..3usize),
        prop::collection::vec(1..=1000u32, 1..4),
    );
    let placements = prop::collection::btree_map(name, home, 1..6);
    let index = any::<prop::sample::Index>;
    let defaults = (tenancy(), prop::option::of(index()));
    (keys, placements, index(), defaults).prop_map(|(keys, placements, default, defaults)| {
        let placements: Vec<Home> = placements
            .into_iter()
            .map(|(name, (cell, tenancy, fallback, weights))| Home {
                name,
                cell,
                tenancy,
                fallback,
                weights,
            })
            .collect();
        Model {
            keys: keys
                .into_iter()
                .map(|(key, home)| (key, home.index(placements.len())))
                .collect(),
            default: default.index(placements.len()),
            default_tenancy: defaults.0.filter(|tenancy| *tenancy != "null"),
            default_fallback: defaults.1.map(|to| to.index(placements.len())),
            placements,
        }
    })
}
