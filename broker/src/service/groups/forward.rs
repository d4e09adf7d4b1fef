//! Calls for groups whose coordinator is at another broker: passed on to it, in the caller's name, message by message.

use std::sync::Arc;

use prost::Message;
use taffrail_proto::v1;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::{LogError, Reason};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::ended::Ended;
use crate::coordinator::groups::{Groups, GroupsError, Place};
use crate::peers::{Peer, Purpose};
use crate::service::call::{Call, refuse};
use crate::service::status::{Refused, log_error, refusal};
use crate::service::{Broker, MAX_RESPONSE_BYTES};

/// The way to a coordinator at another broker.
pub(super) struct Coordinator {
    peer: Arc<Peer>,
    channel: Channel,
}

/// Where a call for a group goes on, if not here. One that was passed on already is not passed on again.
pub(super) fn elsewhere(
    broker: &Broker,
    groups: &Groups,
    call: &Call,
    (group, purpose): (&str, Purpose),
) -> Result<Option<Coordinator>, Refused> {
    match groups.place_of(group) {
        Place::Here => Ok(None),
        Place::At(_) if call.is_forwarded() => {
            Err(refusal(Reason::Unavailable, "the coordinator of the group has moved: try again").into())
        }
        Place::At(id) => Coordinator::at(broker, id, purpose).map(Some),
        Place::Nowhere(fault) => Err(GroupsError::NotHere(fault).into()),
    }
}

impl Coordinator {
    /// Of groups at that broker.
    pub(super) fn at(broker: &Broker, id: i32, purpose: Purpose) -> Result<Self, Refused> {
        let peer = broker.peers.peer(id);
        let channel = peer.channel(purpose)?;
        Ok(Self { peer, channel })
    }

    pub(super) fn client(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone()).max_decoding_message_size(2 * MAX_RESPONSE_BYTES)
    }

    /// What the client is told of a call that failed there, or on the way.
    fn error(&self, status: &Status) -> LogError {
        log_error(status).unwrap_or_else(|| self.peer.failed(status))
    }

    /// The answer of a call that was passed on.
    pub(super) fn answer<T>(&self, answered: Result<Response<T>, Status>) -> Result<T, Refused> {
        answered.map(Response::into_inner).map_err(|status| Refused::of(self.error(&status)))
    }
}

/// Passes a stream on until it ends there, or the client goes away. Each direction holds a message at a time.
pub(super) async fn relay<Q, A, F>(
    (broker, call, coordinator): (&Broker, &Call, &Coordinator),
    (first, mut inbound): (Q, Streaming<Q>),
    open: impl FnOnce(GroupsClient<Channel>, Request<ReceiverStream<Q>>) -> F,
    (drain, answers): (A, impl Sink<A>),
) -> Result<(), Status>
where
    Q: Message + 'static,
    A: Message + 'static,
    F: Future<Output = Result<Response<Streaming<A>>, Status>>,
{
    let told = |status: &Status| refuse(&broker.metrics, &coordinator.error(status));
    let (frames, outbound) = mpsc::channel(1);
    let _ = frames.send(first).await;
    let up = async {
        while let Some(frame) = inbound.message().await? {
            if frames.send(frame).await.is_err() {
                break;
            }
        }
        // The coordinator hears that the client has said all, and ends the stream.
        drop(frames);
        std::future::pending::<Result<(), Status>>().await
    };
    let down = async {
        let opened = open(coordinator.client(), call.forward(ReceiverStream::new(outbound))).await;
        let mut stream = opened.map_err(|status| told(&status))?.into_inner();
        while let Some(answer) = stream.message().await.map_err(|status| told(&status))? {
            call.outbox.put(call.connection.responses.charge(answer.encoded_len()).await);
            answers.send(answer).await;
        }
        Ok(())
    };
    let stopping = async {
        call.connection.drain.announced.cancelled().await;
        answers.send(drain).await;
        call.connection.drain.closing.cancelled().await;
    };
    tokio::select! {
        biased;
        () = answers.closed() => Ok(()),
        ended = up => ended,
        ended = down => ended,
        () = stopping => Err(Ended::stopping().status(&broker.metrics)),
        () = call.overdue() => Err(Ended::overdue().status(&broker.metrics)),
    }
}

/// Where a client's answers go.
pub(super) trait Sink<A> {
    /// Waits for a place.
    fn send(&self, answer: A) -> impl Future<Output = ()> + Send;
    /// The client has gone.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

impl<A: Send> Sink<A> for &mpsc::Sender<Result<A, Status>> {
    async fn send(&self, answer: A) {
        let _ = mpsc::Sender::send(self, Ok(answer)).await;
    }

    async fn closed(&self) {
        mpsc::Sender::closed(self).await;
    }
}

impl<A: Send> Sink<A> for &mpsc::Sender<Box<Result<A, Status>>> {
    async fn send(&self, answer: A) {
        let _ = mpsc::Sender::send(self, Box::new(Ok(answer))).await;
    }

    async fn closed(&self) {
        mpsc::Sender::closed(self).await;
    }
}

/// What a client is told before the broker stops.
pub(super) fn drain() -> v1::Drain {
    v1::Drain { reason: "the broker is about to stop".to_owned() }
}
