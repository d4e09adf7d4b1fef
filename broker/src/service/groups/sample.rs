//! What the metrics show of groups: asked of the coordinators every few seconds, since a scrape cannot wait for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::describe::lag;
use crate::coordinator::group::{
    Answered, CommittedOffset, GroupDescription, GroupState, GroupSummary, Request, TopicPartition,
};
use crate::coordinator::groups::{Directory, Groups};
use crate::metrics::{CoordinatorSample, GroupSample, GroupsSample, MAX_GROUPS, Metrics};

/// How often the coordinators are asked.
const EVERY: Duration = Duration::from_secs(10);

/// What was heard last.
#[derive(Default)]
struct Heard {
    summaries: Vec<GroupSummary>,
    groups: Vec<GroupSample>,
    epochs: HashMap<String, i32>,
}

/// Shows groups in `metrics` until told to stop.
pub(crate) async fn run(groups: Arc<Groups>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (shown, source) = (heard.clone(), Arc::downgrade(&groups));
    metrics.observe_groups(Box::new(move || {
        source.upgrade().map_or_else(GroupsSample::default, |groups| sample(&shown.lock(), &groups))
    }));
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let Some(now) = stop.run_until_cancelled(ask(&groups)).await else { return };
        let mut heard = heard.lock();
        let rebalances: i64 = now.epochs.iter().map(|(group, epoch)| risen(&heard.epochs, group, *epoch)).sum();
        metrics.groups.rebalances.inc_by(rebalances.max(0) as u64);
        *heard = now;
    }
}

fn risen(before: &HashMap<String, i32>, group: &str, epoch: i32) -> i64 {
    i64::from(epoch) - i64::from(before.get(group).copied().unwrap_or(0))
}

/// A coordinator that cannot answer leaves its groups out this time.
async fn ask(groups: &Groups) -> Heard {
    let mut heard = Heard::default();
    if let Ok(answers) = groups.ask_all(&Request::List).await {
        let lists = answers.into_iter().filter_map(|answered| match answered {
            Answered::Groups(summaries) => Some(summaries),
            _ => None,
        });
        heard.summaries = lists.flatten().collect();
    }
    heard.epochs = heard.summaries.iter().map(|summary| (summary.group.clone(), summary.epoch)).collect();
    for summary in heard.summaries.iter().take(MAX_GROUPS) {
        let answered = groups.ask(&summary.group, Request::Describe(summary.group.clone())).await;
        if let Ok(Answered::Group(group)) = answered {
            heard.groups.push(lags(&groups.directory(), &group).await);
        }
    }
    heard
}

async fn lags(directory: &Directory, group: &GroupDescription) -> GroupSample {
    let of = async |(id, committed): &(TopicPartition, CommittedOffset)| {
        let topic = directory.topic_of(*id)?.name.clone();
        Some((topic, id.partition, lag(directory, *id, Some(committed.offset)).await.1))
    };
    let lag = futures::future::join_all(group.offsets.iter().map(of)).await.into_iter().flatten().collect();
    GroupSample { group: group.summary.group.as_str().into(), members: group.summary.members, lag }
}

fn sample(heard: &Heard, groups: &Groups) -> GroupsSample {
    let count = |state| heard.summaries.iter().filter(|summary| summary.state == state).count();
    GroupsSample {
        states: vec![
            ("empty", count(GroupState::Empty)),
            ("assigning", count(GroupState::Assigning)),
            ("reconciling", count(GroupState::Reconciling)),
            ("stable", count(GroupState::Stable)),
        ],
        groups: heard.groups.clone(),
        coordinators: groups
            .status()
            .into_iter()
            .map(|shard| CoordinatorSample {
                serves: shard.serves,
                load: shard.load,
                log_bytes: shard.log_bytes,
                checkpoints: shard.checkpoints,
            })
            .collect(),
    }
}
