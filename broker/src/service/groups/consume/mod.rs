//! Consume: a whole member of a group in one stream.
//!
//! One task per stream. It reads ahead a little, sends one frame at a time and never waits for the client while it does
//! anything else: a client that takes its time over records still shows by its frames that it is alive. What is decided about
//! partitions is in [`partitions`], where a member begins in [`start`]; [`coordinator`] and [`frames`] carry out what the two other sides say, and
//! [`outbox`] keeps what waits to be sent.

mod coordinator;
mod frames;
mod outbox;
mod partitions;
mod start;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::{self, ConsumeRequest, ConsumeResponse, OffsetReset};
use taffrail_proto::v1::{consume_request as request, consume_response as response};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::coordinator::{Ask, Heard};
use self::frames::Read;
use self::outbox::Outbox;
use self::partitions::Partitions;
use super::ended::Ended;
use super::forward::{drain, elsewhere, relay};
use super::member::Member;
use super::{check, names, offsets};
use crate::coordinator::groups::{Groups, Watch};
use crate::memory::Charge;
use crate::metrics::{Rpc, RpcMetrics};
use crate::partition::{Isolation, Waiter};
use crate::peers::Purpose;
use crate::service::Broker;
use crate::service::call::{Call, refuse};
use crate::service::credit::Credit;
use crate::service::fetch::isolation;
use crate::service::status::{Refused, invalid};

/// Bytes of batches read at a time, and about the records of one answer.
const CHUNK_BYTES: usize = 512 << 10;
/// Partitions read at the same time.
const READS_AHEAD: usize = 4;
/// Commits that are not answered yet.
const MAX_COMMITS: usize = 64;
/// About what a member and a partition of it take here.
const MEMBER_BYTES: usize = 4 << 10;
/// What waits to be sent when a stream ends may take so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

type Answers = ReceiverStream<Result<ConsumeResponse, Status>>;

/// Starts a stream's task.
pub(super) fn begin(
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    call: Call,
    inbound: Streaming<ConsumeRequest>,
) -> Answers {
    let (answers, outbound) = mpsc::channel(1);
    tokio::spawn(async move {
        let rpc = broker.metrics.rpc(Rpc::Consume).clone();
        let _open = rpc.stream();
        let _held = call.hold(MEMBER_BYTES);
        if let Err(status) = run(&broker, &groups, &call, inbound, &answers, &rpc).await {
            let _ = tokio::time::timeout(LAST_WORDS, answers.send(Err(status))).await;
        }
    });
    ReceiverStream::new(outbound)
}

async fn run(
    broker: &Arc<Broker>,
    groups: &Arc<Groups>,
    call: &Call,
    mut inbound: Streaming<ConsumeRequest>,
    answers: &mpsc::Sender<Result<ConsumeResponse, Status>>,
    rpc: &RpcMetrics,
) -> Result<(), Status> {
    let refused = |refused: Refused| refuse(&broker.metrics, &refused.0);
    let first = inbound.message().await?;
    let Some(request::Frame::Open(open)) = first.and_then(|first| first.frame) else {
        return Err(refused(invalid("frame", "the first frame must be `open`").into()));
    };
    let group = open.join.as_ref().map_or("", |join| &join.group);
    let place = elsewhere(broker, groups, call, (group, Purpose::Members)).map_err(refused)?;
    if let Some(coordinator) = place {
        let first = ConsumeRequest { frame: Some(request::Frame::Open(open)) };
        let to = |mut client: GroupsClient<_>, frames| async move { client.consume(frames).await };
        let drain = ConsumeResponse { frame: Some(response::Frame::Drain(drain())) };
        return Box::pin(relay((broker, call, &coordinator), (first, inbound), to, (drain, answers))).await;
    }
    let settings = Settings::of(&open).map_err(refused)?;
    let directory = groups.directory();
    let mut join = check::join(broker, call, &directory, open.join.unwrap_or_default()).map_err(refused)?;
    // A stream begins with nothing: what the member had is delivered from what is committed.
    join.owned.clear();
    let (member, membership, watch) = Member::join(groups, join).await.map_err(|error| refused(error.into()))?;
    let mut consume = Consume {
        broker,
        groups,
        call,
        rpc,
        member,
        settings,
        credit: Credit::unlimited_if_0(open.credit_bytes),
        partitions: Partitions::default(),
        waiter: Waiter::new(),
        reads: FuturesUnordered::new(),
        asks: FuturesUnordered::new(),
        commits: 0,
        ask: Ask::default(),
        is_asking: false,
        ask_again: None,
        last_heartbeat: Instant::now(),
        heartbeat_interval: membership.heartbeat_interval,
        outbox: Outbox::default(),
    };
    consume.tell(response::Frame::Joined(consume.member.joined(&membership)));
    consume.follow(&membership);
    let ended = consume.serve(inbound, watch, answers).await;
    if ended.as_ref().is_err_and(Ended::needs_a_beginning) {
        // Others need not wait for its session timeout. If this fails they do.
        let _ = tokio::time::timeout(LAST_WORDS, consume.member.leave(false)).await;
    }
    // What the client should still hear, before it hears how the stream ended.
    let _ = tokio::time::timeout(LAST_WORDS, consume.outbox.send_all(answers, call)).await;
    ended.map_err(|ended| ended.status(&broker.metrics))
}

/// What the client said when it opened the stream.
#[derive(Clone, Copy)]
struct Settings {
    reset: OffsetReset,
    isolation: Isolation,
}

impl Settings {
    fn of(open: &v1::ConsumeOpen) -> Result<Self, Refused> {
        Ok(Self { reset: start::policy(open.reset)?, isolation: isolation(open.isolation)? })
    }
}

struct Consume<'a> {
    broker: &'a Arc<Broker>,
    groups: &'a Arc<Groups>,
    call: &'a Call,
    rpc: &'a RpcMetrics,
    member: Member,
    settings: Settings,
    credit: Credit,
    partitions: Partitions,
    waiter: Arc<Waiter>,
    reads: FuturesUnordered<BoxFuture<'a, Read>>,
    asks: FuturesUnordered<BoxFuture<'a, Heard>>,
    /// Commits among them.
    commits: usize,
    ask: Ask,
    /// A question about the membership is under way: one at a time, so that answers come in order.
    is_asking: bool,
    /// The coordinator could not answer: when to ask it again.
    ask_again: Option<Instant>,
    last_heartbeat: Instant,
    heartbeat_interval: Duration,
    outbox: Outbox,
}

impl Consume<'_> {
    async fn serve(
        &mut self,
        mut inbound: Streaming<ConsumeRequest>,
        mut watch: Watch,
        answers: &mpsc::Sender<Result<ConsumeResponse, Status>>,
    ) -> Result<(), Ended> {
        let drain = self.call.connection.drain.clone();
        let mut told = false;
        loop {
            self.ask_coordinator();
            self.read_ahead();
            let waiter = Arc::clone(&self.waiter);
            let again = OptionFuture::from(self.ask_again.map(tokio::time::sleep_until));
            let takes_frames = self.commits < MAX_COMMITS && !self.outbox.is_full();
            tokio::select! {
                biased;
                () = answers.closed() => return Ok(()),
                frame = inbound.message(), if takes_frames => {
                    if self.take(frame.map_err(Ended::Status)?).await? {
                        return Ok(());
                    }
                }
                Some(heard) = self.asks.next(), if !self.asks.is_empty() => self.hear(heard)?,
                () = watch.changed() => self.ask.refresh = true,
                Some(()) = again => self.ask_again = None,
                Ok(place) = answers.reserve(), if !self.outbox.is_empty() => self.outbox.send(place, self.call),
                Some(read) = self.reads.next(), if !self.reads.is_empty() => self.deliver(read)?,
                tokens = waiter.ready() => tokens.into_iter().for_each(|token| self.partitions.wake(token)),
                () = drain.announced.cancelled(), if !told => {
                    told = true;
                    let reason = "the broker is about to stop".to_owned();
                    self.tell(response::Frame::Drain(v1::Drain { reason }));
                }
                () = drain.closing.cancelled() => {
                    return Err(Ended::stopping());
                }
                () = self.call.overdue() => {
                    return Err(Ended::overdue());
                }
            }
        }
    }

    fn tell(&mut self, frame: response::Frame) {
        self.outbox.push(frame, None);
    }

    /// A frame of records, with what it is charged.
    fn push_records(&mut self, records: v1::ConsumeRecords, charge: Charge) {
        self.outbox.push(response::Frame::Records(records), Some(charge));
    }
}
