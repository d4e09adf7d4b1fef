//! A plan for people.

use std::fmt::{self, Display, Write as _};

use super::{Moved, Plan};

/// Most entries of a list that are shown.
const MAX_SHOWN: usize = 20;

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Cluster {}{}", self.cluster, if self.new { " (new)" } else { "" })?;
        for refused in &self.refused {
            item(f, "refused", &format!("{}: {}", refused.reason, refused.message))?;
        }
        self.restarted(f)?;
        if !self.added.is_empty() {
            item(f, "adds", &format!("brokers {}", list(&self.added)))?;
        }
        for Moved { broker, replicas } in &self.drained {
            item(f, "drains", &format!("broker {broker}: {replicas} replicas move to the others, then it goes"))?;
        }
        for Moved { broker, replicas } in &self.rebalanced {
            item(f, "rebalances", &format!("broker {broker}: about {replicas} replicas move to the others"))?;
        }
        for topic in self.replicas.iter().take(MAX_SHOWN) {
            let (name, count, from, to) = (&topic.topic, topic.partitions, topic.from, topic.to);
            item(f, "replicas", &format!("topic {name}, {count} partitions: {from} -> {to} replicas"))?;
        }
        if self.replicas.len() > MAX_SHOWN {
            item(f, "replicas", &format!("and {} more topics", self.replicas.len() - MAX_SHOWN))?;
        }
        if let Some(size) = &self.grown_to {
            item(f, "grows", &format!("to {size}: {}", list(&self.grown)))?;
        }
        for object in &self.objects {
            item(f, "writes", object)?;
        }
        if self.is_nothing() {
            writeln!(f, "  nothing would change")?;
        }
        self.notes.iter().try_for_each(|note| item(f, "note", note))
    }
}

impl Plan {
    fn restarted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.restarts.is_empty() {
            return Ok(());
        }
        let brokers: Vec<_> = self.restarts.iter().map(|restart| restart.broker).collect();
        item(f, "restarts", &format!("brokers {}, one after the other", list(&brokers)))?;
        for since in &self.restarts_since {
            item(f, "", &format!("since {since}"))?;
        }
        for restart in &self.restarts {
            if let Some(waits) = &restart.waits {
                item(f, "", &format!("broker {} waits, as {waits}", restart.broker))?;
            }
        }
        Ok(())
    }
}

fn item(f: &mut fmt::Formatter<'_>, what: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {what:<10}  {text}")
}

fn list<T: Display>(entries: &[T]) -> String {
    let mut text = String::new();
    for (place, entry) in entries.iter().take(MAX_SHOWN).enumerate() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{}{entry}", if place > 0 { ", " } else { "" });
    }
    text + if entries.len() > MAX_SHOWN { ", ..." } else { "" }
}
