//! Placements read one after the other on top of the defaults, and linked.

use std::collections::HashMap;
use std::sync::Arc;

use super::fallback::{self, Fallback};
use super::fields;
use super::health::Pair;
use super::policy::{NULLABLE, Reading};
use super::targets::{PLACEMENT_FIELDS, Targets};
use super::{Cell, Declared, Defaults, Section};
use crate::routing::document::{CELL_ENDPOINTS, DEFAULTS, PLACEMENTS};
use crate::routing::findings::{Findings, Path};
use crate::routing::locate::Raw;
use crate::routing::object::{Entry, entries, one_of};
use crate::routing::policy::Policy;
use crate::routing::rules::check_placement_name;
use crate::routing::table::{Placement, WeightedEndpoint};

pub(super) struct Reader<'r, 'a> {
    defaults: &'r Defaults<'a>,
    findings: &'r mut Findings<'a>,
    declared: Vec<Declared<'a>>,
    sections: usize,
    /// All sections are objects.
    readable: bool,
    /// A placement has the times of the default health check, unchanged.
    uses_default_check: bool,
    /// The policy of the placement before: neighbours often have the same.
    last: Arc<Policy>,
}

impl<'r, 'a> Reader<'r, 'a> {
    pub fn new(defaults: &'r Defaults<'a>, findings: &'r mut Findings<'a>) -> Self {
        Self {
            defaults,
            findings,
            declared: Vec::new(),
            sections: 0,
            readable: true,
            uses_default_check: false,
            last: Arc::clone(&defaults.policy),
        }
    }

    pub fn section(&mut self, section: Section<'a>) {
        self.sections += 1;
        match section {
            Section::Cells(cells) => self.cells(cells),
            Section::Placements(value) => self.placements(value),
            Section::Unreadable => self.readable = false,
        }
    }

    fn cells(&mut self, cells: Vec<Cell<'a>>) {
        self.uses_default_check |= !cells.is_empty();
        let policy = &self.defaults.policy;
        self.declared.extend(cells.into_iter().map(|cell| {
            Declared {
                name: cell.name,
                key: cell.key,
                section: CELL_ENDPOINTS,
                endpoints: cell
                    .endpoint
                    .map(|endpoint| WeightedEndpoint {
                        endpoint,
                        weight: 1,
                    })
                    .into_iter()
                    .collect(),
                policy: Arc::clone(policy),
                fallback: Fallback::Inherited,
            }
        }));
    }

    fn placements(&mut self, value: Raw<'a>) {
        let path = Path::ROOT.child(PLACEMENTS);
        let Some(members) = value.members() else {
            self.readable = false;
            self.findings.at(value, path, || {
                format!(
                    "expected an object of placements, found {}",
                    value.described()
                )
            });
            return;
        };
        for entry in entries(members, path, self.findings, check_placement_name) {
            let declared = self.placement(entry, path);
            self.declared.push(declared);
        }
    }

    fn placement(&mut self, placement: Entry<'a>, parent: Path<'_>) -> Declared<'a> {
        let path = parent.child(&placement.name);
        let mut reading = Reading::on((*self.defaults.policy).clone());
        let mut targets = Targets::default();
        match placement.value.members() {
            None => self
                .findings
                .at(placement.value, path, || not_a_placement(placement.value)),
            Some(members) => {
                let known = one_of(&PLACEMENT_FIELDS);
                for entry in entries(members, path, self.findings, known) {
                    let path = path.child(&entry.name);
                    if NULLABLE.contains(&&*entry.name) && entry.value.is_null() {
                        reading.off(&entry.name);
                        continue;
                    }
                    targets.field(&entry, path, self.findings);
                    if !fields::refuse_null(&entry, path, self.findings) {
                        reading.field(&entry, path, self.findings);
                    }
                }
                targets.check(placement.value, path, self.findings);
            }
        }
        self.check_times(&reading, path);
        Declared {
            name: placement.name,
            key: Some(placement.key),
            section: PLACEMENTS,
            endpoints: targets.endpoints,
            policy: self.shared(reading.policy),
            fallback: reading.fallback,
        }
    }

    /// The times of a merged health check, which may come from two places.
    fn check_times(&mut self, reading: &Reading<'a>, path: Path<'_>) {
        let Some(check) = &reading.policy.health_check else {
            return;
        };
        let readable = |times: &Option<Pair<'_>>| times.as_ref().is_none_or(|pair| pair.readable);
        if !readable(&reading.times) || !readable(&self.defaults.times) {
            return;
        }
        match &reading.times {
            Some(own) if own.is_given() => own.check(check, path, self.findings),
            _ => self.uses_default_check = true,
        }
    }

    fn shared(&mut self, policy: Policy) -> Arc<Policy> {
        if policy == *self.defaults.policy {
            return Arc::clone(&self.defaults.policy);
        }
        if policy != *self.last {
            self.last = Arc::new(policy);
        }
        Arc::clone(&self.last)
    }

    /// Judges what spans placements, and links them.
    pub fn finish(mut self) -> Option<Vec<Placement>> {
        if self.uses_default_check
            && let (Some(check), Some(times)) =
                (&self.defaults.policy.health_check, &self.defaults.times)
            && times.readable
        {
            times.check(check, Path::ROOT.child(DEFAULTS), self.findings);
        }
        if self.sections > 1 {
            self.check_names();
        }
        if self.sections == 0 || !self.readable {
            return None;
        }
        let fallbacks = fallback::link(
            &self.declared,
            self.defaults.fallback.as_ref(),
            self.findings,
        );
        let mut placements = Vec::with_capacity(self.declared.len());
        placements.extend(
            self.declared
                .into_iter()
                .zip(fallbacks)
                .map(|(declared, fallback)| Placement {
                    name: declared.name.into_owned(),
                    endpoints: declared.endpoints,
                    policy: declared.policy,
                    fallback,
                }),
        );
        Some(placements)
    }

    /// Reports placements of one section that an earlier section has, too.
    fn check_names(&mut self) {
        let mut seen: HashMap<&str, &Declared<'a>> = HashMap::with_capacity(self.declared.len());
        for declared in &self.declared {
            let Some(first) = seen.get(&*declared.name) else {
                seen.insert(&declared.name, declared);
                continue;
            };
            if first.section == declared.section {
                continue;
            }
            let section = Path::ROOT.child(declared.section);
            let path = section.child(&declared.name);
            let what = || format!("placement in {} and {}", first.section, declared.section);
            match (declared.key, first.key) {
                (Some(again), Some(first)) => self.findings.duplicate(again, first, path, what),
                (Some(key), None) | (None, Some(key)) => self.findings.at(key, path, what),
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
