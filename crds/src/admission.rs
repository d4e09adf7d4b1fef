//! What an API server does before it takes a Topic, where there is none: unknown fields, the schema, the CEL rules.
//!
//! Schema and rules are taken from the definition that is installed in a cluster ([`crate::all`]), so that a manifest that passes
//! here passes there. Beyond it come only the checks of `metadata` that an API server has built in, and of values in
//! `spec.config.kafka`, which CEL does not look into. All faults are found in one go. Reads and writes nothing else.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use jsonschema::JsonType;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, ErrorKind, apply_defaults, compile_schema, validate_compiled};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::config::{check_kept, shorten};
use crate::duration::{Duration, DurationFault, Retention, RetentionFault};
use crate::field::{FieldPath, Step};
use crate::name;
use crate::size::{Size, SizeFault};
use crate::{ADOPT_ANNOTATION, GROUP, Topic, VERSION};

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

/// The definition, made ready to check objects.
struct Rules {
    schema: Value,
    types: jsonschema::Validator,
    cel: CompiledSchema,
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| {
        let version = Topic::crd().spec.versions.swap_remove(0);
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

/// All that keeps `new` from being taken: created when `old` is `None`, otherwise put in the place of `old`.
///
/// Empty: it is taken, and reads as a [`Topic`]. At most [`MAX_FAULTS`], by place.
pub fn admit(new: &Value, old: Option<&Value>) -> Vec<Fault> {
    let Some(object) = new.as_object() else {
        return vec![Fault::new(FieldPath::ROOT, format!("expected an object, found {}", kind_of(new)))];
    };
    let rules = rules();
    let mut faults = Vec::new();
    check_kind(object, &mut faults);
    check_metadata(object.get("metadata"), &mut faults);
    unknown_fields(&rules.schema, new, &FieldPath::ROOT, &mut faults);
    let object = without_nulls(&rules.schema, new);
    faults.extend(rules.types.iter_errors(&object).take(MAX_FAULTS).flat_map(|error| schema_faults(&error)));
    let old = old.map(|old| without_nulls(&rules.schema, old));
    cel_faults(rules, &object, old.as_ref(), &mut faults);
    check_kept_keys(&object, &mut faults);
    faults.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
    faults.dedup();
    faults.truncate(MAX_FAULTS);
    faults
}

/// The object as it is stored: defaults of the schema filled in, as an API server does.
pub fn with_defaults(object: &Value) -> Value {
    apply_defaults(&rules().schema, &without_nulls(&rules().schema, object))
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
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_kind(object: &Map<String, Value>, faults: &mut Vec<Fault>) {
    for (name, expected) in [("apiVersion", format!("{GROUP}/{VERSION}")), ("kind", "Topic".to_owned())] {
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

/// Fields that metadata may have (Kubernetes' ObjectMeta).
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

fn check_metadata(metadata: Option<&Value>, faults: &mut Vec<Fault>) {
    let path = FieldPath::fields(["metadata"]);
    let Some(Value::Object(fields)) = metadata else {
        faults.push(Fault::new(path, "missing: write metadata with a name"));
        return;
    };
    let unknown = fields.keys().filter(|name| !METADATA.contains(&name.as_str())).take(MAX_FAULTS);
    faults.extend(unknown.map(|name| Fault::new(path.field(name), "unknown field")));
    // Field by field: serde says what is wrong, not where.
    let mut good = Map::new();
    for (name, value) in fields.iter().filter(|(name, _)| METADATA.contains(&name.as_str())) {
        let one = Map::from_iter([(name.clone(), value.clone())]);
        match serde_json::from_value::<ObjectMeta>(Value::Object(one.clone())) {
            Ok(_) => good.extend(one),
            Err(error) => faults.push(Fault::new(path.field(name), shorten(&error.to_string()))),
        }
    }
    let meta: ObjectMeta = serde_json::from_value(Value::Object(good)).expect("each field was read by itself");
    let is_named = fields.get("name").is_some_and(|name| !name.is_null());
    check_metadata_values(meta, is_named, faults);
}

fn check_metadata_values(meta: ObjectMeta, is_named: bool, faults: &mut Vec<Fault>) {
    let path = FieldPath::fields(["metadata"]);
    match meta.name {
        None if is_named => {}
        None => faults.push(Fault::new(path.clone(), "missing: metadata.name")),
        Some(name) if !name::is_object_name(&name) => faults.push(Fault::new(
            path.field("name"),
            format!(
                "{:?} cannot be the name of an object: use lower-case letters, digits, '-' and '.', beginning and ending \
                 with a letter or digit, at most 253; the topic itself can have another name in spec.topicName",
                shorten(&name)
            ),
        )),
        Some(_) => {}
    }
    if let Some(namespace) = meta.namespace.filter(|namespace| !name::is_namespace_name(namespace)) {
        let message = format!("{:?} cannot be the name of a namespace", shorten(&namespace));
        faults.push(Fault::new(path.field("namespace"), message));
    }
    let adopt = meta.annotations.unwrap_or_default().remove(ADOPT_ANNOTATION);
    if adopt.is_some_and(|id| Uuid::try_parse(&id).is_err()) {
        let path = path.field("annotations").field(ADOPT_ANNOTATION);
        faults.push(Fault::new(path, "not a topicId: write the UUID of the topic whose data this one takes over"));
    }
}

/// Fields that the schema does not name. An API server drops them, and kubectl refuses them.
fn unknown_fields(schema: &Value, value: &Value, path: &FieldPath, faults: &mut Vec<Fault>) {
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
    match near {
        Some(known) => format!("unknown field: did you mean {known}?"),
        None => {
            let known: Vec<_> = properties.keys().map(String::as_str).collect();
            format!("unknown field: there are {}", known.join(", "))
        }
    }
}

/// The value without fields that are null where that is allowed: they mean the same as none.
fn without_nulls(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let schema_of = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
            let kept = fields.iter().filter(|(name, value)| {
                let schema = schema_of(name);
                // A null where there is a default gives the default.
                let may = |word| schema.is_some_and(|schema| schema.get(word).is_some());
                !(value.is_null() && (may("nullable") || may("default")))
            });
            kept.map(|(name, value)| {
                let value = schema_of(name).map_or_else(|| value.clone(), |schema| without_nulls(schema, value));
                (name.clone(), value)
            })
            .collect()
        }
        _ => value.clone(),
    }
}

fn schema_faults(error: &jsonschema::ValidationError<'_>) -> Vec<Fault> {
    let steps = error.instance_path().segments().fold(FieldPath::ROOT, |path, segment| {
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
        ValidationErrorKind::MaxItems { limit } => format!("too many entries: at most {limit}"),
        ValidationErrorKind::MaxProperties { limit } => format!("too many entries: at most {limit}"),
        _ => shorten(&error.to_string()),
    };
    vec![Fault::new(steps, message)]
}

fn pattern_fault(pattern: &str) -> String {
    match pattern {
        Duration::PATTERN => DurationFault.to_string(),
        Retention::PATTERN => RetentionFault.to_string(),
        Size::PATTERN => SizeFault.to_string(),
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

fn check_kept_keys(object: &Value, faults: &mut Vec<Fault>) {
    let path = FieldPath::fields(["spec", "config", "kafka"]);
    let Some(kept) = object.pointer("/spec/config/kafka").and_then(Value::as_object) else { return };
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
