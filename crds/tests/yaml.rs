//! What is committed is what the types say: the written definitions, the examples, and the table of steps.
#![allow(clippy::unwrap_used)]

mod table;

use std::path::{Path, PathBuf};

use serde_json::Value;
use taffrail_crds::admission::{self, Fault, admit_kind};
use taffrail_crds::{Kind, manifest};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

#[test]
fn what_is_written_is_what_the_types_say() {
    let expected = taffrail_crds::written_files();
    for (name, text) in &expected {
        let present = std::fs::read_to_string(folder("..").join(name)).unwrap_or_default();
        assert!(present == *text, "{name} is out of date: run `make crds`");
    }
    for place in ["crds/yaml", "helm/taffrail/files/crds"] {
        let mut names =
            expected.iter().filter_map(|(name, _)| name.strip_prefix(place)?.strip_prefix('/')).collect::<Vec<_>>();
        names.sort_unstable();
        let written: Vec<_> =
            files(&format!("../{place}")).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(written, names, "{place} holds a file that no kind has");
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
fn every_example_for_kubernetes_is_admitted() {
    let mut found = Vec::new();
    for path in files("examples/kubernetes").into_iter().chain(files("examples/kubernetes/gitops")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}: a first line says what it shows", path.display());
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object: Value = serde::Deserialize::deserialize(document).unwrap();
            let Some(kind) = Kind::from_name(object["kind"].as_str().unwrap()) else {
                assert_eq!(object["kind"], "Kustomization", "{}", path.display());
                continue;
            };
            assert_eq!(admit_kind(kind, &object, None), vec![], "{}", path.display());
            found.push(kind);
        }
    }
    let count = |kind| found.iter().filter(|found| **found == kind).count();
    assert_eq!((count(Kind::Cluster), count(Kind::Topic)), (3, 4));
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

#[test]
fn m2_steps_are_taken_and_refused_as_the_table_says() {
    let tables = table::tables(&folder(""));
    assert_eq!(tables.len(), Kind::ALL.len(), "a table for each kind");
    let mut wrong = Vec::new();
    for table in &tables {
        let kind = Kind::from_name(&table.kind).unwrap();
        assert!(table.steps.iter().filter(|step| step.refused.is_some()).count() >= 8, "{}", table.kind);
        for step in &table.steps {
            let old = table.before(step);
            if let Some(old) = &old {
                assert_eq!(admit_kind(kind, old, None), vec![], "{}: what was there is legal", step.what);
            }
            let faults = admit_kind(kind, &table.after(step), old.as_ref());
            if !is_as_told(step, &faults) {
                wrong.push(format!("{}: {}: {faults:#?}", table.kind, step.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_as_told(step: &table::Step, faults: &[Fault]) -> bool {
    let Some(path) = &step.refused else { return faults.is_empty() };
    let there = |fault: &Fault| match path.as_str() {
        "" => fault.path.steps().is_empty(),
        path => fault.path.to_string().starts_with(path),
    };
    let says = |part: &String| faults.iter().any(|fault| fault.message.contains(part.as_str()));
    !faults.is_empty() && faults.iter().all(there) && step.says.as_ref().is_none_or(says)
}

/// Each rule compiles, has a message on one line, and each field is documented. Whether its rules may cost what they do is
/// for an API server to say.
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
        assert!(rules >= 4);
    }
}
