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
mod policy;
mod reader;
mod targets;
mod walk;

use std::borrow::Cow;
use std::sync::Arc;

use self::fallback::Fallback;
use self::health::Pair;
use self::policy::Reading;
use self::reader::Reader;
use super::document::{CELL_ENDPOINTS, DEFAULTS, PLACEMENTS};
use super::endpoint::Endpoint;
use super::findings::{Findings, Path};
use super::locate::Raw;
use super::policy::Policy;
use super::routing_table::{Placement, PlacementId, WeightedEndpoint};

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

/// What a document says of one placement to others.
struct Declared<'a> {
    name: Cow<'a, str>,
    key: Option<Raw<'a>>,
    within: Within,
    fallback: Fallback<'a>,
}

/// The field of a document that declares a placement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Placements,
    CellEndpoints,
}

impl Within {
    fn field(self) -> &'static str {
        match self {
            Self::Placements => PLACEMENTS,
            Self::CellEndpoints => CELL_ENDPOINTS,
        }
    }
}

/// What a placement is to requests.
struct Home {
    endpoints: Box<[WeightedEndpoint]>,
    policy: Arc<Policy>,
}

/// The placements that a document declares, in its order.
pub(super) struct Declarations<'a> {
    declared: Vec<Declared<'a>>,
    /// Of each placement, as long as the document has no problem; none is made
    /// for one that has, which may be huge.
    homes: Vec<Home>,
    fallbacks: Vec<Option<PlacementId>>,
}

impl Declarations<'_> {
    /// Their names; one that is declared again may come again.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|declared| &*declared.name)
    }

    /// All placements as the table wants them; only for a document without
    /// problems.
    pub fn into_placements(self) -> Vec<Placement> {
        let mut placements = Vec::with_capacity(self.declared.len());
        let homes = self.homes.into_iter().zip(self.fallbacks);
        placements.extend(self.declared.into_iter().zip(homes).map(
            |(declared, (home, fallback))| Placement {
                name: declared.name.into_owned(),
                endpoints: home.endpoints,
                policy: home.policy,
                fallback,
            },
        ));
        placements
    }
}

/// Reads `defaults` and the sections of a document, in its order. What there is
/// to say against them goes to `findings`, which also say how far to read.
///
/// None: the document does not get as far as declaring placements, and nothing
/// can be said of what refers to them.
pub(super) fn read<'a>(
    defaults: Option<Raw<'a>>,
    sections: Vec<Section<'a>>,
    findings: &mut Findings<'a>,
) -> Option<Declarations<'a>> {
    let defaults = Defaults::read(defaults, findings);
    let mut reader = Reader::new(&defaults);
    for section in sections {
        reader.section(section, findings);
    }
    reader.finish(findings)
}

/// What every placement starts with.
struct Defaults<'a> {
    policy: Arc<Policy>,
    /// The name of the default fallback, where it stands.
    fallback: Option<Raw<'a>>,
    /// What `defaults` say of the health check's times, if anything.
    times: Option<Pair<'a>>,
}

impl<'a> Defaults<'a> {
    fn read(value: Option<Raw<'a>>, findings: &mut Findings<'a>) -> Self {
        let path = Path::ROOT.child(DEFAULTS);
        let mut reading = Reading::on(Policy::default());
        match value {
            Some(value) if value.is_null() => findings.at(value, path, || {
                format!("null has no meaning here (leave \"{DEFAULTS}\" out)")
            }),
            Some(value) => {
                fields::object(value, path, &policy::FIELDS, findings, |entry, findings| {
                    let path = path.child(&entry.name);
                    if !fields::refuse_null(&entry, path, findings) {
                        reading.field(&entry, path, findings);
                    }
                });
            }
            None => {}
        }
        Self {
            policy: Arc::new(reading.policy),
            fallback: match reading.fallback {
                Fallback::To(name) => Some(name),
                Fallback::Inherited | Fallback::Off => None,
            },
            times: reading.times,
        }
    }
}
