//! YAML as manifests use it, with the line and column of every value.
//!
//! Plain words mean what `kubectl apply` takes them for (YAML 1.1: `yes` is true, `010` is 8). What manifests do not
//! need is refused rather than half understood: aliases (and with them alias bombs), tags, keys that are no words.
//! Hostile text is bounded by [`MAX_BYTES`], [`MAX_DEPTH`] and [`MAX_NODES`]; the parser is driven event by event and never
//! recurses. Knows nothing of topics.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use crate::config::shorten;
use crate::field::{FieldPath, Step};

/// Longest text, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting of maps and lists. A Topic needs 5.
pub const MAX_DEPTH: usize = 32;

/// Most values of all documents together.
pub const MAX_NODES: usize = 200_000;

/// A place in a text; lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Mark {
    /// The beginning of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl From<Marker> for Mark {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// What keeps a text, or a part of it, from being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {message}", at.line, at.column)]
pub struct YamlFault {
    /// Where.
    pub at: Mark,
    /// What is wrong.
    pub message: String,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Mark,
    /// What it is.
    pub content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing, a boolean, a number or a text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the text, each name once.
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where the name begins.
    pub at: Mark,
    /// Its value.
    pub value: Node,
}

/// The documents of a text that could be read, and all faults found; a fault of syntax ends the reading.
pub fn read(text: &str) -> (Vec<Node>, Vec<YamlFault>) {
    let mut reader = Reader::default();
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes are too many: at most {MAX_BYTES}; split the file", text.len());
        reader.fault(Mark::START, message);
        return (reader.documents, reader.faults);
    }
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    loop {
        match parser.next_token() {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, marker)) => {
                if !reader.take(event, marker.into()) {
                    break;
                }
            }
            Err(error) => {
                reader.fault((*error.marker()).into(), format!("this is not YAML: {}", error.info()));
                break;
            }
        }
    }
    (reader.documents, reader.faults)
}

/// A list or map that is not complete.
enum Open {
    List { at: Mark, items: Vec<Node> },
    Map { at: Mark, entries: Vec<Entry>, names: HashSet<String>, next: Option<Name> },
}

/// The name whose value comes next; `None`: the value is read and dropped.
struct Name {
    at: Mark,
    text: Option<String>,
}

#[derive(Default)]
struct Reader {
    documents: Vec<Node>,
    faults: Vec<YamlFault>,
    open: Vec<Open>,
    nodes: usize,
}

impl Reader {
    /// Takes the next event. False: reading has to stop.
    fn take(&mut self, event: Event, at: Mark) -> bool {
        if !self.within_bounds(&event, at) {
            return false;
        }
        match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    self.fault(at, "tags (!name) are not read here: remove it");
                }
                self.scalar(text, style, at);
            }
            Event::SequenceStart(..) => self.open.push(Open::List { at, items: Vec::new() }),
            Event::MappingStart(..) => {
                self.open.push(Open::Map { at, entries: Vec::new(), names: HashSet::new(), next: None });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(_) => {
                self.fault(at, "aliases (*name) are not read here: write the value itself");
                self.scalar(String::new(), TScalarStyle::Plain, at);
            }
            Event::DocumentStart | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        true
    }

    fn within_bounds(&mut self, event: &Event, at: Mark) -> bool {
        let opens = matches!(event, Event::SequenceStart(..) | Event::MappingStart(..));
        if opens && self.open.len() == MAX_DEPTH {
            self.fault(at, format!("nested too deep: at most {MAX_DEPTH} levels"));
            return false;
        }
        self.nodes += usize::from(opens || matches!(event, Event::Scalar(..) | Event::Alias(_)));
        if self.nodes > MAX_NODES {
            self.fault(at, format!("too many values: at most {MAX_NODES}; split the file"));
            return false;
        }
        self.faults.len() < crate::admission::MAX_FAULTS
    }

    fn fault(&mut self, at: Mark, message: impl Into<String>) {
        self.faults.push(YamlFault { at, message: message.into() });
    }

    fn scalar(&mut self, text: String, style: TScalarStyle, at: Mark) {
        if let Some(Open::Map { names, next: next @ None, .. }) = self.open.last_mut() {
            let is_new = names.insert(text.clone());
            let message = format!("{:?} is given twice in one map: remove one", shorten(&text));
            *next = Some(Name { at, text: is_new.then_some(text) });
            if !is_new {
                self.fault(at, message);
            }
            return;
        }
        let value = if style == TScalarStyle::Plain { plain(text) } else { Value::String(text) };
        self.put(Node { at, content: Content::Scalar(value) });
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::List { at, items }) => self.put(Node { at, content: Content::List(items) }),
            Some(Open::Map { at, entries, .. }) => {
                // The parser knows a map without brackets by its first colon only.
                let at = entries.first().map_or(at, |entry| entry.at.min(at));
                self.put(Node { at, content: Content::Map(entries) });
            }
            None => {}
        }
    }

    /// Puts a complete value where it belongs.
    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, next, .. }) => match next.take() {
                Some(Name { at, text: Some(name) }) => entries.push(Entry { name, at, value: node }),
                Some(Name { text: None, .. }) => {}
                // A list or map in the place of a name: its value follows.
                None => {
                    *next = Some(Name { at: node.at, text: None });
                    self.fault(node.at, "a name in a map has to be a word");
                }
            },
        }
    }
}

impl Node {
    /// The value without places.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.name.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Where the field at the end of a path is: its name, or the last thing on the way that is there.
    pub fn find(&self, path: &FieldPath) -> Mark {
        let (mut node, mut at) = (self, self.at);
        for step in path.steps() {
            match (step, &node.content) {
                (Step::Field(name), Content::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.name == *name) else { return at };
                    (node, at) = (&entry.value, entry.at);
                }
                (Step::Index(index), Content::List(items)) => {
                    let Some(item) = items.get(*index) else { return at };
                    (node, at) = (item, item.at);
                }
                _ => return at,
            }
        }
        at
    }
}

/// What a plain word means: YAML 1.1, as `kubectl` reads it.
fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        word => number(word).map_or(Value::String(text), Value::Number),
    }
}

fn number(word: &str) -> Option<Number> {
    if !word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let word = word.replace('_', "");
    integer(&word).or_else(|| float(&word))
}

fn integer(word: &str) -> Option<Number> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'o' | b'O', ..] => (&digits[2..], 8),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0i64.checked_sub_unsigned(value).map(Number::from) } else { Some(Number::from(value)) }
}

/// A float; a whole one becomes an integer, as it does on the way through Go's JSON.
fn float(word: &str) -> Option<Number> {
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if !word.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E')) {
        return None;
    }
    let value: f64 = word.parse().ok()?;
    if value.fract() == 0.0 && value.abs() < WHOLE { Some(Number::from(value as i64)) } else { Number::from_f64(value) }
}

#[cfg(test)]
mod tests;
