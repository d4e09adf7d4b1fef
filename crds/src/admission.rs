//! What an API server does before it takes an object, where there is none: unknown fields, the schema, the CEL rules.
//!
//! Schema and rules are taken from the definition that is installed in a cluster ([`crate::all`]), so that a manifest that passes
//! here passes there. Beyond it come only the checks of `metadata` that an API server has built in, and of the
//! kinds of values among a topic's Kafka keys. All faults are found in one go. Reads and writes nothing else.

mod metadata;
mod schema;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use kube::core::cel::{CompiledSchema, ErrorKind, apply_defaults, compile_schema, validate_compiled};
use serde_json::{Map, Value, json};

use crate::config::{check_kept, shorten};
use crate::field::FieldPath;
use crate::{GROUP, Kind, Topic, VERSION};

/// Most faults that are listed of one object.
pub const MAX_FAULTS: usize = 100;

/// Something that keeps an object from being taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}{message}", if path == &FieldPath::ROOT { "" } else { ": " })]
pub struct Fault {
    /// Where it lies.
    pub path: FieldPath,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Fault {
    fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self { path, message: message.into() }
    }
}

/// A kind's definition, made ready to check objects.
struct Rules {
    schema: Value,
    types: jsonschema::Validator,
    cel: CompiledSchema,
}

fn rules(kind: Kind) -> &'static Rules {
    static RULES: [OnceLock<Rules>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
    RULES[kind as usize].get_or_init(|| {
        let version = kind.definition().spec.versions.swap_remove(0);
        let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("the derive writes a schema");
        let schema = serde_json::to_value(schema).expect("a schema has string keys only");
        // Draft 4 is the draft that OpenAPI 3.0 is built on: 1.0 is no integer.
        let types =
            jsonschema::draft4::new(&as_json_schema(schema.clone())).expect("the schema is valid: tests build it");
        Rules { cel: compile_schema(&schema), types, schema }
    })
}

/// The schema with Kubernetes' own keyword for "number or text" said in JSON Schema's words.
fn as_json_schema(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        if object.contains_key("x-kubernetes-int-or-string") {
            object.insert("type".to_owned(), json!(["integer", "string"]));
        }
        for value in object.values_mut() {
            *value = as_json_schema(value.take());
        }
    }
    schema
}

/// All that keeps the Topic `new` from being taken: see [`admit_kind`].
pub fn admit(new: &Value, old: Option<&Value>) -> Vec<Fault> {
    admit_kind(Kind::Topic, new, old)
}

/// All that keeps `new` from being taken: created when `old` is `None`, otherwise put in the place of `old`.
///
/// Empty: it is taken, and reads as an object of that kind. At most [`MAX_FAULTS`], by place. Entries of a list are
/// compared with what stood at their place, and not by their key: rules of this crate that compare them are on lists whose
/// order is fixed by another rule.
pub fn admit_kind(kind: Kind, new: &Value, old: Option<&Value>) -> Vec<Fault> {
    let Some(object) = new.as_object() else {
        return vec![Fault::new(FieldPath::ROOT, format!("expected an object, found {}", kind_of(new)))];
    };
    let rules = rules(kind);
    let mut faults = Vec::new();
    check_kind(kind, object, &mut faults);
    metadata::check(kind, object.get("metadata"), &mut faults);
    schema::unknown_fields(&rules.schema, new, &FieldPath::ROOT, &mut faults);
    let object = schema::without_nulls(&rules.schema, new);
    schema::duplicates(&rules.schema, &object, &FieldPath::ROOT, &mut faults);
    let refused: Vec<_> = rules.types.iter_errors(&object).take(MAX_FAULTS).collect();
    faults.extend(refused.iter().map(schema::fault));
    // As an API server does: rules are not run over lists and maps that have no bounds.
    if !refused.iter().any(schema::is_too_many) {
        let old = old.map(|old| schema::without_nulls(&rules.schema, old));
        cel_faults(rules, &object, old.as_ref(), &mut faults);
    }
    check_kept_keys(kind, &object, &mut faults);
    faults.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
    faults.dedup();
    faults.truncate(MAX_FAULTS);
    faults
}

/// The Topic as it is stored: defaults of the schema filled in, as an API server does.
pub fn with_defaults(object: &Value) -> Value {
    with_defaults_of(Kind::Topic, object)
}

/// An object of that kind as it is stored, as [`with_defaults`].
pub fn with_defaults_of(kind: Kind, object: &Value) -> Value {
    let rules = rules(kind);
    apply_defaults(&rules.schema, &schema::without_nulls(&rules.schema, object))
}

/// What a broker that is alone cannot do: it has one replica.
pub fn standalone(topic: &Topic) -> Vec<Fault> {
    let spec = &topic.spec;
    let one_only = |value: Option<i32>, path: &[&str]| {
        let value = value.filter(|value| *value != 1)?;
        let message =
            format!("{value} is not possible: a standalone broker has one replica; leave it out or set it to 1");
        Some(Fault::new(FieldPath::fields(path.iter().copied()), message))
    };
    [
        one_only(spec.replication_factor, &["spec", "replicationFactor"]),
        one_only(spec.config.min_in_sync_replicas, &["spec", "config", "minInSyncReplicas"]),
        spec.survives.map(|_| {
            Fault::new(
                FieldPath::fields(["spec", "survives"]),
                "a standalone broker has no other to go on: leave it out",
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_kind(kind: Kind, object: &Map<String, Value>, faults: &mut Vec<Fault>) {
    for (name, expected) in [("apiVersion", format!("{GROUP}/{VERSION}")), ("kind", kind.name().to_owned())] {
        let path = FieldPath::fields([name]);
        match object.get(name) {
            None | Some(Value::Null) => faults.push(Fault::new(path, format!("missing: write {name}: {expected}"))),
            Some(Value::String(value)) if *value == expected => {}
            Some(value) => {
                faults.push(Fault::new(path, format!("{} is not known here: write {expected}", show(value))));
            }
        }
    }
}

/// Rules that the object breaks. A rule that stumbles over what the schema has refused already says nothing new.
fn cel_faults(rules: &Rules, object: &Value, old: Option<&Value>, faults: &mut Vec<Fault>) {
    let Err(errors) = validate_compiled(&rules.cel, object, old) else { return };
    let refused: BTreeSet<FieldPath> = faults.iter().map(|fault| fault.path.clone()).collect();
    for error in errors {
        let path = FieldPath::from_dotted(&error.field_path);
        let known = refused.iter().any(|refused| refused.contains(&path));
        let evaluated = error.kind == ErrorKind::ValidationFailure;
        if !known && (evaluated || refused.is_empty()) {
            faults.push(Fault::new(path, error.message));
        }
    }
}

fn check_kept_keys(kind: Kind, object: &Value, faults: &mut Vec<Fault>) {
    let fields: &[&str] = match kind {
        Kind::Topic => &["spec", "config", "kafka"],
        Kind::Cluster => &["spec", "topicDefaults", "config", "kafka"],
        _ => return,
    };
    let path = FieldPath::fields(fields.iter().copied());
    let kept = fields.iter().try_fold(object, |value, field| value.get(field)).and_then(Value::as_object);
    let Some(kept) = kept else { return };
    let entries = kept.iter().filter_map(|(key, value)| Some((key, value.as_str()?)));
    let found = entries.filter_map(|(key, value)| {
        check_kept(key, value).err().map(|fault| Fault::new(path.field(key), fault.to_string()))
    });
    let found: Vec<_> = found.take(MAX_FAULTS).collect();
    // The rule about the map as a whole says of all keys what this says of each.
    if !found.is_empty() {
        faults.retain(|fault| fault.path != path);
    }
    faults.extend(found);
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", shorten(text)),
        Value::Object(_) | Value::Array(_) => String::new(),
        other => other.to_string(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
