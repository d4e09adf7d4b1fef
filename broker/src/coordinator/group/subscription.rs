//! Subscriptions to topics: names, and patterns that whole names match.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use uuid::Uuid;

use super::{Subscription, TopicsView};

/// Compiled, a pattern may take so many bytes: some classes of Unicode repeated a few times.
const COMPILED_LIMIT: usize = 1 << 20;
/// What a match may take beside that before the slower engine without a table is used.
const TABLE_LIMIT: usize = 64 << 10;
/// Longest pattern, in bytes.
const PATTERN_LIMIT: usize = 4 << 10;
/// So many compiled patterns are kept.
const KEPT_PATTERNS: usize = 64;

/// Compiles a pattern for whole names of topics. The edge refuses members by it; the syntax is RE2's, and a match takes time
/// in proportion to the name's length.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    if pattern.len() > PATTERN_LIMIT {
        return Err(regex::Error::CompiledTooBig(PATTERN_LIMIT));
    }
    let build = |text: &str| RegexBuilder::new(text).size_limit(COMPILED_LIMIT).dfa_size_limit(TABLE_LIMIT).build();
    // By itself first: `a)|(b` is no expression, but would be one between brackets.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// Compiled patterns by their text. Only saves work: answers are the same without.
#[derive(Debug, Default)]
pub(super) struct Patterns(Mutex<BTreeMap<String, Option<Regex>>>);

impl Patterns {
    /// `None`: no pattern that can be used. It matches nothing.
    fn get(&self, pattern: &str) -> Option<Regex> {
        let mut kept = self.0.lock();
        if let Some(regex) = kept.get(pattern) {
            return regex.clone();
        }
        if kept.len() >= KEPT_PATTERNS {
            kept.clear();
        }
        kept.entry(pattern.to_owned()).or_insert_with(|| compile(pattern).ok()).clone()
    }
}

/// Resolves the subscriptions of a group's members, each only once.
pub(super) struct Resolver<'a> {
    world: &'a TopicsView,
    patterns: &'a Patterns,
    known: BTreeMap<&'a Subscription, Arc<BTreeSet<Uuid>>>,
    partitions: BTreeMap<Uuid, i32>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(world: &'a TopicsView, patterns: &'a Patterns) -> Self {
        Self { world, patterns, known: BTreeMap::new(), partitions: BTreeMap::new() }
    }

    /// Topics of a subscription that are there.
    pub(super) fn topics(&mut self, subscription: &'a Subscription) -> Arc<BTreeSet<Uuid>> {
        if let Some(topics) = self.known.get(subscription) {
            return Arc::clone(topics);
        }
        let named = subscription.topics.iter().filter_map(|name| self.world.topics.get(name.as_str()));
        let regex = subscription.pattern.as_deref().and_then(|pattern| self.patterns.get(pattern));
        let matches = |name: &str| regex.as_ref().is_some_and(|regex| regex.is_match(name));
        let searched = regex.is_some().then_some(&self.world.topics).into_iter().flatten();
        let matched = searched.filter(|(name, _)| matches(name)).map(|(_, topic)| topic);
        let found: BTreeMap<Uuid, i32> = named.chain(matched).map(|topic| (topic.id, topic.partitions)).collect();
        let topics = Arc::new(found.keys().copied().collect());
        self.partitions.extend(found);
        self.known.insert(subscription, Arc::clone(&topics));
        topics
    }

    /// Topics of all subscriptions asked for until now, with their numbers of partitions.
    pub(super) fn known_topics(self) -> BTreeMap<Uuid, i32> {
        self.partitions
    }
}

#[cfg(test)]
mod tests;
