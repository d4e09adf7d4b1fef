//! Where in an object a fault lies, written as Kubernetes writes it: `spec.config.kafka[segment.bytes]`.

use std::fmt;

use crate::config::shorten;

/// One step from an object or list to what it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The field or map entry of that name.
    Field(String),
    /// The list entry of that number, from 0.
    Index(usize),
}

/// The way from the top of an object to a field; empty: the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath {
    steps: Vec<Step>,
}

impl FieldPath {
    /// The object itself.
    pub const ROOT: Self = Self { steps: Vec::new() };

    /// The way through these fields.
    pub fn fields<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { steps: names.into_iter().map(|name| Step::Field(name.to_owned())).collect() }
    }

    /// The steps, from the top.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// One step further.
    pub fn join(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps }
    }

    /// One step further, to the field of that name.
    pub fn field(&self, name: &str) -> Self {
        self.join(Step::Field(name.to_owned()))
    }

    /// Whether the other way begins with this one, or is this one.
    pub fn contains(&self, other: &Self) -> bool {
        other.steps.starts_with(&self.steps)
    }

    /// Reads `a.b[3].c`, as CEL evaluation writes the places of rules, whose field names have neither dots nor brackets.
    pub(crate) fn from_dotted(text: &str) -> Self {
        let step = |part: &str| part.parse().map_or_else(|_| Step::Field(part.to_owned()), Step::Index);
        let parts = text.split(['.', '[', ']']).filter(|part| !part.is_empty());
        Self { steps: parts.map(step).collect() }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.steps.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Field(name) if is_plain(name) => write!(f, "{}{name}", if place == 0 { "" } else { "." })?,
                Step::Field(name) => write!(f, "[{}]", shorten(name).escape_debug())?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_paths_as_kubernetes_does() {
        let path = FieldPath::fields(["spec", "config", "kafka", "segment.bytes"]);
        assert_eq!(path.to_string(), "spec.config.kafka[segment.bytes]");
        assert_eq!(FieldPath::from_dotted(".status.conditions[1].type").to_string(), "status.conditions[1].type");
        assert_eq!(FieldPath::ROOT.to_string(), "");
        assert_eq!(FieldPath::fields(["a\nb"]).to_string(), "[a\\nb]", "a fault stays on its line");
    }

    #[test]
    fn a_path_contains_what_is_below_it() {
        let spec = FieldPath::fields(["spec"]);
        assert!(spec.contains(&spec) && spec.contains(&spec.field("partitions")) && FieldPath::ROOT.contains(&spec));
        assert!(!spec.contains(&FieldPath::fields(["status"])) && !spec.field("partitions").contains(&spec));
    }
}
