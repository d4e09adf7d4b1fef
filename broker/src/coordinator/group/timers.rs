//! Timers: members that are silent or do not let go, groups and topics whose offsets are kept for nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::TopicsView;
use super::draft::Draft;
use super::records::{Change, Record};
use super::shard::GroupShard;
use crate::coordinator::{Effects, Env, TimerChange};

/// How long offsets are kept of a group without members, and of a topic that is gone (C10). A topic that is brought back
/// within this time finds them again.
pub const OFFSETS_RETENTION: Duration = Duration::from_hours(7 * 24);

/// A timer of a shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The member was not heard of.
    Session {
        /// Its group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
    },
    /// The member did not let go of what it was asked to.
    Rebalance {
        /// Its group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
    },
    /// The group has had no members for so long that it goes, with its offsets.
    GroupExpires(Arc<str>),
    /// The topic is gone for so long that its offsets go.
    TopicForgotten(Uuid),
    /// The topics have changed, and groups from this one on are still to be looked at.
    World(Arc<str>),
}

impl GroupShard {
    /// The member is removed, and with that fenced.
    pub(super) fn expel(&self, group: &str, member: &Arc<str>, env: &Env<'_, Arc<TopicsView>>) -> Effects<Self> {
        if self.groups.get(group).is_none_or(|group| !group.members.contains_key(member)) {
            return Effects::default();
        }
        let mut draft = Draft::new(self, group, env);
        draft.remove(member);
        draft.retarget();
        draft.finish(None, None)
    }

    /// As [`expel`](Self::expel), if it still holds on to something.
    pub(super) fn rebalance_over(
        &self,
        group: &str,
        member: &Arc<str>,
        env: &Env<'_, Arc<TopicsView>>,
    ) -> Effects<Self> {
        let holds = self.member(group, member).is_some_and(|member| !member.current.revoking.is_empty());
        if holds { self.expel(group, member, env) } else { Effects::default() }
    }

    pub(super) fn group_expires(&self, id: &Arc<str>, env: &Env<'_, Arc<TopicsView>>) -> Effects<Self> {
        let Some(since) = self.groups.get(id).and_then(|group| group.standing.empty_since) else {
            return Effects::default();
        };
        let mut effects = Effects::default();
        match remaining(since, env.log_millis) {
            Some(more) => effects.timers.push(TimerChange::Set(Timer::GroupExpires(Arc::clone(id)), more)),
            None => effects.records.push(Record::Group { group: Arc::clone(id), change: Change::Removed }),
        }
        effects
    }

    pub(super) fn topic_forgotten(&self, topic: Uuid, env: &Env<'_, Arc<TopicsView>>) -> Effects<Self> {
        let Some(since) = self.gone.get(&topic) else { return Effects::default() };
        let mut effects = Effects::default();
        match remaining(*since, env.log_millis) {
            Some(more) => effects.timers.push(TimerChange::Set(Timer::TopicForgotten(topic), more)),
            None => effects.records.push(Record::TopicForgotten { topic }),
        }
        effects
    }

    /// Timers are not in the log: a loaded shard gives each member its whole time again.
    pub(super) fn start_timers(&self, env: &Env<'_, Arc<TopicsView>>) -> Effects<Self> {
        let mut effects = Effects::default();
        for (id, group) in &self.groups {
            for (member, state) in &group.members {
                let (group, member) = (Arc::clone(id), Arc::clone(member));
                if !state.current.revoking.is_empty() {
                    let timer = Timer::Rebalance { group: Arc::clone(&group), member: Arc::clone(&member) };
                    effects.timers.push(TimerChange::Set(timer, state.profile.rebalance_timeout));
                }
                let session = state.profile.session_timeout;
                effects.timers.push(TimerChange::Set(Timer::Session { group, member }, session));
            }
            if let Some(since) = group.standing.empty_since {
                let more = remaining(since, env.log_millis).unwrap_or_default();
                effects.timers.push(TimerChange::Set(Timer::GroupExpires(Arc::clone(id)), more));
            }
        }
        for (&topic, &since) in &self.gone {
            let more = remaining(since, env.log_millis).unwrap_or_default();
            effects.timers.push(TimerChange::Set(Timer::TopicForgotten(topic), more));
        }
        effects.timers.push(TimerChange::Set(Timer::World(Arc::from("")), Duration::ZERO));
        effects
    }

    /// The topics have changed: looks at the groups from this one on, a few at a time, so that no decision is large.
    pub(super) fn look_at_groups(&self, from: &Arc<str>, env: &Env<'_, Arc<TopicsView>>) -> Effects<Self> {
        const CHANGED_AT_ONCE: usize = 16;
        let mut all = Effects::default();
        let mut changed = 0;
        for (id, group) in self.groups.range(Arc::clone(from)..) {
            if group.members.is_empty() || super::draft::subscribed(group, env.world, self) == *group.topics {
                continue;
            }
            if changed == CHANGED_AT_ONCE {
                all.timers.push(TimerChange::Set(Timer::World(Arc::clone(id)), Duration::ZERO));
                break;
            }
            changed += 1;
            let mut draft = Draft::new(self, id, env);
            draft.retarget();
            let effects = draft.finish(None, None);
            all.records.extend(effects.records);
            all.timers.extend(effects.timers);
            all.events.extend(effects.events);
        }
        all
    }

    /// Topics with offsets that went, and those that came back.
    pub(super) fn look_at_gone(&self, env: &Env<'_, Arc<TopicsView>>) -> Effects<Self> {
        let mut effects = Effects::default();
        let there: BTreeSet<Uuid> = env.world.topics.values().map(|topic| topic.id).collect();
        let used: BTreeSet<Uuid> = self.groups.values().flat_map(|group| group.offsets.keys().copied()).collect();
        for &topic in used.iter().filter(|topic| !there.contains(topic) && !self.gone.contains_key(topic)) {
            effects.records.push(Record::TopicGone { topic, since: Some(env.log_millis) });
            effects.timers.push(TimerChange::Set(Timer::TopicForgotten(topic), OFFSETS_RETENTION));
        }
        for &topic in self.gone.keys().filter(|topic| there.contains(topic)) {
            effects.records.push(Record::TopicGone { topic, since: None });
            effects.timers.push(TimerChange::Cancel(Timer::TopicForgotten(topic)));
        }
        effects
    }
}

/// What is left of the retention; `None`: nothing.
fn remaining(since: i64, now: i64) -> Option<Duration> {
    let passed = Duration::from_millis(now.saturating_sub(since).max(0) as u64);
    OFFSETS_RETENTION.checked_sub(passed).filter(|left| !left.is_zero())
}
