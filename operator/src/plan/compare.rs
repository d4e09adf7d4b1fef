//! What differs between two pod templates, and between two configuration files, in lines for people.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cluster::labels::CONFIG_HASH;

/// What differs of pods, one line for each field. The hash of the configuration says nothing that [`lines`] does not.
pub(super) fn pods(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differences("pod", old, new, &mut found);
    found
}

fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new || path.ends_with(CONFIG_HASH) {
        return;
    }
    let (fields, others) = (parts(old), parts(new));
    let (Some(fields), Some(others)) = (fields, others) else {
        found.push(format!("{path}: {} -> {}", show(old), show(new)));
        return;
    };
    let names: BTreeSet<_> = fields.keys().chain(others.keys()).collect();
    for name in names {
        let part = |parts: &BTreeMap<String, Value>| parts.get(name).cloned().unwrap_or_default();
        differences(&format!("{path}.{name}"), &part(&fields), &part(&others), found);
    }
}

/// The parts of an object by name, and of a list of named ones too, so that one more is one line. What is not there has none.
fn parts(value: &Value) -> Option<BTreeMap<String, Value>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Object(fields) => Some(fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
        Value::Array(entries) => {
            let name = |(place, entry): (usize, &Value)| {
                entry["name"].as_str().map_or_else(|| place.to_string(), str::to_owned)
            };
            Some(entries.iter().enumerate().map(|(place, entry)| (name((place, entry)), entry.clone())).collect())
        }
        _ => None,
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "(not set)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What differs of two files of lines `name: value`.
pub(super) fn lines(old: &str, new: &str) -> Vec<String> {
    let settings = |text: &str| -> BTreeMap<String, String> {
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let (old, new) = (settings(old), settings(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let value = |settings: &BTreeMap<String, String>, name: &String| {
        settings.get(name).cloned().unwrap_or_else(|| "(not set)".to_owned())
    };
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed.map(|name| format!("configuration {name}: {} -> {}", value(&old, name), value(&new, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_differs_is_a_line_and_what_was_not_there_is_shown_as_such() {
        let old = json!({"a": {"b": 1, "c": [{"name": "x", "value": "1"}]}, "list": ["p"], "same": true});
        let new = json!({"a": {"b": 2, "c": [{"name": "y", "value": "1"}, {"name": "x", "value": "2"}]}, "list": [], "same": true});
        let expected = [
            "pod.a.b: 1 -> 2",
            "pod.a.c.x.value: 1 -> 2",
            "pod.a.c.y.name: (not set) -> y",
            "pod.a.c.y.value: (not set) -> 1",
            "pod.list.0: p -> (not set)",
        ];
        assert_eq!(pods(&old, &new), expected);
        assert_eq!(pods(&old, &old), [""; 0]);
    }

    #[test]
    fn settings_that_differ_are_lines() {
        let found = lines("a: 1\nb: 2\n", "b: 3\nc: \"x: y\"\n");
        let expected =
            ["configuration a: 1 -> (not set)", "configuration b: 2 -> 3", "configuration c: (not set) -> \"x: y\""];
        assert_eq!(found, expected);
    }
}
