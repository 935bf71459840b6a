//! Where placements send their requests while they take none themselves: the
//! names that stand for placements, and the circles that they must not make.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::Declared;
use super::policy::FALLBACK;
use crate::routing::document::DEFAULTS;
use crate::routing::findings::{Findings, Path};
use crate::routing::locate::Raw;
use crate::routing::table::PlacementId;
use crate::routing::wording::{Bare, Quoted, unknown};

/// How many placements of a circle are named.
const NAMED: usize = 20;

/// What a placement says of its fallback.
pub(super) enum Fallback<'a> {
    /// Nothing: it has that of `defaults`, unless that is the placement itself.
    Inherited,
    /// That it has none.
    Off,
    To(Reference<'a>),
}

/// The name of a placement, and where it stands.
pub(super) struct Reference<'a> {
    pub name: Cow<'a, str>,
    pub value: Raw<'a>,
}

/// The fallback of each placement, in their order. Names that stand for none,
/// placements that fall back to themselves and circles are reported, each once.
pub(super) fn link<'a>(
    placements: &[Declared<'a>],
    default: Option<&Reference<'a>>,
    findings: &mut Findings<'a>,
) -> Vec<Option<PlacementId>> {
    let says_something = |placement: &Declared<'_>| matches!(placement.fallback, Fallback::To(_));
    if default.is_none() && !placements.iter().any(says_something) {
        return vec![None; placements.len()];
    }
    let mut indices: HashMap<&str, usize> = HashMap::with_capacity(placements.len());
    for (index, placement) in placements.iter().enumerate() {
        indices.entry(&placement.name).or_insert(index);
    }
    let names = placements.iter().map(|placement| &*placement.name);
    let mut find = |reference: &Reference<'a>, path: Path<'_>| {
        let found = indices.get(&*reference.name).copied();
        if found.is_none() {
            findings.at(reference.value, path, || {
                unknown("placement", &reference.name, names.clone())
            });
        }
        found
    };

    let default =
        default.and_then(|reference| find(reference, Path::ROOT.child(DEFAULTS).child(FALLBACK)));
    let mut next = Vec::with_capacity(placements.len());
    for (index, placement) in placements.iter().enumerate() {
        next.push(match &placement.fallback {
            Fallback::Off => None,
            Fallback::Inherited => default.filter(|default| *default != index),
            Fallback::To(reference) => {
                let section = Path::ROOT.child(placement.section);
                let parent = section.child(&placement.name);
                find(reference, parent.child(FALLBACK))
            }
        });
    }
    for circle in circles(&next) {
        report(&circle, placements, findings);
    }
    next.into_iter()
        .map(|index| Some(PlacementId(u32::try_from(index?).ok()?)))
        .collect()
}

/// Every circle that following `next` leads into, each once. As nothing leads
/// to two places, following every start until something seen is one visit a
/// placement.
fn circles(next: &[Option<usize>]) -> Vec<Vec<usize>> {
    let mut circles = Vec::new();
    // By placement: from where it was first come to.
    let mut seen: Vec<Option<usize>> = vec![None; next.len()];
    for start in 0..next.len() {
        let mut at = start;
        while let (Some(slot @ None), Some(to)) = (seen.get_mut(at), next.get(at)) {
            *slot = Some(start);
            let Some(to) = *to else { break };
            at = to;
            if seen.get(at) == Some(&Some(start)) {
                circles.push(circle(next, at));
            }
        }
    }
    circles
}

/// The circle that `first` is on.
fn circle(next: &[Option<usize>], first: usize) -> Vec<usize> {
    let after = |at: &usize| next.get(*at).copied().flatten();
    let mut circle = vec![first];
    circle.extend(std::iter::successors(after(&first), after).take_while(|at| *at != first));
    circle
}

/// At the first of its fallbacks that a placement gives itself. There is one: a
/// circle of inherited ones would lead through the default fallback, which does
/// not inherit.
fn report<'a>(circle: &[usize], placements: &[Declared<'a>], findings: &mut Findings<'a>) {
    let members = || circle.iter().filter_map(|index| placements.get(*index));
    let first = circle
        .iter()
        .zip(members())
        .enumerate()
        .filter_map(|(at, (index, placement))| match &placement.fallback {
            Fallback::To(reference) => Some((index, at, placement, reference)),
            Fallback::Inherited | Fallback::Off => None,
        })
        .min_by_key(|(index, ..)| **index);
    let Some((_, at, placement, reference)) = first else {
        return;
    };
    let section = Path::ROOT.child(placement.section);
    let path = section.child(&placement.name);
    findings.at(reference.value, path.child(FALLBACK), || {
        if circle.len() == 1 {
            return format!(
                "fallback {} is the placement itself",
                Quoted(&reference.name)
            );
        }
        let mut message = String::from("fallbacks lead in a circle: ");
        for placement in members().cycle().skip(at).take(circle.len().min(NAMED)) {
            let _ = write!(message, "{} -> ", Bare(&placement.name));
        }
        if circle.len() > NAMED {
            let _ = write!(message, "… {} more … -> ", circle.len() - NAMED);
        }
        let _ = write!(message, "{}", Bare(&placement.name));
        message
    });
}
