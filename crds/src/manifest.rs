//! Manifests: files of Topic objects in YAML, several in one file, read with all faults and their lines.
//!
//! What `kubectl apply --server-side` would take is taken, with the rules of [`crate::admission`]; what it would refuse is
//! refused, and all faults of a file are listed in one go, each where it is. Reads texts only: files and folders are the
//! caller's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::Topic;
use crate::admission::{MAX_FAULTS, admit, with_defaults};
use crate::field::FieldPath;
use crate::yaml::{Content, Mark, Node, read};

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

/// All topics of a text, or all its faults by line, at most [`MAX_FAULTS`].
///
/// Documents that hold nothing are skipped. `file` is what the faults call it.
pub fn parse(text: &str, file: &str) -> Result<Vec<Document>, Vec<Fault>> {
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
    let mut object = node.to_json();
    if let Some(fields) = object.as_object_mut() {
        // A status is the broker's to write; an API server drops it too.
        fields.shift_remove("status");
    }
    let faults = admit(&object, None);
    if !faults.is_empty() {
        let place =
            |fault: crate::admission::Fault| Fault::new(file, node.find(&fault.path), &fault.path, fault.message);
        return Err(faults.into_iter().map(place).collect());
    }
    match serde_json::from_value(with_defaults(&object)) {
        Ok(topic) => Ok(Document { topic, file: Arc::clone(file), line: node.at.line }),
        Err(error) => Err(vec![Fault::new(file, node.at, &FieldPath::ROOT, error.to_string())]),
    }
}

#[cfg(test)]
mod tests;
