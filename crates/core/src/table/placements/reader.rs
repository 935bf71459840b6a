//! Placements read one after the other on top of the defaults, and linked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::fallback::{self, Fallback};
use super::fields::refuse_null;
use super::health::Pair;
use super::policy::{NULLABLE, Reading};
use super::targets::{PLACEMENT_FIELDS, Targets};
use super::{Cell, Declarations, Declared, Defaults, Home, Section, Within};
use crate::table::document::{DEFAULTS, PLACEMENTS};
use crate::table::findings::{Findings, Path};
use crate::table::locate::Raw;
use crate::table::object::{Entry, entries, fields};
use crate::table::policy::Policy;
use crate::table::routing_table::WeightedEndpoint;
use crate::table::rules::check_placement_name;

pub(super) struct Reader<'r, 'a> {
    defaults: &'r Defaults<'a>,
    declared: Vec<Declared<'a>>,
    homes: Vec<Home>,
    sections: usize,
    /// All sections are objects.
    readable: bool,
    /// A placement has the times of the default health check, unchanged.
    uses_default_check: bool,
    /// The policies so far, each once: thousands of placements have the same few.
    policies: HashSet<Arc<Policy>>,
}

impl<'r, 'a> Reader<'r, 'a> {
    pub fn new(defaults: &'r Defaults<'a>) -> Self {
        Self {
            defaults,
            declared: Vec::new(),
            homes: Vec::new(),
            sections: 0,
            readable: true,
            uses_default_check: false,
            policies: HashSet::new(),
        }
    }

    pub fn section(&mut self, section: Section<'a>, findings: &mut Findings<'a>) {
        self.sections += 1;
        match section {
            Section::Cells(cells) => self.cells(cells, findings),
            Section::Placements(value) => self.placements(value, findings),
            Section::Unreadable => self.readable = false,
        }
    }

    fn cells(&mut self, cells: Vec<Cell<'a>>, findings: &Findings<'a>) {
        self.uses_default_check |= !cells.is_empty();
        for cell in cells {
            let endpoint = cell.endpoint.map(|endpoint| WeightedEndpoint {
                endpoint,
                weight: 1,
            });
            let declared = Declared {
                name: cell.name,
                key: cell.key,
                within: Within::CellEndpoints,
                fallback: Fallback::Inherited,
            };
            let home = Home {
                endpoints: endpoint.into_iter().collect(),
                policy: Arc::clone(&self.defaults.policy),
            };
            self.add(declared, home, findings);
        }
    }

    fn add(&mut self, declared: Declared<'a>, home: Home, findings: &Findings<'a>) {
        self.declared.push(declared);
        if findings.count() == 0 {
            self.homes.push(home);
        } else if !self.homes.is_empty() {
            self.homes = Vec::new();
        }
    }

    fn placements(&mut self, value: Raw<'a>, findings: &mut Findings<'a>) {
        let path = Path::ROOT.child(PLACEMENTS);
        let read = |entry: Entry<'a>, findings: &mut Findings<'a>| {
            let again = entry.again;
            let (declared, home) = self.placement(entry, path, findings);
            // The name is known; nothing is left to find out but its fallback.
            if !again || matches!(declared.fallback, Fallback::To(_)) {
                self.add(declared, home, findings);
            }
        };
        if !entries(value, path, findings, check_placement_name, read) {
            self.readable = false;
            findings.at(value, path, || {
                format!(
                    "expected an object of placements, found {}",
                    value.described()
                )
            });
        }
    }

    fn placement(
        &mut self,
        placement: Entry<'a>,
        parent: Path<'_>,
        findings: &mut Findings<'a>,
    ) -> (Declared<'a>, Home) {
        let path = parent.child(&placement.name);
        let mut reading = Reading::on((*self.defaults.policy).clone());
        let mut targets = Targets::default();
        let read = |entry: Entry<'a>, findings: &mut Findings<'a>| {
            let path = path.child(&entry.name);
            if NULLABLE.contains(&&*entry.name) && entry.value.is_null() {
                reading.off(&entry.name);
                return;
            }
            targets.field(&entry, path, findings);
            if !refuse_null(&entry, path, findings) {
                reading.field(&entry, path, findings);
            }
        };
        let value = placement.value;
        match fields(value, path, &PLACEMENT_FIELDS, findings, read) {
            None => findings.at(value, path, || not_a_placement(value)),
            Some(strays) => targets.check(value, &strays, path, findings),
        }
        self.check_times(&reading, path, findings);
        let declared = Declared {
            name: placement.name,
            key: Some(placement.key),
            within: Within::Placements,
            fallback: reading.fallback,
        };
        let home = Home {
            endpoints: targets.endpoints,
            policy: self.shared(reading.policy),
        };
        (declared, home)
    }

    /// The times of a merged health check, which may come from two places.
    fn check_times(&mut self, reading: &Reading<'a>, path: Path<'_>, findings: &mut Findings<'a>) {
        let Some(check) = &reading.policy.health_check else {
            return;
        };
        let readable = |times: &Option<Pair<'_>>| times.as_ref().is_none_or(|pair| pair.readable);
        if !readable(&reading.times) || !readable(&self.defaults.times) {
            return;
        }
        match &reading.times {
            Some(own) if own.is_given() => own.check(check, path, findings),
            _ => self.uses_default_check = true,
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

    /// Judges what spans placements, and links them.
    pub fn finish(self, findings: &mut Findings<'a>) -> Option<Declarations<'a>> {
        if self.uses_default_check
            && let (Some(check), Some(times)) =
                (&self.defaults.policy.health_check, &self.defaults.times)
            && times.readable
        {
            times.check(check, Path::ROOT.child(DEFAULTS), findings);
        }
        if self.sections > 1 {
            self.check_names(findings);
        }
        if self.sections == 0 || !self.readable {
            return None;
        }
        let fallbacks = fallback::link(&self.declared, self.defaults.fallback, findings);
        Some(Declarations {
            declared: self.declared,
            homes: self.homes,
            fallbacks,
        })
    }

    /// Reports placements of one section that an earlier section has, too.
    fn check_names(&self, findings: &mut Findings<'a>) {
        let mut seen: HashMap<&str, &Declared<'a>> = HashMap::with_capacity(self.declared.len());
        for declared in &self.declared {
            let Some(first) = seen.get(&*declared.name) else {
                seen.insert(&declared.name, declared);
                continue;
            };
            if first.within == declared.within {
                continue;
            }
            let (first_field, field) = (first.within.field(), declared.within.field());
            let section = Path::ROOT.child(field);
            let path = section.child(&declared.name);
            let what = || format!("placement in {first_field} and {field}");
            match (declared.key, first.key) {
                (Some(again), Some(first)) => findings.duplicate(again, first, path, what),
                (Some(key), None) | (None, Some(key)) => findings.at(key, path, what),
                (None, None) => {}
            }
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
