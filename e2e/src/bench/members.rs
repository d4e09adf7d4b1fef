//! Many members: 1,000 groups of 10, each member with a stream of its own, and what they take of the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::session_request::Frame;
use taffrail_proto::v1::session_response::Frame as Answer;
use taffrail_proto::v1::{ListGroupsRequest, SessionHeartbeat, SessionRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::coordinator::join;
use super::figures::Figures;
use super::load::connect;
use super::probe::Usage;
use super::sitting::{Sitting, used};
use crate::process::Broker;

const GROUPS: usize = 1_000;
const MEMBERS: usize = 10;
/// Partitions of their topic.
const PARTITIONS: usize = 16;
/// Members on one connection; a broker allows 64 streams.
const SHARING: usize = 50;
/// How many groups join at a time.
const AT_ONCE: usize = 50;
/// Longest that it may take until all members are in and own what they should.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long heartbeats are watched.
const WATCHED: Duration = Duration::from_secs(20);
/// What members took is looked at so long after their streams are gone; the session timeout is 45 s.
const REST: Duration = Duration::from_secs(15);

/// What all members tell.
#[derive(Debug, Default)]
struct Told {
    joined: AtomicUsize,
    owned: AtomicI64,
    heartbeats: AtomicUsize,
}

/// Members, each in a task of its own.
struct Crowd {
    tasks: JoinSet<Result<()>>,
    told: Arc<Told>,
}

/// The rows about many members.
pub(super) async fn run(sitting: &Sitting, broker: &Broker, figures: &mut Figures) -> Result<()> {
    // Without the program's own pages, which are read in as they are used.
    let resident = || Usage::of(broker.pid()).map(|usage| (usage.resident - usage.resident_file) as f64);
    let before = resident()?;
    let mut crowd = Crowd { tasks: JoinSet::new(), told: Arc::default() };
    let begin = Instant::now();
    crowd.gather(&broker.endpoint()).await?;
    let joined = begin.elapsed().as_secs_f64();
    crowd.rest(Duration::from_secs(5)).await?;

    let recording = sitting.record(&["group-heartbeats"], &[broker.pid()])?;
    let sent = crowd.told.heartbeats.load(Ordering::Relaxed);
    let ((), usage) = used(broker, crowd.rest(WATCHED)).await?;
    sitting.keep(recording)?;
    let sent = (crowd.told.heartbeats.load(Ordering::Relaxed) - sent) as f64;
    ensure!(sent > 0.0, "nobody has sent a heartbeat in {WATCHED:?}");
    let note = format!(
        "{:.0}/s, as often as the broker asks for, {SHARING} streams a connection; {:.0} µs each; {joined:.1} s to join",
        sent / WATCHED.as_secs_f64(),
        usage.cpu_seconds / sent * 1e6
    );
    figures.add("group-heartbeats", usage.cpu_seconds / WATCHED.as_secs_f64() * 100.0, &note);

    let of_each = |resident: f64| (resident - before).max(0.0) / (GROUPS * MEMBERS) as f64 / 1024.0;
    let note = format!("all of it: member, stream, and 1/{SHARING} of a connection");
    figures.add("group-memory-open", of_each(resident()?), &note);
    crowd.tasks.shutdown().await;
    tokio::time::sleep(REST).await;
    ensure!(members(broker).await? == GROUPS * MEMBERS, "members went before their session timeout");
    let note = "what the coordinators keep, their logs' caches included; 15 s after the streams are gone";
    figures.add("group-memory", of_each(resident()?), note);
    Ok(())
}

impl Crowd {
    /// All join, group by group; waits until each owns what it should.
    async fn gather(&mut self, endpoint: &str) -> Result<()> {
        let connections = try_join_all((0..GROUPS * MEMBERS / SHARING).map(|_| connect(endpoint))).await?;
        for number in 0..GROUPS * MEMBERS {
            let client = GroupsClient::new(connections[number / SHARING].clone());
            self.tasks.spawn(member(client, format!("group-{}", number / MEMBERS), Arc::clone(&self.told)));
            let told = Arc::clone(&self.told);
            self.wait(move || told.joined.load(Ordering::Relaxed) + AT_ONCE * MEMBERS > number).await?;
        }
        let told = Arc::clone(&self.told);
        let all = (GROUPS * PARTITIONS) as i64;
        self.wait(move || told.owned.load(Ordering::Relaxed) == all).await
    }

    /// Fails when a member does.
    async fn wait(&mut self, is_so: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !is_so() {
            let told = &self.told;
            ensure!(begin.elapsed() < PATIENCE, "members do not join: {told:?} after {PATIENCE:?}");
            self.rest(Duration::from_millis(1)).await?;
        }
        Ok(())
    }

    /// Lets time pass; fails when a member does.
    async fn rest(&mut self, time: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            Some(ended) = self.tasks.join_next() => ended?,
        }
    }
}

/// One member: says that it is alive as often as it is asked to, and lets go of what it is told to.
async fn member(mut client: GroupsClient<Channel>, group: String, told: Arc<Told>) -> Result<()> {
    let (frames, queued) = mpsc::unbounded_channel();
    frames.send(join(group))?;
    let mut answers = client.session(UnboundedReceiverStream::new(queued)).await?.into_inner();
    let (mut owns, mut interval) = (SessionHeartbeat::default(), None);
    let count = |owns: &SessionHeartbeat| owns.owned.iter().map(|topic| topic.partitions.len()).sum::<usize>() as i64;
    loop {
        let beat = async {
            match interval {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = beat => {
                told.heartbeats.fetch_add(1, Ordering::Relaxed);
            }
            answer = answers.message() => match answer?.context("the broker ended the session")?.frame {
                Some(Answer::Joined(joined)) => {
                    owns.member_epoch = joined.member_epoch;
                    if interval.replace(Duration::from_millis(joined.heartbeat_interval_ms.into())).is_none() {
                        told.joined.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Some(Answer::Assignment(now)) => {
                    told.owned.fetch_sub(count(&owns), Ordering::Relaxed);
                    owns = SessionHeartbeat { owned: now.partitions, member_epoch: now.member_epoch };
                    told.owned.fetch_add(count(&owns), Ordering::Relaxed);
                }
                other => bail!("{other:?} from a broker that is well"),
            },
        }
        frames.send(SessionRequest { frame: Some(Frame::Heartbeat(owns.clone())) })?;
    }
}

/// Members of all groups, as the broker lists them.
async fn members(broker: &Broker) -> Result<usize> {
    let mut client = GroupsClient::new(connect(&broker.endpoint()).await?);
    let groups = client.list_groups(ListGroupsRequest::default()).await?.into_inner().groups;
    Ok(groups.iter().map(|group| group.members as usize).sum())
}
