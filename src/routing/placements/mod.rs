//! The placements of a document, of both formats: `cellEndpoints`, which says
//! where cells are, and `placements`, which says everything else as well, with
//! `defaults` for both.
//!
//! Both paths of a document end here, so the rules for `placements` and
//! `defaults` are written once: the reader works on the text itself, keeps the
//! place of all it sees and collects problems; the quick path refuses when
//! there are any.
//!
//! Settings are merged by reading them on top of each other: the built-in
//! policy, then `defaults`, then the placement.

mod fallback;
mod fields;
mod health;
mod host;
mod policy;
mod reader;
mod targets;

use std::borrow::Cow;
use std::sync::Arc;

use self::fallback::{Fallback, Reference};
use self::health::Pair;
use self::policy::Reading;
use self::reader::Reader;
use super::document::DEFAULTS;
use super::endpoint::Endpoint;
use super::findings::{Findings, Path};
use super::locate::Raw;
use super::policy::Policy;
use super::table::{Placement, WeightedEndpoint};

/// A field of a document that declares placements.
pub(super) enum Section<'a> {
    /// `cellEndpoints`, in order.
    Cells(Vec<Cell<'a>>),
    /// `placements`, not read yet.
    Placements(Raw<'a>),
    /// Neither, though it is called so; the problem is known.
    Unreadable,
}

/// One entry of `cellEndpoints`.
pub(super) struct Cell<'a> {
    pub name: Cow<'a, str>,
    /// Where the name stands. The quick path does not know: it needs no more
    /// than to find that something is wrong.
    pub key: Option<Raw<'a>>,
    /// None: the URL is not valid, and the problem is known.
    pub endpoint: Option<Endpoint>,
}

/// Placements as they are declared, before names are linked.
struct Declared<'a> {
    name: Cow<'a, str>,
    key: Option<Raw<'a>>,
    /// The field of the document that it is in.
    section: &'static str,
    /// Empty when there is a problem with them.
    endpoints: Box<[WeightedEndpoint]>,
    policy: Arc<Policy>,
    fallback: Fallback<'a>,
}

/// Reads `defaults` and the sections of a document, in its order. What there is
/// to say against them goes to `findings`; without any, all placements are as
/// the table wants them. With some, those that come back still have the names
/// that the document declares.
///
/// None: the document does not get as far as declaring placements, and nothing
/// can be said of what refers to them.
pub(super) fn read<'a>(
    defaults: Option<Raw<'a>>,
    sections: Vec<Section<'a>>,
    findings: &mut Findings<'a>,
) -> Option<Vec<Placement>> {
    let defaults = Defaults::read(defaults, findings);
    let mut reader = Reader::new(&defaults, findings);
    for section in sections {
        reader.section(section);
    }
    reader.finish()
}

/// What every placement starts with.
struct Defaults<'a> {
    policy: Arc<Policy>,
    fallback: Option<Reference<'a>>,
    /// What `defaults` say of the health check's times, if anything.
    times: Option<Pair<'a>>,
}

impl<'a> Defaults<'a> {
    fn read(value: Option<Raw<'a>>, findings: &mut Findings<'a>) -> Self {
        let path = Path::ROOT.child(DEFAULTS);
        let mut reading = Reading::on(Policy::default());
        let entries =
            value.and_then(|value| fields::object(value, path, &policy::FIELDS, findings));
        for entry in entries.unwrap_or_default() {
            if fields::refuse_null(&entry, path.child(&entry.name), findings) {
                continue;
            }
            reading.field(&entry, path.child(&entry.name), findings);
        }
        Self {
            policy: Arc::new(reading.policy),
            fallback: match reading.fallback {
                Fallback::To(reference) => Some(reference),
                Fallback::Inherited | Fallback::Off => None,
            },
            times: reading.times,
        }
    }
}
