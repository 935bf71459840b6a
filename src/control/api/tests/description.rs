//! The OpenAPI description, and whether the API answers as it says.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Answer, Api};
use crate::control::api::openapi::OPENAPI;

const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"];

/// What the API says of itself.
pub(super) struct Description {
    all: Value,
    /// By reference to the part of a response.
    schemas: BTreeMap<String, Validator>,
}

impl Description {
    pub fn read() -> Self {
        let all: Value = serde_json::from_str(&OPENAPI).unwrap();
        let mut schemas = BTreeMap::new();
        for (path, method, operation) in operations(&all) {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolved(&all, response);
                let schema = &response["content"]["application/json"]["schema"];
                if schema.is_null() {
                    continue;
                }
                let schema = json!({"allOf": [schema], "components": all["components"]});
                let validator = jsonschema::draft202012::new(&schema);
                let validator = validator.unwrap_or_else(|error| panic!("{path}: {error}"));
                schemas.insert(format!("{method} {path} {status}"), validator);
            }
        }
        Self { all, schemas }
    }

    /// Panics unless `answer` is one that the description has.
    #[track_caller]
    pub fn check(&self, method: &Method, target: &str, answer: &Answer) {
        let asked = format!("{method} {target} {}", answer.status);
        let path = target.split('?').next().unwrap();
        let described = self.template(path);
        let lookup = if method == Method::HEAD {
            "get"
        } else {
            method.as_str()
        };
        let operation = described.and_then(|described| {
            let operation = self.all["paths"][described].get(lookup.to_lowercase());
            Some((described, operation?))
        });
        let Some((described, operation)) = operation else {
            // No path or no method, and nothing else: whoever may not ask learns only that.
            let status = answer.status.as_u16();
            let expected = if described.is_some() { 405 } else { 404 };
            assert!(
                [expected, 401, 403].contains(&status),
                "{asked} is not described"
            );
            if method != Method::HEAD {
                assert!(answer.json()["error"].is_string(), "{asked}");
            }
            return;
        };
        let status = answer.status.as_str();
        let response = operation["responses"].get(status);
        let response = response.unwrap_or_else(|| panic!("{asked} is not described"));
        let response = resolved(&self.all, response);
        if let Some(headers) = response["headers"].as_object().filter(|_| status != "404") {
            let optional = described == "/api/v1/generations" || status == "412";
            for name in headers.keys().filter(|_| !optional) {
                assert!(!answer.header(name).is_empty(), "{asked}: no {name}");
            }
        }
        let key = format!("{} {described} {status}", lookup.to_uppercase());
        let Some(validator) = self.schemas.get(&key) else {
            assert_eq!(answer.body, "", "{asked}");
            return;
        };
        assert_eq!(answer.header("content-type"), "application/json", "{asked}");
        if method != Method::HEAD {
            let body = answer.json();
            let errors = validator.iter_errors(&body);
            let errors: Vec<_> = errors
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{asked}: {errors:#?}\n{}", answer.body);
        }
    }

    fn template(&self, path: &str) -> Option<&str> {
        let paths = self.all["paths"].as_object().unwrap();
        paths
            .keys()
            .map(String::as_str)
            .find(|template| matches(template, path))
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(name), Some(part)) if name.starts_with('{') && !part.is_empty() => {}
            (Some(name), Some(part)) if name == part => {}
            _ => return false,
        }
    }
}

fn operations(all: &Value) -> impl Iterator<Item = (&str, String, &Value)> {
    let paths = all["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods
            .filter(|(method, _)| *method != "parameters")
            .map(|(method, operation)| (path.as_str(), method.to_uppercase(), operation))
    })
}

fn resolved<'a>(all: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap();
            let found = all.pointer(pointer);
            found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
    }
}

/// Calls `see` for every reference below `value`.
fn references<'a>(value: &'a Value, see: &mut impl FnMut(&'a str)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(reference) if name == "$ref" => see(reference),
                    _ => references(member, see),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|each| references(each, see)),
        _ => {}
    }
}

/// The described query parameters are the ones that the handlers accept, within the same bounds.
#[tokio::test]
async fn query_parameters_are_the_ones_that_are_accepted() {
    let api = Api::new().await;
    let all: Value = serde_json::from_str(&OPENAPI).unwrap();
    for (path, method, operation) in operations(&all) {
        if path == "/api/v1/openapi.json" {
            continue;
        }
        let target = path.replace("{generation}", "1").replace(['{', '}'], "");
        let target = target.strip_prefix("/api/v1").unwrap();
        let ask = async |query: &str| {
            let target = format!("{target}?{query}");
            api.ask(&method, &target, &[], "").await
        };
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters: Vec<_> = parameters.filter(|it| it["in"] == "query").collect();
        let mut names: Vec<_> = parameters
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        names.sort_unstable();
        let answer = ask("nope=1").await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid_query".to_owned()),
            "{path}"
        );
        let message = answer.message();
        let valid = message.split_once("valid: ").map_or("", |(_, names)| names);
        let mut valid: Vec<_> = valid
            .trim_end_matches(')')
            .split(", ")
            .filter(|name| !name.is_empty())
            .collect();
        valid.sort_unstable();
        assert_eq!(valid, names, "{method} {path}: {message}");
        for parameter in parameters {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
                let Some(bound) = schema[bound].as_i64() else {
                    continue;
                };
                let query = format!("{name}={}", bound + beyond);
                assert_eq!(ask(&query).await.refusal().0, 400, "{path}?{query}");
                let query = format!("{name}={bound}");
                assert_ne!(ask(&query).await.status, 400, "{path}?{query}");
            }
        }
    }
}

#[tokio::test]
async fn every_other_method_is_refused_with_those_that_are_not() {
    let api = Api::new().await;
    let all: Value = serde_json::from_str(&OPENAPI).unwrap();
    for path in all["paths"].as_object().unwrap().keys() {
        let described: BTreeSet<String> = operations(&all)
            .filter(|(of, _, _)| of == path)
            .map(|(_, method, _)| method)
            .collect();
        let target = path.replace(['{', '}'], "");
        let target = target.strip_prefix("/api/v1").unwrap();
        for method in METHODS {
            let answer = api.ask(method, target, &[], "").await;
            let refused = answer.status.as_u16() == 405;
            assert_eq!(refused, !described.contains(method), "{method} {path}");
            if refused {
                let allowed: BTreeSet<String> = answer
                    .header("allow")
                    .split(',')
                    .map(|method| method.trim().to_owned())
                    .filter(|method| method != "HEAD")
                    .collect();
                assert_eq!(allowed, described, "{path}");
                assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()));
            }
        }
    }
}

#[test]
fn it_is_whole() {
    let all: Value = serde_json::from_str(&OPENAPI).unwrap();
    assert_eq!(all["openapi"], "3.1.0");
    let mut used = BTreeSet::new();
    references(&all, &mut |reference| {
        resolved(&all, &json!({ "$ref": reference }));
        used.insert(reference.to_owned());
    });
    for (name, component) in all["components"]["schemas"].as_object().unwrap() {
        let reference = format!("#/components/schemas/{name}");
        assert!(used.contains(&reference), "{reference} is not used");
        assert!(jsonschema::meta::is_valid(component), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&all) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} twice");
        assert!(operation["summary"].is_string(), "{method} {path}");
        // Every name in the path is a parameter, and the other way round.
        let of_path = &all["paths"][path]["parameters"];
        let parameters = [of_path, &operation["parameters"]].into_iter();
        let named: BTreeSet<_> = parameters
            .filter_map(Value::as_array)
            .flatten()
            .map(|parameter| resolved(&all, parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let in_path = path.split('/').filter(|part| part.starts_with('{'));
        let in_path: BTreeSet<_> = in_path.map(str::to_owned).collect();
        assert_eq!(named, in_path, "{method} {path}");
    }
}

#[test]
fn a_wrong_answer_would_be_noticed() {
    let description = Description::read();
    let answer = |status: u16, body: &str| Answer {
        status: status.try_into().unwrap(),
        headers: [("content-type", "application/json"), ("etag", "\"x\"")]
            .into_iter()
            .map(|(name, value)| (name.try_into().unwrap(), value.try_into().unwrap()))
            .collect(),
        body: body.to_owned(),
    };
    let good = r#"{"key": "a", "placement": "b", "generation": 1}"#;
    let check = |target: &str, answer: Answer| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            description.check(&Method::GET, target, &answer);
        }))
        .is_ok()
    };
    assert!(check("/api/v1/keys/a", answer(200, good)));
    assert!(!check("/api/v1/keys/a", answer(201, good)));
    assert!(!check("/api/v1/key/a", answer(200, good)));
    assert!(!check("/api/v1/keys/a", answer(200, r#"{"key": "a"}"#)));
    let more = good.replace('}', r#", "more": 1}"#);
    assert!(!check("/api/v1/keys/a", answer(200, &more)));
    assert!(!check("/api/v1/keys/a", answer(304, good)));
}

#[tokio::test]
async fn it_is_served() {
    let served = Api::empty().await.get("/openapi.json").await.is(200);
    assert_eq!(served.body, *OPENAPI);
}
