//! Where following fallbacks leads, found in one walk over all of them.

use crate::table::routing_table::PlacementId;

/// How many fallbacks may be followed one after the other. A request that finds
/// nothing usable follows them all, so they cost it time.
pub(super) const HOPS_MAX: u8 = 8;

/// What is wrong with where fallbacks lead.
#[derive(Default)]
pub(super) struct Walk {
    /// Every circle, once, in the order of its links.
    pub circles: Vec<Vec<PlacementId>>,
    /// The placements whose fallback makes a chain of one hop more than there
    /// may be. Beyond, the count begins anew, as if that fallback were taken
    /// out: one problem for each that has to be.
    pub long: Vec<PlacementId>,
}

#[derive(Clone, Copy)]
enum Seen {
    Not,
    /// On the way that is being followed.
    Now,
    /// So many hops lead on from here.
    Hops(u8),
}

impl Walk {
    /// Follows `next`, which says what comes after each placement. Each is gone
    /// to once and come back from once: what is known already ends a way.
    pub fn over(next: &[Option<PlacementId>]) -> Self {
        let mut walk = Self::default();
        let mut seen = vec![Seen::Not; next.len()];
        let mut way = Vec::new();
        for start in (0..).map(PlacementId).take(next.len()) {
            let mut at = Some(start);
            while let Some(id) = at
                && let Some(state @ Seen::Not) = seen.get_mut(id.index())
            {
                *state = Seen::Now;
                way.push(id);
                at = next.get(id.index()).copied().flatten();
            }
            let mut hops = at.and_then(|end| match seen.get(end.index())? {
                Seen::Not => None,
                Seen::Now => {
                    let first = way.iter().position(|id| *id == end)?;
                    let circle = way.split_off(first);
                    for id in &circle {
                        set(&mut seen, *id, 0);
                    }
                    walk.circles.push(circle);
                    Some(0)
                }
                Seen::Hops(hops) => Some(*hops),
            });
            while let Some(id) = way.pop() {
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

    /// What is wrong with links from each to the next in `to`, -1 for none.
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
    fn a_million_are_one_walk() {
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

        // All lead into one circle, which nobody may go round again for.
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
        /// Taking out what is reported leaves chains of at most so many hops,
        /// and taking out less does not.
        #[test]
        fn what_is_reported_is_what_has_to_go(to in prop::collection::vec(-1i64..30, 0..30)) {
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
