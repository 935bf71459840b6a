//! What holds for every document, found by trying many.

use proptest::prelude::*;

use super::super::{compile, diagnose, fast_path};
use super::model::{model, style};
use super::nearly_valid::{Pair, nearly_valid, nearly_valid_policies, one_odd_field};

/// Both paths see the same document as valid, and problems are well formed.
fn assert_paths_agree(document: &[u8]) -> Result<(), TestCaseError> {
    let problems = diagnose::find(document);
    match fast_path(document) {
        Ok(_) => prop_assert_eq!(problems, []),
        Err(refusal) => prop_assert!(
            !problems.is_empty(),
            "only the fast path refuses: {}",
            refusal
        ),
    }
    let lines = 1 + document.iter().filter(|&&byte| byte == b'\n').count();
    if let Err(problems) = compile(document) {
        for problem in problems {
            prop_assert!(
                problem.line >= 1 && problem.line as usize <= lines,
                "{problem:?}"
            );
            prop_assert!(
                problem.column >= 1 && problem.column as usize <= document.len() + 1,
                "{problem:?}"
            );
            prop_assert!(problem.pointer.is_empty() || problem.pointer.starts_with('/'));
            prop_assert!(
                !problem.to_string().contains(['\n', '\r', '\u{1b}']),
                "{problem}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn routes_as_the_model_does(model in model(), style in style(), strangers in prop::collection::vec("\\PC{0,3}", 4)) {
        let document = model.document(&style);
        let table = match compile(document.as_bytes()) {
            Ok(table) => table,
            Err(problems) => return Err(TestCaseError::fail(format!("{document}: {}", problems[0]))),
        };
        prop_assert_eq!(table.key_count(), model.keys.len());
        for key in model.keys.iter().map(|(key, _)| key).chain(&strangers) {
            let route = table.route(key.as_bytes());
            let answer = (table.placement(route.placement).name.as_str(), route.reason);
            prop_assert_eq!(answer, model.route(key));
        }
        prop_assert_eq!(table.placements().len(), model.placements.len());
        for placement in table.placements() {
            let index = model.placements.iter().position(|home| home.name == placement.name).unwrap();
            let home = &model.placements[index];
            let fallback = placement.fallback.map(|id| table.placement(id).name.as_str());
            prop_assert_eq!(fallback, model.fallback(index));
            let weights: Vec<u32> = placement.endpoints.iter().map(|one| one.weight).collect();
            prop_assert_eq!(weights, if home.cell { vec![1] } else { home.weights.clone() });
        }
        prop_assert_eq!(diagnose::find(document.as_bytes()), []);
    }

    #[test]
    fn part_of_a_document_is_no_document(model in model(), style in style(), end in any::<prop::sample::Index>()) {
        let document = model.document(&style);
        let whole = document.trim_end().len();
        let part = &document.as_bytes()[..end.index(whole)];
        prop_assert!(compile(part).is_err());
        assert_paths_agree(part)?;
    }

    #[test]
    fn both_paths_agree_on_what_is_nearly_valid(document in nearly_valid()) {
        assert_paths_agree(document.as_bytes())?;
    }

    #[test]
    fn both_paths_agree_on_nearly_valid_policies(document in nearly_valid_policies()) {
        assert_paths_agree(document.as_bytes())?;
    }

    /// Whether these are valid is known from how they were made.
    #[test]
    fn one_odd_field_is_what_makes_a_document_wrong(pair in one_odd_field()) {
        let Pair { valid, odd } = pair;
        prop_assert!(compile(valid.as_bytes()).is_ok(), "{valid}: {:?}", compile(valid.as_bytes()));
        prop_assert!(compile(odd.as_bytes()).is_err(), "{odd}");
    }

    #[test]
    fn both_paths_agree_after_any_edit(
        model in model(),
        style in style(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, prop::collection::vec(any::<u8>(), 0..3)), 1..4),
    ) {
        let mut document = model.document(&style).into_bytes();
        for (at, removed, inserted) in edits {
            let at = at.index(document.len() + 1);
            let end = (at + removed).min(document.len());
            document.splice(at..end, inserted);
        }
        assert_paths_agree(&document)?;
        // What survives an edit is a document in its own right: whole.
        if let Ok(table) = compile(&document) {
            let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
            prop_assert_eq!(table.key_count(), value["routingTable"].as_object().unwrap().len());
            for (key, placement) in value["routingTable"].as_object().unwrap() {
                let route = table.route(key.as_bytes());
                prop_assert_eq!(&table.placement(route.placement).name, placement.as_str().unwrap());
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(document in prop::collection::vec(any::<u8>(), 0..64)) {
        assert_paths_agree(&document)?;
    }

    #[test]
    fn any_json_text_is_answered(document in "[\\[\\]{}:,\"a0 \\n\\\\-]{0,24}") {
        assert_paths_agree(document.as_bytes())?;
    }
}
