//! What the schema says of an object: fields it does not name, values it refuses, in words for people.

use std::collections::BTreeSet;

use jsonschema::JsonType;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use serde_json::{Map, Value};

use super::{Fault, MAX_FAULTS, kind_of, show};
use crate::config::shorten;
use crate::cpu::{Cpu, CpuFault};
use crate::duration::{Duration, DurationFault, Retention, RetentionFault};
use crate::field::{FieldPath, Step};
use crate::id::Id;
use crate::size::{Size, SizeFault};

/// Fields that the schema does not name. An API server drops them, and kubectl refuses them.
pub(super) fn unknown_fields(schema: &Value, value: &Value, path: &FieldPath, faults: &mut Vec<Fault>) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
            for (name, value) in fields {
                let built_in = path.steps().is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                match properties.get(name) {
                    Some(schema) => unknown_fields(schema, value, &path.field(name), faults),
                    None if built_in => {}
                    None if faults.len() < MAX_FAULTS => {
                        faults.push(Fault::new(path.field(name), unknown_field(name, properties)));
                    }
                    None => return,
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, value) in items.iter().enumerate() {
                unknown_fields(schema, value, &path.join(Step::Index(index)), faults);
            }
        }
        _ => {}
    }
}

fn unknown_field(name: &str, properties: &Map<String, Value>) -> String {
    let near = properties.keys().find(|known| known.eq_ignore_ascii_case(&name.replace(['_', '-', '.'], "")));
    if let Some(known) = near {
        return format!("unknown field: did you mean {known}?");
    }
    let known: Vec<_> = properties.keys().map(String::as_str).collect();
    format!("unknown field: there are {}", known.join(", "))
}

/// Entries of a list that are there twice: by their keys where the list is a map, whole where it is a set.
pub(super) fn duplicates(schema: &Value, value: &Value, path: &FieldPath, faults: &mut Vec<Fault>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema.get("properties").and_then(|properties| properties.get(name)) {
                    duplicates(schema, value, &path.field(name), faults);
                }
            }
        }
        Value::Array(items) => {
            let keys = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("map") => schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array),
                Some("set") => Some(&Vec::new()),
                _ => None,
            };
            if let Some(keys) = keys {
                repeated(keys, items, path, faults);
            }
            let Some(schema) = schema.get("items") else { return };
            for (index, value) in items.iter().enumerate() {
                duplicates(schema, value, &path.join(Step::Index(index)), faults);
            }
        }
        _ => {}
    }
}

fn repeated(keys: &[Value], items: &[Value], path: &FieldPath, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let identity: Option<Vec<&Value>> =
            if keys.is_empty() { Some(vec![item]) } else { keys.iter().map(|key| item.get(key.as_str()?)).collect() };
        // An entry without its key is refused for that.
        let Some(identity) = identity else { continue };
        let text: Vec<_> = identity.iter().map(ToString::to_string).collect();
        if faults.len() < MAX_FAULTS && !seen.insert(text) {
            let shown: Vec<_> = identity.iter().map(|value| show(value)).collect();
            let message = format!("{} is there twice: remove one", shown.join(", "));
            faults.push(Fault::new(path.join(Step::Index(index)), message));
        }
    }
}

/// The value without fields that are null: they mean the same as none, as an API server has it.
pub(super) fn without_nulls(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let schema_of = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
            let kept = fields.iter().filter(|(name, value)| !(value.is_null() && schema_of(name).is_some()));
            kept.map(|(name, value)| {
                let value = schema_of(name).map_or_else(|| value.clone(), |schema| without_nulls(schema, value));
                (name.clone(), value)
            })
            .collect()
        }
        Value::Array(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            items.iter().map(|item| without_nulls(schema, item)).collect()
        }
        _ => value.clone(),
    }
}

/// Whether a list or map has more entries than it may have.
pub(super) fn is_too_many(error: &jsonschema::ValidationError<'_>) -> bool {
    matches!(error.kind(), ValidationErrorKind::MaxItems { .. } | ValidationErrorKind::MaxProperties { .. })
}

/// What an error of the schema's says to a person.
pub(super) fn fault(error: &jsonschema::ValidationError<'_>) -> Fault {
    let path = error.instance_path().segments().fold(FieldPath::ROOT, |path, segment| {
        path.join(match segment {
            LocationSegment::Property(name) => Step::Field(name.into_owned()),
            LocationSegment::Index(index) => Step::Index(index),
        })
    });
    let found = show(error.instance());
    let message = match error.kind() {
        ValidationErrorKind::Required { property } => format!("missing field {}", show(property)),
        ValidationErrorKind::Type { kind } => {
            let hint = if error.instance().is_string() || !expects(kind, JsonType::String) {
                ""
            } else {
                ": put it in quotes"
            };
            format!("expected {}, found {} {found}{hint}", type_names(kind), kind_of(error.instance()))
        }
        ValidationErrorKind::Pattern { pattern } => format!("{found} is {}", pattern_fault(pattern)),
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> = options.as_array().into_iter().flatten().map(show).collect();
            format!("{found} is not possible: write one of {}", options.join(", "))
        }
        ValidationErrorKind::Minimum { limit } => format!("{found} is too low: the least is {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("{found} is too high: the most is {limit}"),
        ValidationErrorKind::MinLength { limit } => format!("{found} is too short: at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("{found} is too long: at most {limit} characters"),
        ValidationErrorKind::MaxItems { limit } | ValidationErrorKind::MaxProperties { limit } => {
            format!("too many entries: at most {limit}")
        }
        _ => shorten(&error.to_string()),
    };
    Fault::new(path, message)
}

fn pattern_fault(pattern: &str) -> String {
    match pattern {
        Duration::PATTERN => DurationFault.to_string(),
        Retention::PATTERN => RetentionFault.to_string(),
        Size::PATTERN => SizeFault.to_string(),
        Cpu::PATTERN => CpuFault.to_string(),
        Id::PATTERN => "not a UUID: write it in lower case with hyphens".to_owned(),
        _ => format!("not allowed: it has to match {pattern}"),
    }
}

fn expects(kind: &TypeKind, type_: JsonType) -> bool {
    match kind {
        TypeKind::Single(single) => *single == type_,
        TypeKind::Multiple(types) => types.contains(type_),
    }
}

fn type_names(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(single) => single.to_string(),
        TypeKind::Multiple(types) => types.iter().map(|type_| type_.to_string()).collect::<Vec<_>>().join(" or "),
    }
}
