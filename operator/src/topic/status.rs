//! A Topic's status: from what was decided about it and what its slices say. Pure.

use std::time::SystemTime;

use taffrail_crds::condition::{Condition, ConditionStatus, READY, RECONCILING, STALLED, set_condition};
use taffrail_crds::{PartitionSlice, PartitionState, Topic, TopicStatus};
use uuid::Uuid;

use super::accept::{ACCEPTED, Identity, Verdict};
use crate::replicas::{BELOW_MIN, Health, POSSIBLE_LOSS, RECOVERED, UNCLEAN, UNDER_REPLICATED};
use crate::survives::SURVIVES;

/// Reason: slices were there and are gone.
const SLICES_LOST: &str = "SlicesLost";

/// Most partitions that a message names.
const MAX_NAMED: usize = 5;

/// The status of a Topic.
pub fn status_of(topic: &Topic, verdict: &Verdict, new_id: impl FnOnce() -> Uuid, now: SystemTime) -> TopicStatus {
    let mut status = topic.status.clone().unwrap_or_default();
    let generation = topic.metadata.generation;
    status.observed_generation = generation;
    match &verdict.accepted {
        Some(Identity::New) => status.topic_id = Some(new_id().to_string()),
        Some(Identity::Known(id)) => status.topic_id = Some(id.clone()),
        None => {}
    }
    if verdict.accepted.is_some() && verdict.refused.is_none() {
        status.accepted_generation = generation;
    }
    let mut seen = Seen::of(verdict, topic.spec.partitions);
    let has_id = status.topic_id.is_some();
    // Partitions never disappear: fewer than there were are lost slices. The brokers' controller goes by the number.
    let made = status.partitions.filter(|_| has_id).unwrap_or(0);
    seen.lost = (made - seen.present).max(0);
    status.partitions = has_id.then_some(seen.present.max(made));
    status.ready_partitions = has_id.then_some(seen.ready);
    let loss = told(POSSIBLE_LOSS, seen.health.possible_loss(&status.conditions));
    let survives = verdict.survives.clone().filter(|_| has_id).map(|survives| told(SURVIVES, survives));
    if survives.is_none() {
        status.conditions.retain(|known| known.type_ != SURVIVES);
    }
    let all = conditions(verdict, &seen, topic.spec.partitions).into_iter().chain([loss]).chain(survives);
    for mut condition in all {
        condition.observed_generation = generation;
        set_condition(&mut status.conditions, condition, now);
    }
    status
}

/// What the slices say of a topic's partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    present: i32,
    ready: i32,
    /// Partitions that were there, and whose slice is gone.
    lost: i32,
    /// Partitions that are there and have no leader, with why.
    leaderless: Vec<(i32, Option<String>)>,
    /// How the replicas of those that are there do.
    health: Health,
}

impl Seen {
    fn of(verdict: &Verdict, wanted: i32) -> Self {
        let slices: &[PartitionSlice] = &verdict.slices;
        let partitions = || slices.iter().flat_map(|slice| &slice.spec.partitions).filter(|p| p.index < wanted);
        let is_ready = |partition: &&PartitionState| partition.leader.is_some();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let mut health = Health::default();
        for partition in partitions() {
            // What is refused is not asked of the brokers.
            let asked = if verdict.refused.is_some() { partition.replication_factor } else { verdict.replicas };
            health.add(partition, asked, || partition.index.to_string());
        }
        Self {
            present: count(slices.iter().map(|slice| slice.spec.partitions.len()).sum()),
            ready: count(partitions().filter(is_ready).count()),
            lost: 0,
            leaderless: partitions().filter(|p| !is_ready(p)).map(|p| (p.index, p.fault.clone())).collect(),
            health,
        }
    }
}

fn conditions(verdict: &Verdict, seen: &Seen, wanted: i32) -> Vec<Condition> {
    use ConditionStatus::{False, True, Unknown};
    let ready = readiness(seen, wanted);
    let (accepted, ready, reconciling, stalled) = match (&verdict.accepted, &verdict.refused) {
        // A verdict has one of the two.
        (_, None) => {
            let (reason, message) = (ready.reason.clone(), ready.message.clone());
            // Somebody has to bring them back.
            let stalls = reason == SLICES_LOST;
            let work = if ready.status == True || stalls { False } else { True };
            let stalled = if stalls {
                Condition::new(STALLED, True, SLICES_LOST, message.clone())
            } else {
                Condition::new(STALLED, False, "Accepted", "")
            };
            (
                Condition::new(ACCEPTED, True, "Accepted", "the brokers hold it"),
                ready,
                Condition::new(RECONCILING, work, &reason, message),
                stalled,
            )
        }
        (Some(_), Some(refusal)) => (
            Condition::new(ACCEPTED, True, "Accepted", "the brokers hold it as it was before its last change"),
            Condition::new(READY, False, refusal.reason, &*refusal.message),
            Condition::new(RECONCILING, False, refusal.reason, ""),
            Condition::new(STALLED, True, refusal.reason, &*refusal.message),
        ),
        (None, Some(refusal)) => (
            Condition::new(ACCEPTED, False, refusal.reason, &*refusal.message),
            Condition::new(READY, False, refusal.reason, &*refusal.message),
            Condition::new(RECONCILING, False, refusal.reason, ""),
            Condition::new(STALLED, True, refusal.reason, &*refusal.message),
        ),
    };
    let under = match &verdict.accepted {
        None => Condition::new(UNDER_REPLICATED, Unknown, "NotAccepted", ""),
        Some(_) => told(UNDER_REPLICATED, seen.health.told()),
    };
    vec![accepted, ready, reconciling, stalled, under]
}

fn told(type_: &str, (holds, reason, message): (bool, &str, String)) -> Condition {
    let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
    Condition::new(type_, status, reason, message)
}

/// Whether all partitions can be written and read.
fn readiness(seen: &Seen, wanted: i32) -> Condition {
    if seen.lost > 0 {
        let message = format!(
            "the PartitionSlices of {} partitions are gone: their data is kept and not served; \"taffrail cluster recover\" \
             rebuilds them from what the brokers saw last",
            seen.lost
        );
        return Condition::new(READY, ConditionStatus::False, SLICES_LOST, message);
    }
    if seen.ready >= wanted {
        return Condition::new(
            READY,
            ConditionStatus::True,
            "Serving",
            format!("{} of {wanted} partitions are served", seen.ready),
        );
    }
    if seen.leaderless.is_empty() {
        let message = format!("{} of {wanted} partitions are placed on brokers", seen.present.min(wanted));
        return Condition::new(READY, ConditionStatus::False, "WaitingForBrokers", message);
    }
    let named: Vec<String> = seen.leaderless.iter().take(MAX_NAMED).map(|(index, _)| index.to_string()).collect();
    let more = if seen.leaderless.len() > MAX_NAMED { ", ..." } else { "" };
    let faults = seen.leaderless.iter().find_map(|(index, fault)| Some((index, fault.as_ref()?)));
    let fault = faults.map(|(index, fault)| format!("; partition {index}: {fault}")).unwrap_or_default();
    let message =
        format!("{} of {wanted} partitions have no leader: {}{more}{fault}", seen.leaderless.len(), named.join(", "));
    Condition::new(READY, ConditionStatus::False, "PartitionsWithoutLeader", message)
}

/// Something that a human should notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub note: String,
}

/// What is new: that it was accepted, is served, or is not any more.
pub fn events(old: &TopicStatus, new: &TopicStatus) -> Vec<News> {
    let mut news = Vec::new();
    if old.topic_id.is_none()
        && let Some(id) = &new.topic_id
    {
        news.push(News { warning: false, reason: "Accepted".to_owned(), note: format!("the topic's id is {id}") });
    }
    let find = |status: &TopicStatus, type_: &str| status.conditions.iter().find(|known| known.type_ == type_).cloned();
    let changed = |type_: &str| {
        let (before, now) = (find(old, type_), find(new, type_)?);
        let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
        (!same).then_some(now)
    };
    if let Some(stalled) = changed(STALLED).filter(|condition| condition.status == ConditionStatus::True) {
        news.push(News { warning: true, reason: stalled.reason, note: stalled.message });
    } else if let Some(ready) = changed(READY) {
        let warning = ready.reason == "PartitionsWithoutLeader";
        if warning || ready.status == ConditionStatus::True {
            news.push(News { warning, reason: ready.reason, note: ready.message });
        }
    }
    for (type_, reason) in [(UNDER_REPLICATED, BELOW_MIN), (POSSIBLE_LOSS, UNCLEAN), (POSSIBLE_LOSS, RECOVERED)] {
        if let Some(told) = changed(type_).filter(|condition| condition.reason == reason) {
            news.push(News { warning: true, reason: told.reason, note: told.message });
        }
    }
    // A topic that is being made survives nothing yet.
    if let Some(told) = changed(SURVIVES).filter(|told| told.reason != "NotPlaced") {
        let warning = told.status == ConditionStatus::False;
        news.push(News { warning, reason: told.reason, note: told.message });
    }
    news
}

#[cfg(test)]
mod tests;
