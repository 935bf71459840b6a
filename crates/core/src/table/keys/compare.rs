//! Two tries side by side.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::leaf::Leaf;
use super::node::Tree;

/// Visits the leaves of `mine` that `theirs` does not share, until `visit` has seen
/// enough. Both start at the same bits.
pub(super) fn unshared<'a>(
    mine: &'a Tree,
    theirs: &Tree,
    visit: &mut impl FnMut(&'a Leaf) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match (mine, theirs) {
        (Tree::Leaf(leaf), _) => {
            if !mine.same_leaf(theirs) {
                visit(leaf)?;
            }
        }
        (Tree::Node(slots), Tree::Node(others)) if Arc::ptr_eq(slots, others) => {}
        (Tree::Node(slots), _) => {
            for (index, slot) in slots.iter().enumerate() {
                let again = index > 0 && slot.same_leaf(&slots[index - 1]);
                if !again {
                    unshared(slot, opposite(theirs, index, slots.len()), visit)?;
                }
            }
        }
    }
    ControlFlow::Continue(())
}

/// What stands in `theirs` where a node of `len` slots has the one at `index`. A
/// node that is not as wide as they get has leaves only, so a node never stands
/// opposite of one at another depth.
fn opposite(theirs: &Tree, index: usize, len: usize) -> &Tree {
    match theirs {
        Tree::Leaf(_) => theirs,
        Tree::Node(others) => &others[index * others.len() / len],
    }
}
