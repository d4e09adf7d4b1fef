//! A group consumer's settings.

use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::v1::{SessionJoin, Subscription};
use tokio::time::Instant;
use uuid::Uuid;

use super::membership::Membership;
use super::rebalance::RebalanceListener;
use super::session::Session;
use super::{GroupConsumer, Settings};
use crate::client::Shared;
use crate::consumer::{Consumer, ResetPolicy};
use crate::error::{Error, ErrorKind, Result};

/// What a group consumer promises about each record, and who commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitMode {
    /// Records are committed before they are handed out: none is seen twice, and what a process that dies had in hand is
    /// lost.
    AtMostOnce,
    /// The application calls [`commit`](crate::GroupConsumer::commit) when it has processed what it was given: none is
    /// lost, and what a process that dies had not committed is seen again.
    #[default]
    AtLeastOnce,
    /// As `AtLeastOnce`, but commits by itself: this often, when partitions go, and at the close. Only what was handed out
    /// before the latest call of [`next`](crate::GroupConsumer::next) is committed, for only that is processed for sure.
    Auto(Duration),
}

/// Who assigns partitions to members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// Balanced, and few partitions move.
    #[default]
    Uniform,
    /// Neighbouring partitions; the same numbers of each topic to the same member.
    Range,
}

/// Settings of a [`GroupConsumer`]; from [`Client::group_consumer`](crate::Client::group_consumer).
#[must_use = "a builder makes nothing until `start`"]
pub struct GroupConsumerBuilder {
    shared: Arc<Shared>,
    join: SessionJoin,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    max_processing: Duration,
    settings: Settings,
    prefetch: u64,
    zone: Option<String>,
    listener: Option<Box<dyn RebalanceListener>>,
}

impl GroupConsumerBuilder {
    pub(crate) fn new(shared: Arc<Shared>, group: &str) -> Self {
        let member_id = Uuid::new_v4().to_string();
        let client_id = shared.config.client_id.clone();
        let subscription = Some(Subscription::default());
        let join =
            SessionJoin { group: group.to_owned(), member_id, client_id, subscription, ..SessionJoin::default() };
        Self {
            shared,
            join,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_mins(5),
            max_processing: Duration::from_mins(5),
            settings: Settings {
                mode: CommitMode::default(),
                reset: ResetPolicy::Earliest,
                follow: true,
                max_bytes: 1 << 20,
            },
            prefetch: 16 << 20,
            zone: None,
            listener: None,
        }
    }

    fn subscription(&mut self) -> &mut Subscription {
        self.join.subscription.get_or_insert_default()
    }

    /// Topics to read. One that is not there yet is taken up when it is made.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.subscription().topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Topics whose whole names match this regular expression (RE2's syntax) as well, those made later included.
    pub fn pattern(mut self, pattern: impl Into<String>) -> Self {
        self.subscription().pattern = pattern.into();
        self
    }

    /// What it promises. Default: [`CommitMode::AtLeastOnce`].
    pub fn commits(mut self, mode: CommitMode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Where to begin in a partition for which the group has committed nothing, or whose committed offset is gone. Default:
    /// [`ResetPolicy::Earliest`], which misses nothing. Where [`ResetPolicy::Latest`] begins is committed at once, in every
    /// mode. With [`ResetPolicy::Fail`] the member leaves the group when nothing is committed, and
    /// [`next`](GroupConsumer::next) fails; called again, it joins again.
    pub fn reset(mut self, policy: ResetPolicy) -> Self {
        self.settings.reset = policy;
        self
    }

    /// Makes the member static: a process that comes back under the same name within the session timeout gets its old
    /// partitions, and nothing moves.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.join.instance_id = id.into();
        self
    }

    /// Who assigns. Members of a group should agree.
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        let name = match assignor {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        };
        name.clone_into(&mut self.join.assignor);
        self
    }

    /// Zone of the process, named as the brokers' nodes name theirs: partitions are read from in-sync replicas there, where there
    /// are any, and from their leaders otherwise. Descriptions show it, unless they show a [`rack`](Self::rack). Default: none,
    /// only leaders are read.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Where the process is, for descriptions only.
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.join.rack = rack.into();
        self
    }

    /// A member that is not heard of for so long is removed. Default 45 s; 1 s to 30 min.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// A member that does not let go of revoked partitions for so long is removed. Default 5 min; 1 s to 1 h.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.rebalance_timeout = timeout;
        self
    }

    /// How long the application may work on what one call of `next` gave it. Then it counts as stuck: it leaves the group,
    /// and others go on in its place. Default 5 min.
    pub fn max_processing_time(mut self, time: Duration) -> Self {
        self.max_processing = time;
        self
    }

    /// Wait for new records at the end (default), or end when each partition that the member owns is read to the end that
    /// it had when it was assigned.
    pub fn follow(mut self, follow: bool) -> Self {
        self.settings.follow = follow;
        self
    }

    /// Bytes of batches that one call of `next` hands out about at most; at least one batch. Default 1 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// Bytes of batches that each broker may send ahead of the application. Default 16 MiB; at least 64 KiB.
    pub fn prefetch(mut self, bytes: u64) -> Self {
        self.prefetch = bytes;
        self
    }

    /// Who is told when partitions come and go.
    pub fn listener(mut self, listener: impl RebalanceListener + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Joins the group and starts to read. Waits until the group has taken the member in.
    pub async fn start(mut self) -> Result<GroupConsumer> {
        self.check()?;
        self.join.session_timeout_ms = millis(self.session_timeout);
        self.join.rebalance_timeout_ms = millis(self.rebalance_timeout);
        if self.join.rack.is_empty() {
            self.join.rack = self.zone.clone().unwrap_or_default();
        }
        let group = self.join.group.clone();
        let membership = Membership::new(self.join, self.session_timeout, self.max_processing, Instant::now());
        let session = Session::start(self.shared.clone(), membership);
        let reader = Consumer::unassigned(self.shared.clone(), self.prefetch, self.settings.reset).in_zone(self.zone);
        let mut consumer = GroupConsumer::new(self.shared, group, self.settings, session, reader, self.listener);
        consumer.joined().await?;
        Ok(consumer)
    }

    fn check(&self) -> Result<()> {
        let fault = |message: String| Err(Error::local(ErrorKind::InvalidArgument, message));
        let subscription = self.join.subscription.as_ref();
        if subscription.is_none_or(|s| s.topics.is_empty() && s.pattern.is_empty()) {
            return fault("the group consumer reads nothing: name topics or a pattern".to_owned());
        }
        if self.join.group.is_empty() || self.join.group.len() > 249 {
            return fault(format!("the group's name has {} bytes: choose 1 to 249", self.join.group.len()));
        }
        if self.prefetch < 64 << 10 {
            return fault(format!("prefetch is {} bytes: choose at least 64 KiB", self.prefetch));
        }
        let bounds = [
            ("session_timeout", self.session_timeout, Duration::from_mins(30)),
            ("rebalance_timeout", self.rebalance_timeout, Duration::from_hours(1)),
        ];
        for (name, value, most) in bounds {
            if value < Duration::from_secs(1) || value > most {
                return fault(format!("{name} is {value:?}: choose 1 s to {most:?}"));
            }
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
