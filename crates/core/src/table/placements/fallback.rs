//! Where placements send their requests while they take none themselves: the
//! names that stand for placements, and how far following them may lead.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::policy::FALLBACK;
use super::walk::{HOPS_MAX, Walk};
use super::{Declared, Within};
use crate::table::document::{DEFAULTS, PLACEMENTS};
use crate::table::findings::{Findings, Path};
use crate::table::locate::Raw;
use crate::table::routing_table::PlacementId;
use crate::table::wording::{Bare, Quoted, unknown};

/// Where the default fallback is.
const DEFAULT: Path<'static> = Path::ROOT.child(DEFAULTS);

/// How many placements of a circle are named.
const NAMED: usize = 20;

/// What a placement says of its fallback.
#[derive(Clone, Copy)]
pub(super) enum Fallback<'a> {
    /// Nothing: it has that of `defaults`, unless that is the placement itself.
    Inherited,
    /// That it has none.
    Off,
    /// A name, which is text.
    To(Raw<'a>),
}

/// The fallback of each placement, in their order. Names that stand for none,
/// placements that fall back to themselves, circles and chains that are too long
/// are reported, each once.
pub(super) fn link<'a>(
    placements: &[Declared<'a>],
    default: Option<Raw<'a>>,
    findings: &mut Findings<'a>,
) -> Vec<Option<PlacementId>> {
    let says_something = |placement: &Declared<'_>| matches!(placement.fallback, Fallback::To(_));
    if default.is_none() && !placements.iter().any(says_something) {
        return vec![None; placements.len()];
    }
    let mut ids: HashMap<&str, PlacementId> = HashMap::with_capacity(placements.len());
    for (id, placement) in (0..).map(PlacementId).zip(placements) {
        ids.entry(&placement.name).or_insert(id);
    }
    let names = placements.iter().map(|placement| &*placement.name);
    let mut find = |value: Raw<'a>, path: Path<'_>| {
        let name = value.string().ok()?;
        let found = ids.get(&*name).copied();
        if found.is_none() {
            findings.at(value, path, || unknown("placement", &name, names.clone()));
        }
        found
    };

    let inherited = default.and_then(|value| find(value, DEFAULT.child(FALLBACK)));
    let mut next = Vec::with_capacity(placements.len());
    for (id, placement) in (0..).map(PlacementId).zip(placements) {
        next.push(match placement.fallback {
            Fallback::Off => None,
            Fallback::Inherited => inherited.filter(|default| *default != id),
            Fallback::To(value) => {
                let section = Path::ROOT.child(placement.within.field());
                find(value, section.child(&placement.name).child(FALLBACK))
            }
        });
    }

    let walk = Walk::over(&next);
    let links = Links {
        placements,
        next: &next,
    };
    for circle in &walk.circles {
        links.report_circle(circle, findings);
    }
    links.report_long(&walk.long, default, findings);
    next
}

/// Placements with what follows each.
struct Links<'l, 'a> {
    placements: &'l [Declared<'a>],
    next: &'l [Option<PlacementId>],
}

impl<'l, 'a> Links<'l, 'a> {
    fn placement(&self, id: PlacementId) -> Option<&'l Declared<'a>> {
        self.placements.get(id.index())
    }

    /// `first` and what follows it, with their ids.
    fn follow(&self, first: PlacementId) -> impl Iterator<Item = (PlacementId, &'l Declared<'a>)> {
        let after = |id: &PlacementId| self.next.get(id.index()).copied().flatten();
        std::iter::successors(Some(first), after).filter_map(|id| Some((id, self.placement(id)?)))
    }

    /// `a -> b (by defaults) -> c -> `: `count` placements from `first` on. The
    /// document shows nothing of links that are inherited, so these are marked.
    fn shown(&self, first: PlacementId, count: usize) -> String {
        let mut text = String::new();
        for (_, placement) in self.follow(first).take(count) {
            let mark = match placement.fallback {
                Fallback::Inherited => " (by defaults)",
                Fallback::Off | Fallback::To(_) => "",
            };
            let _ = write!(text, "{}{mark} -> ", Bare(&placement.name));
        }
        text
    }

    /// At the first of its fallbacks that a placement gives itself. There is one:
    /// a circle of inherited ones would lead through the default fallback, which
    /// does not inherit.
    fn report_circle(&self, circle: &[PlacementId], findings: &mut Findings<'a>) {
        let given = circle.iter().filter_map(|id| {
            let placement = self.placement(*id)?;
            match placement.fallback {
                Fallback::To(value) => Some((*id, placement, value)),
                Fallback::Inherited | Fallback::Off => None,
            }
        });
        let Some((first, placement, value)) = given.min_by_key(|(id, ..)| *id) else {
            return;
        };
        let section = Path::ROOT.child(placement.within.field());
        let path = section.child(&placement.name);
        findings.at(value, path.child(FALLBACK), || {
            if circle.len() == 1 {
                return format!(
                    "fallback {} is the placement itself",
                    Quoted(&placement.name)
                );
            }
            let mut message = String::from("fallbacks lead in a circle: ");
            message.push_str(&self.shown(first, circle.len().min(NAMED)));
            if circle.len() > NAMED {
                let _ = write!(message, "… {} more … -> ", circle.len() - NAMED);
            }
            let _ = write!(message, "{}", Bare(&placement.name));
            let inherits = |(_, placement): &(_, &Declared<'_>)| {
                matches!(placement.fallback, Fallback::Inherited)
            };
            if let Some((_, heir)) = self.follow(first).take(circle.len()).find(inherits) {
                message.push_str(&without_fallback(heir));
            }
            message
        });
    }

    /// Chains that are too long, each where it becomes so: at a fallback that a
    /// placement gives itself, or once at the default one.
    fn report_long(
        &self,
        long: &[PlacementId],
        mut default: Option<Raw<'a>>,
        findings: &mut Findings<'a>,
    ) {
        for id in long {
            let Some(placement) = self.placement(*id) else {
                continue;
            };
            let section = Path::ROOT.child(placement.within.field());
            let path = section.child(&placement.name);
            let (value, parent) = match placement.fallback {
                Fallback::To(value) => (Some(value), path),
                Fallback::Inherited => (default.take(), DEFAULT),
                Fallback::Off => (None, path),
            };
            let Some(value) = value else { continue };
            findings.at(value, parent.child(FALLBACK), || {
                let hops = usize::from(HOPS_MAX) + 1;
                let last = self.follow(*id).nth(hops);
                let last = last.map_or_else(String::new, |(_, last)| Bare(&last.name).to_string());
                format!(
                    "fallback chain of {hops} hops (at most {HOPS_MAX}): {}{last}",
                    self.shown(*id, hops)
                )
            });
        }
    }
}

/// How `heir` gets rid of a fallback that it inherits.
fn without_fallback(heir: &Declared<'_>) -> String {
    let name = Bare(&heir.name);
    match heir.within {
        Within::Placements => format!(" (to end it, give {name} \"{FALLBACK}\": null)"),
        Within::CellEndpoints => {
            format!(" (to end it, move {name} to {PLACEMENTS} and give it \"{FALLBACK}\": null)")
        }
    }
}
