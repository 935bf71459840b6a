//! Reads the placements of a document: `cellEndpoints`, which gives each placement a URL,
//! `placements`, which gives it settings as well, and `defaults` for both.
//!
//! The fast path and `diagnose` both call [`read`], so the rules are written once. It reads
//! the text of the document and collects problems with their places; the fast path refuses
//! the document when there is one.
//!
//! Settings are merged by reading them on top of each other: the built-in policy, then
//! `defaults`, then the placement.

mod endpoints;
mod fallback;
mod health_check;
mod policy;
mod values;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::endpoints::{Endpoints, PLACEMENT_FIELDS};
use self::fallback::Fallback;
use self::health_check::Times;
use self::policy::{NULLABLE, PolicyReader};
use super::document::{CELL_ENDPOINTS, DEFAULTS, PLACEMENTS};
use super::findings::{Entry, Findings, Path, entries, fields};
use super::json::Raw;
use super::policy::Policy;
use super::routing_table::{Placement, PlacementId, WeightedEndpoint};
use super::values::check_placement_name;

/// A field of a document that declares placements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Placements,
    CellEndpoints,
}

impl Section {
    fn field(self) -> &'static str {
        match self {
            Self::Placements => PLACEMENTS,
            Self::CellEndpoints => CELL_ENDPOINTS,
        }
    }

    fn path(self) -> &'static Path<'static> {
        const PLACEMENTS_PATH: Path<'_> = Path::ROOT.child(PLACEMENTS);
        const CELL_ENDPOINTS_PATH: Path<'_> = Path::ROOT.child(CELL_ENDPOINTS);
        match self {
            Self::Placements => &PLACEMENTS_PATH,
            Self::CellEndpoints => &CELL_ENDPOINTS_PATH,
        }
    }
}

/// A placement by name: what the rest of the document may refer to.
struct Declared<'a> {
    name: Cow<'a, str>,
    /// Where the name stands.
    key: Raw<'a>,
    section: Section,
    fallback: Fallback<'a>,
}

impl Declared<'_> {
    fn path(&self) -> Path<'_> {
        self.section.path().child(&self.name)
    }
}

/// The settings of a placement.
struct Settings {
    endpoints: Box<[WeightedEndpoint]>,
    policy: Arc<Policy>,
}

/// The placements that a document declares, in its order.
pub(super) struct Declarations<'a> {
    declared: Vec<Declared<'a>>,
    /// The settings of each placement. Empty once a problem is found, to save memory.
    settings: Vec<Settings>,
    fallbacks: Vec<Option<PlacementId>>,
}

impl Declarations<'_> {
    /// The names. A name that is declared twice may be listed twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|declared| &*declared.name)
    }

    /// The placements of the table. The document must have no problems.
    pub fn into_placements(self) -> Vec<Placement> {
        // Not `collect`, which would leave room for more: it reuses the larger vector.
        let mut placements = Vec::with_capacity(self.declared.len());
        let settings = self.settings.into_iter().zip(self.fallbacks);
        placements.extend(self.declared.into_iter().zip(settings).map(
            |(declared, (settings, fallback))| Placement {
                name: declared.name.into_owned(),
                endpoints: settings.endpoints,
                policy: settings.policy,
                fallback,
            },
        ));
        placements
    }
}

/// Reads `defaults` and `sections`, in the order of the document, and reports their problems
/// to `findings`, which also decide whether to stop at the first one.
///
/// Returns `None` if there is no section or one that is not an object: then it is unknown
/// which names of placements are valid.
pub(super) fn read<'a>(
    defaults: Option<Raw<'a>>,
    sections: Vec<(Section, Raw<'a>)>,
    findings: &mut Findings<'a>,
) -> Option<Declarations<'a>> {
    let defaults = Defaults::read(defaults, findings);
    let mut reader = Reader {
        defaults: &defaults,
        declared: Vec::new(),
        settings: Vec::new(),
        uses_default_times: false,
        policies: HashSet::new(),
    };
    let mut readable = !sections.is_empty();
    for (section, value) in &sections {
        readable &= match section {
            Section::Placements => reader.placements(*value, findings),
            Section::CellEndpoints => reader.cell_endpoints(*value, findings),
        };
    }
    if reader.uses_default_times
        && let (Some(check), Some(times)) = (&defaults.policy.health_check, &defaults.times)
        && times.readable
    {
        times.check(check, Path::ROOT.child(DEFAULTS), findings);
    }
    if sections.len() > 1 {
        check_names(&reader.declared, findings);
    }
    if !readable {
        return None;
    }
    Some(Declarations {
        fallbacks: fallback::resolve(&reader.declared, defaults.fallback, findings),
        declared: reader.declared,
        settings: reader.settings,
    })
}

/// The settings that placements inherit.
struct Defaults<'a> {
    policy: Arc<Policy>,
    /// The name of the default fallback.
    fallback: Option<Raw<'a>>,
    /// The times of the health check that `defaults` give.
    times: Option<Times<'a>>,
}

impl<'a> Defaults<'a> {
    fn read(value: Option<Raw<'a>>, findings: &mut Findings<'a>) -> Self {
        let path = Path::ROOT.child(DEFAULTS);
        let mut reader = PolicyReader::new(Policy::default());
        match value {
            Some(value) if value.is_null() => findings.at(value, path, || {
                format!("null has no meaning here (leave \"{DEFAULTS}\" out)")
            }),
            Some(value) => {
                let read = |entry: &Entry<'a>, path: Path<'_>, findings: &mut Findings<'a>| {
                    reader.field(entry, path, findings);
                };
                values::members(value, path, &policy::FIELDS, findings, read);
            }
            None => {}
        }
        Self {
            policy: Arc::new(reader.policy),
            fallback: match reader.fallback {
                Fallback::To(name) => Some(name),
                Fallback::Inherited | Fallback::Off => None,
            },
            times: reader.times,
        }
    }
}

/// Reads placements on top of the defaults.
struct Reader<'r, 'a> {
    defaults: &'r Defaults<'a>,
    declared: Vec<Declared<'a>>,
    settings: Vec<Settings>,
    /// Whether a placement has the times of the default health check.
    uses_default_times: bool,
    /// All policies so far. Thousands of placements share a few.
    policies: HashSet<Arc<Policy>>,
}

impl<'a> Reader<'_, 'a> {
    /// Returns whether `value` is an object.
    fn cell_endpoints(&mut self, value: Raw<'a>, findings: &mut Findings<'a>) -> bool {
        let path = Section::CellEndpoints.path();
        let read = |entry: Entry<'a>, findings: &mut Findings<'a>| {
            let endpoint = endpoints::url(entry.value, path.child(&entry.name), findings);
            if entry.again {
                return;
            }
            self.uses_default_times = true;
            let declared = Declared {
                name: entry.name,
                key: entry.key,
                section: Section::CellEndpoints,
                fallback: Fallback::Inherited,
            };
            let settings = Settings {
                endpoints: endpoint.map(WeightedEndpoint::from).into_iter().collect(),
                policy: Arc::clone(&self.defaults.policy),
            };
            self.add(declared, settings, findings);
        };
        let is_object = entries(value, *path, findings, check_placement_name, read);
        if !is_object {
            findings.at(value, *path, || {
                let found = value.described();
                format!("expected an object of placements and URLs, found {found}")
            });
        }
        is_object
    }

    /// Returns whether `value` is an object.
    fn placements(&mut self, value: Raw<'a>, findings: &mut Findings<'a>) -> bool {
        let path = Section::Placements.path();
        let read = |entry: Entry<'a>, findings: &mut Findings<'a>| {
            let again = entry.again;
            let (declared, settings) = self.placement(entry, findings);
            // A second placement of the same name is kept only to check its fallback.
            if !again || matches!(declared.fallback, Fallback::To(_)) {
                self.add(declared, settings, findings);
            }
        };
        let is_object = entries(value, *path, findings, check_placement_name, read);
        if !is_object {
            findings.at(value, *path, || {
                let found = value.described();
                format!("expected an object of placements, found {found}")
            });
        }
        is_object
    }

    fn placement(
        &mut self,
        placement: Entry<'a>,
        findings: &mut Findings<'a>,
    ) -> (Declared<'a>, Settings) {
        let path = Section::Placements.path().child(&placement.name);
        let mut reader = PolicyReader::new((*self.defaults.policy).clone());
        let mut endpoints = Endpoints::default();
        let read = |entry: Entry<'a>, findings: &mut Findings<'a>| {
            let path = path.child(&entry.name);
            if NULLABLE.contains(&&*entry.name) && entry.value.is_null() {
                reader.off(&entry.name);
                return;
            }
            endpoints.field(&entry, path, findings);
            if !values::refuse_null(&entry, path, findings) {
                reader.field(&entry, path, findings);
            }
        };
        let value = placement.value;
        match fields(value, path, &PLACEMENT_FIELDS, findings, read) {
            None => findings.at(value, path, || not_a_placement(value)),
            Some(unknown) => endpoints.check(value, &unknown, path, findings),
        }
        self.check_times(&reader, path, findings);
        let settings = Settings {
            endpoints: endpoints.list,
            policy: self.shared(reader.policy),
        };
        let declared = Declared {
            name: placement.name,
            key: placement.key,
            section: Section::Placements,
            fallback: reader.fallback,
        };
        (declared, settings)
    }

    fn add(&mut self, declared: Declared<'a>, settings: Settings, findings: &Findings<'a>) {
        self.declared.push(declared);
        if findings.count() == 0 {
            self.settings.push(settings);
        } else {
            self.settings = Vec::new();
        }
    }

    /// Checks the times of a merged health check, each of which may come from the placement
    /// or from `defaults`.
    fn check_times(
        &mut self,
        reader: &PolicyReader<'a>,
        path: Path<'_>,
        findings: &mut Findings<'a>,
    ) {
        let Some(check) = &reader.policy.health_check else {
            return;
        };
        let readable = |times: &Option<Times<'_>>| times.is_none_or(|times| times.readable);
        if !readable(&reader.times) || !readable(&self.defaults.times) {
            return;
        }
        match &reader.times {
            Some(own) if own.is_given() => own.check(check, path, findings),
            _ => self.uses_default_times = true,
        }
    }

    fn shared(&mut self, policy: Policy) -> Arc<Policy> {
        if policy == *self.defaults.policy {
            return Arc::clone(&self.defaults.policy);
        }
        if let Some(known) = self.policies.get(&policy) {
            return Arc::clone(known);
        }
        let policy = Arc::new(policy);
        self.policies.insert(Arc::clone(&policy));
        policy
    }
}

/// Reports placements that both sections declare.
fn check_names<'a>(placements: &[Declared<'a>], findings: &mut Findings<'a>) {
    let mut seen: HashMap<&str, &Declared<'a>> = HashMap::with_capacity(placements.len());
    for declared in placements {
        let Some(first) = seen.get(&*declared.name) else {
            seen.insert(&declared.name, declared);
            continue;
        };
        if first.section != declared.section {
            findings.duplicate(declared.key, first.key, declared.path(), || {
                let (first, second) = (first.section.field(), declared.section.field());
                format!("placement in {first} and {second}")
            });
        }
    }
}

fn not_a_placement(value: Raw<'_>) -> String {
    let hint = match value.string() {
        Ok(_) => " (write {\"url\": \"http://host:port\"}, or move it to cellEndpoints)",
        Err(_) => "",
    };
    format!(
        "expected an object with a url or endpoints, found {}{hint}",
        value.described()
    )
}
