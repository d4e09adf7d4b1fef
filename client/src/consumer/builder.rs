//! A consumer's settings, and the start: topics become partitions, positions become offsets.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::Consumer;
use super::state::State;
use crate::admin::OffsetSpec;
use crate::client::{Shared, no_such_partition};
use crate::error::{Error, ErrorKind, Result};

/// Lookups of offsets that are under way at once.
const LOOKUPS: usize = 32;

/// Where to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// First record that is still there.
    #[default]
    Earliest,
    /// First record to come.
    Latest,
    /// This offset.
    Offset(i64),
    /// First record whose timestamp is this or later, in milliseconds since 1970; the end if there is none.
    Timestamp(i64),
}

/// What to do when the position is not in the log any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetPolicy {
    /// Tell the application.
    #[default]
    Fail,
    /// Go on with the first record that was not read; records in between may be gone.
    Earliest,
    /// Go on with the next record to come.
    Latest,
}

/// Settings of a [`Consumer`]; from [`Client::consumer`](crate::Client::consumer).
#[derive(Clone)]
#[must_use = "a builder makes nothing until `build`"]
pub struct ConsumerBuilder {
    pub(super) shared: Arc<Shared>,
    /// All partitions of these.
    topics: Vec<String>,
    /// These partitions; `None`: from where the others begin.
    partitions: Vec<(String, i32, Option<Position>)>,
    from: Position,
    pub(super) follow: bool,
    pub(super) prefetch: u64,
    reset: ResetPolicy,
    pub(super) zone: Option<String>,
}

impl ConsumerBuilder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            topics: Vec::new(),
            partitions: Vec::new(),
            from: Position::default(),
            follow: true,
            prefetch: 16 << 20,
            reset: ResetPolicy::default(),
            zone: None,
        }
    }

    /// Reads all partitions of a topic; when it follows, those that are added later as well.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// As [`topic`](Self::topic), for several.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Reads these partitions of a topic.
    pub fn partitions(mut self, topic: &str, partitions: impl IntoIterator<Item = i32>) -> Self {
        self.partitions.extend(partitions.into_iter().map(|p| (topic.to_owned(), p, None)));
        self
    }

    /// Reads one partition from a position of its own: to go on where a reader stopped.
    pub fn partition_from(mut self, topic: &str, partition: i32, from: Position) -> Self {
        self.partitions.push((topic.to_owned(), partition, Some(from)));
        self
    }

    /// Where to begin. Default: [`Position::Earliest`].
    pub fn from(mut self, from: Position) -> Self {
        self.from = from;
        self
    }

    /// Wait for new records at the end (default), or end at the end that each partition has at the start.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Bytes of batches that each broker may send ahead of the application. Default 16 MiB; at least 64 KiB. One batch is
    /// always sent, however large.
    pub fn prefetch(mut self, bytes: u64) -> Self {
        self.prefetch = bytes;
        self
    }

    /// What to do when the position is not in the log any more. Default: [`ResetPolicy::Fail`].
    pub fn reset(mut self, policy: ResetPolicy) -> Self {
        self.reset = policy;
        self
    }

    /// Zone of the process, named as the brokers' nodes name theirs: partitions are read from in-sync replicas there, where there
    /// are any, and from their leaders otherwise. So most data stays within the zone, and records are seen a moment later than
    /// at the leader. Default: none, only leaders are read.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Looks up topics and positions and starts to read. [`Position::Latest`] is the end as of this call.
    pub async fn build(self) -> Result<Consumer> {
        if self.topics.is_empty() && self.partitions.is_empty() {
            return Err(Error::local(
                ErrorKind::InvalidArgument,
                "the consumer reads nothing: name topics or partitions",
            ));
        }
        if self.prefetch < 64 << 10 {
            let message = format!("prefetch is {} bytes: choose at least 64 KiB", self.prefetch);
            return Err(Error::local(ErrorKind::InvalidArgument, message));
        }
        let assigned = self.assigned().await?;
        let (shared, follow, reset) = (self.shared.clone(), self.follow, self.reset);
        let places: Vec<_> = stream::iter(assigned)
            .map(|(topic, partition, from)| {
                let shared = shared.clone();
                async move {
                    let offset = start_offset(&shared, &topic, partition, from).await?;
                    if follow {
                        return Ok::<_, Error>((topic, partition, offset, None));
                    }
                    let end = end_offset(&shared, &topic, partition).await?;
                    let offset = match reset {
                        // Nothing would be read, so no broker would say that it is not there.
                        ResetPolicy::Fail if offset > end => return Err(beyond_end(&topic, partition, offset, end)),
                        ResetPolicy::Earliest if offset > end => {
                            start_offset(&shared, &topic, partition, Position::Earliest).await?
                        }
                        _ => offset,
                    };
                    Ok((topic, partition, offset, Some(end)))
                }
            })
            .buffered(LOOKUPS)
            .try_collect()
            .await?;
        let mut state = State::new(self.reset);
        for (topic, partition, offset, end) in places {
            state.add(topic, partition, offset, end);
        }
        Ok(Consumer::start(&self, state, self.topics.clone()))
    }

    /// The partitions to be read, each once, and where to begin.
    async fn assigned(&self) -> Result<Vec<(Arc<str>, i32, Position)>> {
        let mut assigned: Vec<(Arc<str>, i32, Position)> = Vec::new();
        for (name, partition, from) in &self.partitions {
            let topic = self.shared.topic(name).await?;
            if usize::try_from(*partition).ok().is_none_or(|p| p >= topic.partitions.len()) {
                return Err(no_such_partition(name, *partition, topic.partitions.len()));
            }
            assigned.push((topic.name.clone(), *partition, from.unwrap_or(self.from)));
        }
        for name in &self.topics {
            let topic = self.shared.topic(name).await?;
            for partition in 0..topic.partitions.len() as i32 {
                if !assigned.iter().any(|(t, p, _)| *t == topic.name && *p == partition) {
                    assigned.push((topic.name.clone(), partition, self.from));
                }
            }
        }
        Ok(assigned)
    }
}

fn beyond_end(topic: &str, partition: i32, offset: i64, end: i64) -> Error {
    let message =
        format!("offset {offset} of {topic}/{partition} is not there yet, the end is {end}: begin there or before");
    Error::local(ErrorKind::OffsetOutOfRange, message)
}

/// The offset of a position.
pub(super) async fn start_offset(shared: &Arc<Shared>, topic: &str, partition: i32, at: Position) -> Result<i64> {
    let spec = match at {
        Position::Offset(offset) => return Ok(offset),
        Position::Earliest => OffsetSpec::Earliest,
        Position::Latest => OffsetSpec::Latest,
        Position::Timestamp(ms) => OffsetSpec::Timestamp(ms),
    };
    match shared.list_offset(topic, partition, spec).await?.offset {
        Some(offset) => Ok(offset),
        None => end_offset(shared, topic, partition).await,
    }
}

async fn end_offset(shared: &Arc<Shared>, topic: &str, partition: i32) -> Result<i64> {
    let listed = shared.list_offset(topic, partition, OffsetSpec::Latest).await?;
    listed
        .offset
        .ok_or_else(|| Error::local(ErrorKind::Internal, "the broker told no end of the partition: upgrade it"))
}
