//! Manifests: files of Topic and Cluster objects in YAML, several in one file, read with all faults and their lines.
//!
//! What `kubectl apply --server-side` would take is taken, with the rules of [`crate::admission`]; what it would refuse is
//! refused, and all faults of a file are listed in one go, each where it is. Reads texts only: files and folders are the
//! caller's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::admission::{MAX_FAULTS, admit, admit_kind, with_defaults, with_defaults_of};
use crate::field::FieldPath;
use crate::yaml::{Content, Mark, Node, read};
use crate::{Cluster, Kind, Topic};

/// A Topic object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The object, with defaults filled in and without status.
    pub topic: Topic,
    /// Name of the file.
    pub file: Arc<str>,
    /// Line on which it begins, from 1.
    pub line: usize,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {path}{}{message}", if path.is_empty() { "" } else { ": " })]
pub struct Fault {
    /// Name of the file.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The field, such as `spec.config.retention`; empty: the object or the file.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Fault {
    fn new(file: &Arc<str>, at: Mark, path: &FieldPath, message: impl Into<String>) -> Self {
        let Mark { line, column } = at;
        Self { file: Arc::clone(file), line, column, path: path.to_string(), message: message.into() }
    }
}

/// An object that users write.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Cluster.
    Cluster(Box<Cluster>),
    /// A Topic.
    Topic(Box<Topic>),
}

/// An object of a file, of any kind that users write.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectDocument {
    /// The object, with defaults filled in and without status.
    pub object: Object,
    /// Name of the file.
    pub file: Arc<str>,
    /// Line on which it begins, from 1.
    pub line: usize,
}

/// All topics of a text, or all its faults by line, at most [`MAX_FAULTS`]. Objects of other kinds are faults.
///
/// Documents that hold nothing are skipped. `file` is what the faults call it.
pub fn parse(text: &str, file: &str) -> Result<Vec<Document>, Vec<Fault>> {
    parse_with(text, file, document, duplicates)
}

/// All Clusters and Topics of a text, or all its faults, as [`parse`].
pub fn parse_objects(text: &str, file: &str) -> Result<Vec<ObjectDocument>, Vec<Fault>> {
    parse_with(text, file, object_document, duplicate_objects)
}

fn parse_with<D>(
    text: &str,
    file: &str,
    document: fn(&Node, &Arc<str>) -> Result<D, Vec<Fault>>,
    duplicates: fn(&[D]) -> Vec<Fault>,
) -> Result<Vec<D>, Vec<Fault>> {
    let file: Arc<str> = file.into();
    let (nodes, faults) = read(text);
    let mut faults: Vec<_> =
        faults.into_iter().map(|fault| Fault::new(&file, fault.at, &FieldPath::ROOT, fault.message)).collect();
    let mut documents = Vec::new();
    for node in nodes.iter().filter(|node| node.content != Content::Scalar(Value::Null)) {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        match document(node, &file) {
            Ok(document) => documents.push(document),
            Err(found) => faults.extend(found),
        }
    }
    faults.extend(duplicates(&documents));
    if faults.is_empty() {
        return Ok(documents);
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    faults.truncate(MAX_FAULTS);
    Err(faults)
}

/// Objects that are there twice, by kind, namespace and name, and Topics of one Cluster by one topic name; also in documents
/// of several files.
pub fn duplicate_objects(documents: &[ObjectDocument]) -> Vec<Fault> {
    let mut seen: BTreeMap<Vec<String>, &ObjectDocument> = BTreeMap::new();
    let mut faults = Vec::new();
    for document in documents {
        let found = identities(&document.object).into_iter().find_map(|(what, identity)| {
            let first = seen.get(&identity)?;
            Some(format!("the {what} is already in {}, line {}: remove one or rename it", first.file, first.line))
        });
        match found {
            Some(message) => {
                let at = Mark { line: document.line, column: 1 };
                faults.push(Fault::new(&document.file, at, &FieldPath::ROOT, message));
            }
            None => seen.extend(identities(&document.object).into_iter().map(|(_, identity)| (identity, document))),
        }
    }
    faults
}

/// What there can be only one of: what it is called in a message, and what is compared.
fn identities(object: &Object) -> Vec<(String, Vec<String>)> {
    let of = |kind: &str, meta: &kube::core::ObjectMeta| {
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        (format!("{kind} {name:?}"), vec![kind.to_owned(), namespace, name])
    };
    match object {
        Object::Cluster(cluster) => vec![of("Cluster", &cluster.metadata)],
        Object::Topic(topic) => {
            let cluster = topic.spec.cluster_ref.as_ref();
            let own = || topic.metadata.namespace.clone();
            let namespace = cluster.and_then(|cluster| cluster.namespace.clone()).or_else(own).unwrap_or_default();
            let cluster = cluster.map(|cluster| cluster.name.clone()).unwrap_or_default();
            let name = topic.topic_name();
            let topic = of("Topic", &topic.metadata);
            vec![topic, (format!("topic {name:?}"), vec!["topic".to_owned(), namespace, cluster, name])]
        }
    }
}

/// Topics that are there twice, by their object's name or the topic's, also in documents of several files.
pub fn duplicates(documents: &[Document]) -> Vec<Fault> {
    let mut objects = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut faults = Vec::new();
    for document in documents {
        let meta = &document.topic.metadata;
        let object = (meta.namespace.clone(), meta.name.clone());
        let name = document.topic.topic_name();
        let (what, first) = match (objects.get(&object), names.get(&name)) {
            (Some(first), _) => (format!("object {:?}", object.1.unwrap_or_default()), *first),
            (None, Some(first)) => (format!("topic {name:?}"), *first),
            (None, None) => {
                objects.insert(object, document);
                names.insert(name, document);
                continue;
            }
        };
        let first: &Document = first;
        let message = format!("the {what} is already in {}, line {}: remove one or rename it", first.file, first.line);
        let at = Mark { line: document.line, column: 1 };
        faults.push(Fault::new(&document.file, at, &FieldPath::ROOT, message));
    }
    faults
}

fn document(node: &Node, file: &Arc<str>) -> Result<Document, Vec<Fault>> {
    let object = object_of(node);
    place_faults(node, file, admit(&object, None))?;
    let topic = typed(node, file, with_defaults(&object))?;
    Ok(Document { topic, file: Arc::clone(file), line: node.at.line })
}

fn object_document(node: &Node, file: &Arc<str>) -> Result<ObjectDocument, Vec<Fault>> {
    let object = object_of(node);
    let kind = object.get("kind").and_then(Value::as_str).and_then(Kind::from_name);
    // What is no Cluster is told what a Topic is.
    let kind = kind.filter(|kind| *kind == Kind::Cluster).unwrap_or(Kind::Topic);
    place_faults(node, file, admit_kind(kind, &object, None))?;
    let value = with_defaults_of(kind, &object);
    let object = match kind {
        Kind::Cluster => Object::Cluster(Box::new(typed(node, file, value)?)),
        _ => Object::Topic(Box::new(typed(node, file, value)?)),
    };
    Ok(ObjectDocument { object, file: Arc::clone(file), line: node.at.line })
}

/// Without its status: that is not the user's to write, and an API server drops it too.
fn object_of(node: &Node) -> Value {
    let mut object = node.to_json();
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove("status");
    }
    object
}

fn place_faults(node: &Node, file: &Arc<str>, faults: Vec<crate::admission::Fault>) -> Result<(), Vec<Fault>> {
    if faults.is_empty() {
        return Ok(());
    }
    let place = |fault: crate::admission::Fault| Fault::new(file, node.find(&fault.path), &fault.path, fault.message);
    Err(faults.into_iter().map(place).collect())
}

fn typed<K: serde::de::DeserializeOwned>(node: &Node, file: &Arc<str>, object: Value) -> Result<K, Vec<Fault>> {
    serde_json::from_value(object).map_err(|error| vec![Fault::new(file, node.at, &FieldPath::ROOT, error.to_string())])
}

#[cfg(test)]
mod tests;
