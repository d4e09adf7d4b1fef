//! The table of steps in `tests/data/steps`: what may become of each kind of object, and what may not. It is run against
//! the embedded admission here, and against a real API server by the end-to-end tests.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The steps of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// The kind.
    pub(crate) kind: String,
    name: String,
    spec: Map<String, Value>,
    /// The steps.
    pub(crate) steps: Vec<Step>,
}

/// A step from one object to another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// What it is.
    #[serde(rename = "step")]
    pub(crate) what: String,
    name: Option<String>,
    old: Option<Map<String, Value>>,
    new: Map<String, Value>,
    /// The field that is named when the step is refused; empty: the object. None: it is taken.
    pub(crate) refused: Option<String>,
    /// A part of the message.
    pub(crate) says: Option<String>,
}

impl Table {
    /// The object as it was; `None`: there was none.
    pub(crate) fn before(&self, step: &Step) -> Option<Value> {
        step.old.as_ref().map(|old| self.object(step, old))
    }

    /// The object as it shall be.
    pub(crate) fn after(&self, step: &Step) -> Value {
        self.object(step, &step.new)
    }

    fn object(&self, step: &Step, fields: &Map<String, Value>) -> Value {
        let mut spec = self.spec.clone();
        spec.extend(fields.clone());
        let name = step.name.as_ref().unwrap_or(&self.name);
        json!({"apiVersion": "taffrail.dev/v1alpha1", "kind": self.kind, "metadata": {"name": name}, "spec": spec})
    }
}

/// All tables, by file name.
pub(crate) fn tables(crds: &Path) -> Vec<Table> {
    let mut files: Vec<_> =
        std::fs::read_dir(crds.join("tests/data/steps")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let table = |path: &std::path::PathBuf| {
        let mut value: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        value.apply_merge().unwrap();
        serde_yaml::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().map(table).collect()
}
