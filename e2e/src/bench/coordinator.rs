//! The group coordinator by itself: commits, and its start with many offsets. What many members cost it: [`members`].
//!
//! [`members`]: super::members

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use taffrail_proto::partitioner::partition_for_key;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::session_request::Frame;
use taffrail_proto::v1::session_response::Frame as Answer;
use taffrail_proto::v1::{
    CommitOffsetsRequest, FetchOffsetsRequest, OffsetCommit, SessionJoin, SessionRequest, Subscription,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use super::figures::Figures;
use super::load::connect;
use super::members;
use super::sitting::{Sitting, used};
use crate::process::Broker;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long commits are counted.
const WATCHED: Duration = Duration::from_secs(5);
/// Partitions of the topic for the start with many offsets.
const WIDE: u32 = 1_000;

type Groups = GroupsClient<Channel>;

/// The rows about the coordinator.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.long_rounds() {
        let topics = [("narrow", 16, ""), ("wide", WIDE, "")];
        let broker = sitting.broker("coordinator", &topics, &[])?;
        commits(sitting, &broker, figures).await?;
        let broker = start(broker, figures).await?;
        sitting.discard(broker)?;
        let broker = sitting.broker("coordinator", &topics, &[])?;
        members::run(sitting, &broker, figures).await?;
        sitting.discard(broker)?;
    }
    Ok(())
}

/// The request of a new member of a group that reads `narrow`.
pub(super) fn join(group: String) -> SessionRequest {
    let subscription = Some(Subscription { topics: vec!["narrow".into()], ..Subscription::default() });
    SessionRequest { frame: Some(Frame::Join(SessionJoin { group, subscription, ..SessionJoin::default() })) }
}

/// A member that commits, and needs no stream meanwhile: its session outlasts the figure.
async fn committer(mut client: Groups, group: String) -> Result<CommitOffsetsRequest> {
    let queued = tokio_stream::once(join(group.clone())).chain(tokio_stream::pending());
    let mut answers = client.session(queued).await?.into_inner();
    let mut request = CommitOffsetsRequest { group, ..Default::default() };
    loop {
        let answer = answers.message().await?.context("the broker ended the session")?;
        match answer.frame.context("an empty answer")? {
            Answer::Joined(joined) => request.member_id = joined.member_id,
            Answer::Assignment(assignment) => {
                request.member_epoch = assignment.member_epoch;
                return Ok(request);
            }
            Answer::Drain(_) => {}
        }
    }
}

/// Commits of one offset each by members of 64 groups, each with one call under way.
async fn commits(sitting: &Sitting, broker: &Broker, figures: &mut Figures) -> Result<()> {
    const CLIENTS: usize = 64;
    let endpoint = broker.endpoint();
    let connections = try_join_all((0..4).map(|_| connect(&endpoint))).await?;
    let client = |i: usize| Groups::new(connections[i % connections.len()].clone());
    let members = (0..CLIENTS).map(|i| committer(client(i), format!("commits-{i}")));
    let members = timeout(PATIENCE, try_join_all(members)).await.context("members do not join")??;
    let begin = Instant::now();
    let commit = async |(i, member): (usize, CommitOffsetsRequest)| {
        let (mut client, mut offset) = (client(i), 0);
        while begin.elapsed() < WATCHED {
            offset += 1;
            let request = CommitOffsetsRequest { offsets: offsets("narrow", 0..1, offset), ..member.clone() };
            let answer = client.commit_offsets(request).await?.into_inner();
            ensure!(answer.errors.is_empty(), "a commit was refused: {:?}", answer.errors);
        }
        Ok(offset)
    };
    let all = try_join_all(members.into_iter().enumerate().map(commit));
    let recording = sitting.record(&["group-commits"], &[broker.pid()])?;
    let (counts, usage) =
        used(broker, async { timeout(PATIENCE, all).await.context("commits are not answered")? }).await?;
    sitting.keep(recording)?;
    let (commits, seconds) = (counts.iter().sum::<i64>() as f64, begin.elapsed().as_secs_f64());
    let cpu = usage.cpu_seconds / commits * 1e6;
    let note = format!("members of 64 groups, one offset and one call at a time each; {cpu:.0} µs of CPU a commit");
    figures.add("group-commits", commits / seconds, &note);
    Ok(())
}

fn offsets(topic: &str, partitions: std::ops::Range<i32>, offset: i64) -> Vec<OffsetCommit> {
    let commit = |partition| OffsetCommit { topic: topic.to_owned(), partition, offset, ..OffsetCommit::default() };
    partitions.map(commit).collect()
}

/// 100 groups with 1,000 offsets each, all of one coordinator; then a kill, and the time from the start of the process
/// until all of them have answered.
async fn start(broker: Broker, figures: &mut Figures) -> Result<Broker> {
    const GROUPS: usize = 100;
    let mut client = Groups::new(connect(&broker.endpoint()).await?);
    // The coordinator of a group is that of its name's hash.
    let of_one = (0..).map(|i| format!("load-{i}")).filter(|name| partition_for_key(name.as_bytes(), 16) == 0);
    let groups: Vec<String> = of_one.take(GROUPS).collect();
    for group in &groups {
        let (group, offsets) = (group.clone(), offsets("wide", 0..WIDE as i32, 1));
        let request = CommitOffsetsRequest { group, offsets, ..Default::default() };
        let answer = timeout(PATIENCE, client.commit_offsets(request)).await.context("a commit is not answered")??;
        ensure!(answer.into_inner().errors.is_empty(), "a commit was refused");
    }
    let options = broker.kill()?;
    let begin = Instant::now();
    let broker = options.start()?;
    let mut client = Groups::new(connect(&broker.endpoint()).await?).max_decoding_message_size(64 << 20);
    let mut found = 0;
    for group in groups {
        found += fetched(&mut client, group, begin).await?;
    }
    ensure!(found == GROUPS * WIDE as usize, "{found} offsets were found again");
    let note =
        "100,000 offsets of 100 groups in one coordinator; from the start of the process until all have answered";
    figures.add("group-start", begin.elapsed().as_secs_f64(), note);
    Ok(broker)
}

/// How many offsets a group has committed, once its coordinator answers.
async fn fetched(client: &mut Groups, group: String, begin: Instant) -> Result<usize> {
    let request = FetchOffsetsRequest { group, ..Default::default() };
    loop {
        match client.fetch_offsets(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner().offsets.len()),
            Err(status) => {
                let waits = status.code() == tonic::Code::Unavailable && begin.elapsed() < PATIENCE;
                ensure!(waits, "offsets of {}: {status}", request.group);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
