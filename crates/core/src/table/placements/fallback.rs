//! Resolves the fallbacks of placements, and reports those that lead in a circle or too far.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::policy::FALLBACK;
use super::{Declared, Section};
use crate::table::document::{DEFAULTS, PLACEMENTS};
use crate::table::findings::{Findings, Path};
use crate::table::json::Raw;
use crate::table::problem::{Bare, Quoted, unknown};
use crate::table::routing_table::PlacementId;

/// The longest chain of fallbacks. A request that finds no usable endpoint follows all of it,
/// which takes time.
const HOPS_MAX: u8 = 8;

/// The most placements of a circle that an error names.
const NAMED: usize = 20;

const DEFAULTS_PATH: Path<'static> = Path::ROOT.child(DEFAULTS);

/// The fallback of a placement, as the document gives it.
#[derive(Clone, Copy)]
pub(super) enum Fallback<'a> {
    /// That of `defaults`, unless it is the placement itself.
    Inherited,
    /// None.
    Off,
    /// The placement with this name, which is a valid string.
    To(Raw<'a>),
}

/// The fallback of each placement, in their order. Reports unknown names, circles and chains
/// that are too long, each once.
pub(super) fn resolve<'a>(
    placements: &[Declared<'a>],
    default: Option<Raw<'a>>,
    findings: &mut Findings<'a>,
) -> Vec<Option<PlacementId>> {
    let has_own = |placement: &Declared<'_>| matches!(placement.fallback, Fallback::To(_));
    if default.is_none() && !placements.iter().any(has_own) {
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

    let inherited = default.and_then(|value| find(value, DEFAULTS_PATH.child(FALLBACK)));
    let mut next = Vec::with_capacity(placements.len());
    for (id, placement) in (0..).map(PlacementId).zip(placements) {
        next.push(match placement.fallback {
            Fallback::Off => None,
            Fallback::Inherited => inherited.filter(|default| *default != id),
            Fallback::To(value) => find(value, placement.path().child(FALLBACK)),
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

/// Placements with the fallback of each.
struct Links<'l, 'a> {
    placements: &'l [Declared<'a>],
    next: &'l [Option<PlacementId>],
}

impl<'l, 'a> Links<'l, 'a> {
    fn placement(&self, id: PlacementId) -> Option<&'l Declared<'a>> {
        self.placements.get(id.index())
    }

    /// `first` and the chain of its fallbacks, with their ids.
    fn follow(&self, first: PlacementId) -> impl Iterator<Item = (PlacementId, &'l Declared<'a>)> {
        let after = |id: &PlacementId| self.next.get(id.index()).copied().flatten();
        std::iter::successors(Some(first), after).filter_map(|id| Some((id, self.placement(id)?)))
    }

    /// The first `count` placements of the chain from `first`, as `a -> b (by defaults) -> c
    /// -> `. Inherited fallbacks are marked, as the document does not show them.
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

    /// Reports a circle at the first of its fallbacks that is not inherited. There is one: the
    /// default fallback does not inherit its own.
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
        findings.at(value, placement.path().child(FALLBACK), || {
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
            if let Some((_, placement)) = self.follow(first).take(circle.len()).find(inherits) {
                message.push_str(&how_to_switch_off(placement));
            }
            message
        });
    }

    /// Reports chains that are too long. Placements that inherit the same fallback are one
    /// problem, at the default fallback.
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
            let path = placement.path();
            let (value, parent) = match placement.fallback {
                Fallback::To(value) => (Some(value), path),
                Fallback::Inherited => (default.take(), DEFAULTS_PATH),
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

/// How to switch off a fallback that `placement` inherits.
fn how_to_switch_off(placement: &Declared<'_>) -> String {
    let name = Bare(&placement.name);
    match placement.section {
        Section::Placements => format!(" (to end it, give {name} \"{FALLBACK}\": null)"),
        Section::CellEndpoints => {
            format!(" (to end it, move {name} to {PLACEMENTS} and give it \"{FALLBACK}\": null)")
        }
    }
}
/// The circles and long chains of all fallbacks, found in one pass.
#[derive(Default)]
struct Walk {
    /// Every circle once, in the order of its fallbacks.
    circles: Vec<Vec<PlacementId>>,
    /// The placements whose fallback makes a chain one hop too long. Chains that lead to them
    /// are counted as if that fallback were removed, so that there is one problem for each
    /// fallback that has to go.
    long: Vec<PlacementId>,
}

#[derive(Clone, Copy)]
enum Seen {
    Not,
    /// On the chain that is being followed.
    Now,
    /// The length of the chain from here.
    Hops(u8),
}

impl Walk {
    /// Follows `next`, the fallback of each placement. Visits each placement once: a chain ends
    /// at one whose length is known.
    fn over(next: &[Option<PlacementId>]) -> Self {
        let mut walk = Self::default();
        let mut seen = vec![Seen::Not; next.len()];
        let mut chain = Vec::new();
        for start in (0..).map(PlacementId).take(next.len()) {
            let mut at = Some(start);
            while let Some(id) = at
                && let Some(state @ Seen::Not) = seen.get_mut(id.index())
            {
                *state = Seen::Now;
                chain.push(id);
                at = next.get(id.index()).copied().flatten();
            }
            let mut hops = at.and_then(|end| match seen.get(end.index())? {
                Seen::Not => None,
                Seen::Now => {
                    let first = chain.iter().position(|id| *id == end)?;
                    let circle = chain.split_off(first);
                    for id in &circle {
                        set(&mut seen, *id, 0);
                    }
                    walk.circles.push(circle);
                    Some(0)
                }
                Seen::Hops(hops) => Some(*hops),
            });
            while let Some(id) = chain.pop() {
                let mut own = hops.map_or(0, |after| after + 1);
                if own > HOPS_MAX {
                    walk.long.push(id);
                    own = 0;
                }
                set(&mut seen, id, own);
                hops = Some(own);
            }
        }
        walk
    }
}

fn set(seen: &mut [Seen], id: PlacementId, hops: u8) {
    if let Some(state) = seen.get_mut(id.index()) {
        *state = Seen::Hops(hops);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The circles and long chains of the fallbacks `to`, -1 for none.
    fn walk(to: &[i64]) -> (Vec<Vec<u32>>, Vec<u32>) {
        let next: Vec<_> = to
            .iter()
            .map(|to| u32::try_from(*to).ok().map(PlacementId))
            .collect();
        let walk = Walk::over(&next);
        let numbers = |ids: &[PlacementId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        (
            walk.circles.iter().map(|circle| numbers(circle)).collect(),
            numbers(&walk.long),
        )
    }

    #[test]
    fn circles_and_long_chains_are_found() {
        assert_eq!(walk(&[]), (vec![], vec![]));
        assert_eq!(walk(&[1, -1, 1]), (vec![], vec![]));
        assert_eq!(walk(&[0]), (vec![vec![0]], vec![]));
        assert_eq!(
            walk(&[1, 2, 1, 4, 3, 0]),
            (vec![vec![1, 2], vec![3, 4]], vec![])
        );
        // 0 to 9 by 9 hops, and by 8.
        let chain = [1, 2, 3, 4, 5, 6, 7, 8, 9, -1];
        assert_eq!(walk(&chain), (vec![], vec![0]));
        assert!(walk(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]).1.is_empty());
        assert_eq!(walk(&[-1, 0, 1, 2, 3, 4, 5, 6, 7]), (vec![], vec![]));
        // Two that are too long by the same one, and one that is not.
        assert_eq!(
            walk(&[-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 7]),
            (vec![], vec![9, 10])
        );
    }

    #[test]
    fn a_million_placements_are_one_walk() {
        const COUNT: usize = 1_000_000;
        let chain: Vec<i64> = (0..COUNT).map(|at| at as i64 - 1).collect();
        let long: Vec<u32> = (1..COUNT as u32).filter(|at| at % 9 == 0).collect();
        assert_eq!(walk(&chain), (vec![], long.clone()));
        let backwards: Vec<i64> = (1..COUNT).map(|at| at as i64).chain([-1]).collect();
        assert_eq!(walk(&backwards).1.len(), long.len());

        let mut circle = backwards;
        circle[COUNT - 1] = 0;
        let (circles, long) = walk(&circle);
        assert_eq!((circles.len(), circles[0].len(), long.len()), (1, COUNT, 0));

        // Half of them lead into one circle, which is followed once.
        let half = COUNT as i64 / 2;
        let lead: Vec<i64> = (0..COUNT as i64)
            .map(|at| {
                if at < half {
                    (at + 1) % half
                } else {
                    at - half
                }
            })
            .collect();
        assert_eq!(walk(&lead).0.len(), 1);
    }

    proptest! {
        /// Removing the reported fallbacks leaves no chain that is too long; removing fewer
        /// does.
        #[test]
        fn reported_fallbacks_have_to_go(to in prop::collection::vec(-1i64..30, 0..30)) {
            let count = i64::try_from(to.len()).unwrap();
            let to: Vec<i64> = to.into_iter().map(|to| if to < count { to } else { -1 }).collect();
            let (circles, long) = walk(&to);
            let on_circle = |at: usize| circles.iter().flatten().any(|id| *id as usize == at);
            let hops = |start: usize| {
                let mut hops = 0;
                let mut at = start;
                while !long.contains(&(at as u32)) && !on_circle(at) && to[at] >= 0 {
                    hops += 1;
                    at = to[at] as usize;
                }
                hops
            };
            for at in 0..to.len() {
                prop_assert!(hops(at) <= HOPS_MAX);
            }
            for at in &long {
                prop_assert_eq!(hops(to[*at as usize] as usize), HOPS_MAX);
            }
        }
    }
}
