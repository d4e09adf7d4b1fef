//! Consumer groups against SIGKILL at each step of their coordinator: no acknowledged commit is lost, no partition has two
//! owners, and the group goes on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taffrail_proto::v1::consume_request::Frame as Ask;
use taffrail_proto::v1::consume_response::Frame;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::{self, ConsumeRequest};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::program::Broker;

const MANIFEST: &str = "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: t\nspec:\n  partitions: 4\n";
const PARTITIONS: i32 = 4;
/// Far beyond what anything takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// The highest offset of each partition whose commit was acknowledged, and that was sent.
#[derive(Default)]
struct Journal {
    acknowledged: BTreeMap<i32, i64>,
    sent: BTreeMap<i32, i64>,
}

type Shared = Arc<Mutex<Journal>>;

struct Victim {
    dir: TempDir,
    journal: Shared,
    runtime: tokio::runtime::Runtime,
}

impl Victim {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("topics.yaml"), MANIFEST).unwrap();
        Self { dir, journal: Shared::default(), runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn start(&self, crash_point: Option<&str>) -> (Broker, String) {
        let manifest = self.dir.path().join("topics.yaml");
        let more = ["--manifest", manifest.to_str().unwrap()];
        let environment: Vec<_> = crash_point.map(|point| ("TAFFRAIL_CRASH_POINT", point)).into_iter().collect();
        let mut broker = Broker::start_with(&data(self.dir.path()), &more, &environment);
        broker.wait_for("ready");
        let endpoint = format!("http://{}", broker.listener());
        (broker, endpoint)
    }

    /// Two members join one after the other, hand over and commit until the broker dies at `point`.
    fn dies_at(&self, point: &str) {
        let (mut broker, endpoint) = self.start(Some(point));
        let both = async {
            let first = member(&endpoint, "a", &self.journal);
            let second = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                member(&endpoint, "b", &self.journal).await;
            };
            tokio::join!(first, second)
        };
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await });
        assert!(ended.is_ok(), "{point} was not reached");
        assert_eq!(broker.exit_code(), -1, "{point}: {}", broker.log());
    }

    /// What the death has left is what it must be.
    fn examine(&self, point: &str) {
        let (_broker, endpoint) = self.start(None);
        self.runtime.block_on(async {
            let mut client = GroupsClient::connect(endpoint.clone()).await.unwrap();
            self.check_commits(&mut client, point).await;
            check_owners(&mut client, point).await;
        });
    }

    async fn check_commits(&self, client: &mut GroupsClient<Channel>, point: &str) {
        let request = v1::FetchOffsetsRequest { group: "g".to_owned(), partitions: vec![] };
        let found = client.fetch_offsets(request).await.unwrap().into_inner().offsets;
        let found: BTreeMap<i32, i64> = found.into_iter().filter_map(|o| Some((o.partition, o.offset?))).collect();
        let journal = self.journal.lock().unwrap();
        for (partition, acknowledged) in &journal.acknowledged {
            let now = found.get(partition).copied().unwrap_or(-1);
            assert!(
                now >= *acknowledged,
                "{point}: {now} is committed for {partition}, {acknowledged} was acknowledged"
            );
            assert!(now <= journal.sent[partition], "{point}: nobody has sent {now}");
        }
    }
}

fn data(dir: &Path) -> std::path::PathBuf {
    dir.join("data")
}

async fn check_owners(client: &mut GroupsClient<Channel>, point: &str) {
    let describe = v1::DescribeGroupRequest { group: "g".to_owned() };
    // A group that was never joined is none.
    let Ok(group) = client.describe_group(describe).await else { return };
    let mut owners = BTreeMap::new();
    for member in group.into_inner().members {
        let held = member.assigned.iter().chain(&member.revoking).flat_map(|topic| topic.partitions.clone());
        for partition in held {
            let other = owners.insert(partition, member.member_id.clone());
            assert_eq!(other, None, "{point}: {partition} has two owners");
        }
    }
}

/// Is a member until the broker dies: commits 1, 2, 3, … for each partition it owns, and lets go of what is revoked.
async fn member(endpoint: &str, id: &str, journal: &Shared) {
    let (frames, requests) = mpsc::channel(100);
    let Ok(mut client) = GroupsClient::connect(endpoint.to_owned()).await else { return };
    let subscription = Some(v1::Subscription { topics: vec!["t".to_owned()], pattern: String::new() });
    let (group, member_id) = ("g".to_owned(), id.to_owned());
    let join = v1::SessionJoin { group, member_id, subscription, session_timeout_ms: 8_000, ..Default::default() };
    let open = v1::ConsumeOpen { join: Some(join), ..v1::ConsumeOpen::default() };
    let send = async |frame| frames.send(ConsumeRequest { frame: Some(frame) }).await.is_ok();
    send(Ask::Open(open)).await;
    let Ok(answers) = client.consume(ReceiverStream::new(requests)).await else { return };
    let (mut answers, mut owned) = (answers.into_inner(), BTreeMap::<i32, i64>::new());
    let mut pending = Vec::new();
    let mut beat = tokio::time::interval(Duration::from_millis(20));
    loop {
        let frame = tokio::select! {
            _ = beat.tick() => {
                if pending.is_empty() {
                    for offset in owned.values_mut() {
                        *offset += 1;
                    }
                    pending = owned.iter().map(|(partition, offset)| (*partition, *offset)).collect();
                    note(&mut journal.lock().unwrap().sent, &pending);
                    let offset = |(partition, offset): &(i32, i64)| v1::OffsetCommit {
                        topic: "t".to_owned(), partition: *partition, offset: *offset, ..Default::default()
                    };
                    let offsets = pending.iter().map(offset).collect();
                    if !send(Ask::Commit(v1::ConsumeCommit { id: 1, offsets })).await { return }
                }
                continue;
            }
            frame = answers.message() => frame,
        };
        let Ok(Some(v1::ConsumeResponse { frame: Some(frame) })) = frame else { return };
        match frame {
            Frame::Assigned(assigned) => {
                owned.extend(assigned.partitions.iter().map(|p| (p.partition, p.committed.unwrap_or(0))));
            }
            Frame::Revoke(gone) => {
                let numbers: Vec<_> = gone.partitions.iter().flat_map(|topic| &topic.partitions).collect();
                owned.retain(|partition, _| !numbers.contains(&partition));
                send(Ask::Released(v1::ConsumeReleased { partitions: gone.partitions })).await;
            }
            Frame::Committed(committed) => {
                let refused: Vec<i32> = committed.errors.iter().map(|error| error.partition).collect();
                pending.retain(|(partition, _)| !refused.contains(partition));
                note(&mut journal.lock().unwrap().acknowledged, &std::mem::take(&mut pending));
            }
            Frame::Joined(_) | Frame::Lost(_) | Frame::Records(_) | Frame::Drain(_) => {}
        }
    }
}

fn note(highest: &mut BTreeMap<i32, i64>, offsets: &[(i32, i64)]) {
    for (partition, offset) in offsets {
        let known = highest.entry(*partition).or_insert(*offset);
        *known = (*known).max(*offset);
    }
}

#[test]
fn c4_no_acknowledged_commit_is_lost_at_any_step_of_join_hand_over_and_commit() {
    let victim = Victim::new();
    // The first decisions are the joins, then come the hand-over and commits; answers are more.
    for point in ["coordinator-append", "coordinator-answer"] {
        for times in [1, 2, 3, 4, 5, 7, 10, 20] {
            let point = format!("{point}:{times}");
            victim.dies_at(&point);
            victim.examine(&point);
        }
    }
    let before = victim.journal.lock().unwrap().acknowledged.clone();
    let (_broker, endpoint) = victim.start(None);
    victim.runtime.block_on(async {
        let goes_on = async {
            while (0..PARTITIONS).any(|p| victim.journal.lock().unwrap().acknowledged.get(&p) <= before.get(&p)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = member(&endpoint, "c", &victim.journal) => panic!("the broker ended"),
            went_on = tokio::time::timeout(PATIENCE, goes_on) => went_on.expect("the group goes on"),
        }
    });
}

#[test]
fn c4_no_acknowledged_commit_is_lost_at_any_step_of_a_checkpoint() {
    for step in ["checkpoint-begin", "checkpoint-parts", "checkpoint-end", "trim"] {
        let victim = Victim::new();
        let point = format!("coordinator-{step}:1");
        let (mut broker, endpoint) = victim.start(Some(&point));
        let ended =
            victim.runtime.block_on(async { tokio::time::timeout(PATIENCE, fill(&endpoint, &victim.journal)).await });
        assert!(ended.is_ok(), "{point} was not reached");
        assert_eq!(broker.exit_code(), -1, "{point}: {}", broker.log());
        assert!(victim.journal.lock().unwrap().acknowledged[&0] > 10, "{point}");
        victim.examine(&point);
    }
}

/// Commits with much metadata, until the log is long enough for a checkpoint and the broker dies in it.
async fn fill(endpoint: &str, journal: &Shared) {
    let mut client = GroupsClient::connect(endpoint.to_owned()).await.unwrap();
    for number in 1.. {
        let metadata = "m".repeat(4_000);
        let commit = |_| v1::OffsetCommit {
            topic: "t".to_owned(),
            partition: 0,
            offset: number,
            metadata: metadata.clone(),
            ..Default::default()
        };
        let offsets = (0..100).map(commit).collect();
        let request = v1::CommitOffsetsRequest { group: "g".to_owned(), offsets, ..Default::default() };
        note(&mut journal.lock().unwrap().sent, &[(0, number)]);
        match client.commit_offsets(request).await {
            Ok(answer) => assert_eq!(answer.into_inner().errors, []),
            Err(_) => return,
        }
        note(&mut journal.lock().unwrap().acknowledged, &[(0, number)]);
    }
}
