//! What is committed is what the types say: the written definitions, the examples, and the table of steps.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use taffrail_crds::admission::{self, admit};
use taffrail_crds::manifest;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn written_definitions_are_those_of_the_types() {
    let expected = taffrail_crds::yaml_files();
    let written: Vec<_> = files("yaml").iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    let names: Vec<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(written, names);
    for (name, text) in &expected {
        let present = std::fs::read_to_string(folder("yaml").join(name)).unwrap();
        assert!(present == *text, "{name} is out of date: run `cargo run --release -p taffrail-crds --bin crdgen`");
    }
}

#[test]
fn every_example_is_admitted_and_says_what_it_is() {
    let files = files("examples");
    assert!(files.len() >= 4);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}: a first line says what it shows", path.display());
        let documents = manifest::parse(&text, &path.to_string_lossy()).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert!(!documents.is_empty(), "{}", path.display());
    }
}

#[test]
fn examples_but_the_replicated_one_run_on_a_standalone_broker() {
    for path in files("examples") {
        let documents = manifest::parse(&std::fs::read_to_string(&path).unwrap(), "example").unwrap();
        let faults: Vec<_> = documents.iter().flat_map(|document| admission::standalone(&document.topic)).collect();
        let places: Vec<_> = faults.iter().map(|fault| fault.path.to_string()).collect();
        let expected: &[&str] = if path.ends_with("replicated.yaml") {
            &["spec.replicationFactor", "spec.config.minInSyncReplicas"]
        } else {
            &[]
        };
        assert_eq!(places, expected, "{}", path.display());
    }
}

/// One line of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(rename = "step")]
    what: String,
    #[serde(default = "t")]
    name: String,
    #[serde(default)]
    old: Option<Value>,
    new: Value,
    #[serde(default)]
    refused: Option<String>,
}

fn t() -> String {
    "t".to_owned()
}

#[test]
fn m2_steps_are_taken_and_refused_as_the_table_says() {
    let text = std::fs::read_to_string(folder("tests/data/steps.yaml")).unwrap();
    let steps: Vec<Step> = serde_yaml::from_str(&text).unwrap();
    assert!(steps.iter().filter(|step| step.refused.is_some()).count() > 30);
    for Step { what, name, old, new, refused } in steps {
        let object = |spec: &Value| json!({"apiVersion": "taffrail.dev/v1alpha1", "kind": "Topic", "metadata": {"name": name}, "spec": spec});
        if let Some(old) = &old {
            assert_eq!(admit(&object(old), None), vec![], "{what}: what was there is legal");
        }
        let faults = admit(&object(&new), old.as_ref().map(object).as_ref());
        match refused {
            None => assert_eq!(faults, vec![], "{what}"),
            Some(path) => {
                assert!(!faults.is_empty(), "{what}: taken");
                let all_there = faults.iter().all(|fault| match path.as_str() {
                    "" => fault.path.steps().is_empty(),
                    path => fault.path.to_string().starts_with(path),
                });
                assert!(all_there, "{what}: {faults:#?}");
            }
        }
    }
}

/// What an API server asks of a definition and this build has none to ask: each rule compiles, has a message on one line,
/// and each field is documented.
#[test]
fn rules_compile_and_every_field_is_documented() {
    fn walk(schema: &Value, path: &str, rules: &mut usize) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            kube::core::cel::cel::Program::compile(text).unwrap_or_else(|error| panic!("{path}: {text}: {error}"));
            let message = rule["message"].as_str().unwrap_or_else(|| panic!("{path}: a rule without a message"));
            assert!(!message.contains('\n') && message.len() < 2048, "{path}");
            *rules += 1;
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            assert!(field["description"].as_str().is_some_and(|text| text.len() > 10), "{path} has no documentation");
            walk(field, &path, rules);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], path, rules);
        }
    }
    for definition in taffrail_crds::all() {
        let definition = serde_json::to_value(definition).unwrap();
        let mut rules = 0;
        walk(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut rules);
        assert!(rules >= 8);
    }
}
