//! Session: membership and assignments, for clients that read and commit by themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::Map;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::{self, SessionRequest, SessionResponse};
use taffrail_proto::v1::{session_request as request, session_response as response};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::ended::Ended;
use super::forward::{drain, elsewhere, relay};
use super::member::{Member, PAUSE, is_passing};
use super::{check, names};
use crate::coordinator::group::{Membership, TopicPartition};
use crate::coordinator::groups::{Groups, GroupsError, Watch};
use crate::metrics::{Rpc, RpcMetrics};
use crate::peers::Purpose;
use crate::service::Broker;
use crate::service::call::{Call, refuse};
use crate::service::status::{Refused, invalid};

/// Answers that wait to be sent.
const ANSWERS_AHEAD: usize = 4;

type Answer = Result<SessionResponse, Status>;

/// A channel makes room for 32 messages at once: boxes keep an open stream small.
pub(super) type Answers = Map<ReceiverStream<Box<Answer>>, fn(Box<Answer>) -> Answer>;

/// Starts a stream's task.
pub(super) fn begin(
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    call: Call,
    inbound: Streaming<SessionRequest>,
) -> Answers {
    let (answers, outbound) = mpsc::channel(ANSWERS_AHEAD);
    // In a box, as everything that is over before the stream is: thousands of streams may be open.
    let joining = Box::pin(join(Arc::clone(&broker), groups, call, inbound, answers.clone()));
    tokio::spawn(async move {
        let rpc = broker.metrics.rpc(Rpc::Session).clone();
        let _open = rpc.stream();
        let ended = match joining.await {
            Ok(Joined::Here(mut session)) => session.serve(&rpc).await.map_err(|ended| ended.status(&broker.metrics)),
            Ok(Joined::Elsewhere(relayed)) => relayed.await,
            Err(status) => Err(status),
        };
        if let Err(status) = ended {
            let _ = answers.send(Box::new(Err(status))).await;
        }
    });
    let unboxed: fn(Box<Answer>) -> Answer = |answer| *answer;
    ReceiverStream::new(outbound).map(unboxed)
}

/// Where a member has joined, or is about to.
enum Joined {
    Here(Box<Session>),
    /// Ends when the stream does.
    Elsewhere(BoxFuture<'static, Result<(), Status>>),
}

async fn join(
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    call: Call,
    mut inbound: Streaming<SessionRequest>,
    answers: mpsc::Sender<Box<Answer>>,
) -> Result<Joined, Status> {
    let refused = |refused: Refused| refuse(&broker.metrics, &refused.0);
    let first = inbound.message().await?;
    let Some(request::Frame::Join(join)) = first.and_then(|first| first.frame) else {
        return Err(refused(invalid("frame", "the first frame must be `join`").into()));
    };
    let place = elsewhere(&broker, &groups, &call, (&join.group, Purpose::Members)).map_err(refused)?;
    let Some(coordinator) = place else {
        let joined = Session::join(&broker, groups, call, (join, inbound), answers).await;
        return joined.map(|session| Joined::Here(Box::new(session)));
    };
    Ok(Joined::Elsewhere(Box::pin(async move {
        let first = SessionRequest { frame: Some(request::Frame::Join(join)) };
        let open = |mut client: GroupsClient<_>, frames| async move { client.session(frames).await };
        let drain = SessionResponse { frame: Some(response::Frame::Drain(drain())) };
        relay((&broker, &call, &coordinator), (first, inbound), open, (drain, &answers)).await
    })))
}

struct Session {
    groups: Arc<Groups>,
    call: Call,
    member: Member,
    inbound: Streaming<SessionRequest>,
    watch: Watch,
    answers: mpsc::Sender<Box<Answer>>,
    /// What the client was told that it owns.
    assigned: BTreeSet<TopicPartition>,
    /// The coordinator could not answer: when to ask it again.
    ask_again: Option<Instant>,
}

impl Session {
    async fn join(
        broker: &Broker,
        groups: Arc<Groups>,
        call: Call,
        (join, inbound): (v1::SessionJoin, Streaming<SessionRequest>),
        answers: mpsc::Sender<Box<Answer>>,
    ) -> Result<Self, Status> {
        let refused = |refused: Refused| refuse(&broker.metrics, &refused.0);
        let join = check::join(broker, &call, &groups.directory(), join).map_err(refused)?;
        let (member, membership, watch) = Member::join(&groups, join).await.map_err(|error| refused(error.into()))?;
        let (assigned, ask_again) = (BTreeSet::new(), None);
        let mut session = Self { groups, call, member, inbound, watch, answers, assigned, ask_again };
        session.send(response::Frame::Joined(session.member.joined(&membership))).await;
        session.assign(membership).await;
        Ok(session)
    }

    async fn serve(&mut self, rpc: &RpcMetrics) -> Result<(), Ended> {
        let drain = self.call.connection.drain.clone();
        let mut told = false;
        loop {
            let again = OptionFuture::from(self.ask_again.map(tokio::time::sleep_until));
            tokio::select! {
                biased;
                () = self.answers.closed() => return Ok(()),
                frame = self.inbound.message() => match frame.map_err(Ended::Status)? {
                    Some(SessionRequest { frame: Some(frame) }) => {
                        rpc.requests.inc();
                        if Box::pin(self.take(frame)).await? {
                            return Ok(());
                        }
                    }
                    Some(SessionRequest { frame: None }) => {
                        let fault = "it is empty, or of a kind that this broker does not know";
                        return Err(Refused::of(invalid("frame", fault)).into());
                    }
                    // The member stays until its session timeout.
                    None => return Ok(()),
                },
                () = self.watch.changed() => Box::pin(self.refresh()).await?,
                Some(()) = again => Box::pin(self.refresh()).await?,
                () = drain.announced.cancelled(), if !told => {
                    told = true;
                    let reason = "the broker is about to stop".to_owned();
                    Box::pin(self.send(response::Frame::Drain(v1::Drain { reason }))).await;
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

    /// Carries out a frame; whether it was the last.
    async fn take(&mut self, frame: request::Frame) -> Result<bool, Ended> {
        let asked = match frame {
            request::Frame::Heartbeat(heartbeat) => {
                let owned = check::owned(&self.groups.directory(), &heartbeat.owned)?;
                // What is said of an older assignment says nothing of this one.
                let current = heartbeat.member_epoch == self.member.epoch();
                self.member.heartbeat(current.then_some(owned), None).await
            }
            request::Frame::Subscribe(subscription) => {
                let subscription = check::subscription(&self.call, subscription)?;
                self.member.heartbeat(None, Some(subscription)).await
            }
            request::Frame::Leave(leave) => {
                self.member.leave(leave.returning).await.map_err(Refused::from)?;
                return Ok(true);
            }
            request::Frame::Join(_) => {
                return Err(Refused::of(invalid("frame", "the member has joined already")).into());
            }
        };
        self.answered(asked).await?;
        Ok(false)
    }

    async fn refresh(&mut self) -> Result<(), Ended> {
        let asked = self.member.refresh().await;
        self.answered(asked).await
    }

    /// A coordinator that cannot answer now does not end the stream: the member is in the group all the same.
    async fn answered(&mut self, asked: Result<Membership, GroupsError>) -> Result<(), Ended> {
        self.ask_again = None;
        match asked {
            Ok(membership) => self.follow(membership).await,
            Err(error) if is_passing(&error) => self.ask_again = Some(Instant::now() + PAUSE),
            Err(error) => return Err(Refused::from(error).into()),
        }
        Ok(())
    }

    /// Tells the client what is new.
    async fn follow(&mut self, membership: Membership) {
        let risen = self.member.note(&membership);
        if membership.assigned != self.assigned {
            self.assign(membership).await;
        } else if risen {
            self.send(response::Frame::Joined(self.member.joined(&membership))).await;
        }
    }

    async fn assign(&mut self, membership: Membership) {
        let partitions = names::by_topic(&self.groups.directory(), &membership.assigned);
        self.assigned = membership.assigned;
        let member_epoch = self.member.epoch();
        self.send(response::Frame::Assignment(v1::Assignment { member_epoch, partitions })).await;
    }

    /// Whoever does not listen any more is noticed by the loop.
    async fn send(&mut self, frame: response::Frame) {
        let _ = self.answers.send(Box::new(Ok(SessionResponse { frame: Some(frame) }))).await;
    }
}
