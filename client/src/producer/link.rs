//! One broker's produce stream: frames out, answers in, and how much may be unanswered.
//!
//! [`Link`] is the sender's side: what is open, what is in flight, what gathers into the next frame. [`run`] is the task
//! that speaks gRPC; it ends with the stream, and the sender decides whether there will be another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::v1::produce_stream_request::Frame as RequestFrame;
use taffrail_proto::v1::produce_stream_response::Frame as ResponseFrame;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{
    PartitionBatch, ProduceAck, ProduceBatches, ProduceOpen, ProduceResume, ProduceStreamRequest, ProduceStreamResponse,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::connection::{MAX_MESSAGE, StreamPlace};
use crate::error::{Error, ErrorKind, RequestOutcome};
use crate::retry::Backoff;

/// Batches for several partitions go into one message up to this size: fewer frames, at no cost in waiting.
const MESSAGE: usize = 256 << 10;
/// How long the broker may take to answer `open`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a link's task tells the sender.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The broker answered `open`: so many bytes may be unanswered.
    Opened(u64),
    /// Answers.
    Acks(Vec<ProduceAck>),
    /// Batches that no answer will come for have been handed to the network.
    Written(Vec<u64>),
    /// The broker is about to stop.
    Drain,
    /// The stream is over.
    Closed(Error),
}

/// A link's event with the link it belongs to; events of an earlier stream are told by their generation.
#[derive(Debug)]
pub(super) struct Tagged {
    pub(super) endpoint: Arc<str>,
    pub(super) generation: u64,
    pub(super) event: LinkEvent,
}

/// Frames on their way to the network.
type Frames = mpsc::UnboundedSender<ProduceStreamRequest>;

#[derive(Debug)]
enum State {
    /// Not before this time.
    Waiting(Instant),
    Opening {
        frames: Frames,
        task: AbortHandle,
    },
    Open {
        frames: Frames,
        task: AbortHandle,
    },
}

/// The sender's side of a stream to one broker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) endpoint: Arc<str>,
    pub(super) generation: u64,
    state: State,
    backoff: Backoff,
    draining: bool,
    max_in_flight: u64,
    in_flight: u64,
    /// Size and time of each unanswered batch, by correlation id.
    unanswered: HashMap<u64, (usize, Instant)>,
    /// What the next frame carries.
    gathered: Vec<PartitionBatch>,
    gathered_bytes: usize,
    /// Partitions that wait for the link to open or for credit, in their order.
    pub(super) blocked: Vec<u32>,
}

impl Link {
    pub(super) fn new(endpoint: Arc<str>, now: Instant) -> Self {
        Self {
            endpoint,
            generation: 0,
            state: State::Waiting(now),
            backoff: Backoff::default(),
            draining: false,
            max_in_flight: 0,
            in_flight: 0,
            unanswered: HashMap::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
            blocked: Vec::new(),
        }
    }

    /// When it may connect: `None` while it is connected.
    pub(super) fn connects_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            _ => None,
        }
    }

    /// Starts a new stream.
    pub(super) fn connect(
        &mut self,
        place: StreamPlace,
        open: ProduceOpen,
        tell: impl Fn(Tagged) -> bool + Clone + Send + Sync + 'static,
    ) {
        self.generation += 1;
        let acks_none = open.acks == i32::from(taffrail_proto::v1::Acks::None);
        let (frames, queued) = mpsc::unbounded_channel();
        let _ = frames.send(ProduceStreamRequest { frame: Some(RequestFrame::Open(open)) });
        let (endpoint, generation) = (self.endpoint.clone(), self.generation);
        let tell = move |event| tell(Tagged { endpoint: endpoint.clone(), generation, event });
        let task = tokio::spawn(run(place, queued, acks_none, tell)).abort_handle();
        self.state = State::Opening { frames, task };
    }

    pub(super) fn opened(&mut self, max_in_flight: u64) {
        if let State::Opening { frames, task } = std::mem::replace(&mut self.state, State::Waiting(Instant::now())) {
            self.state = State::Open { frames, task };
            self.max_in_flight = max_in_flight;
            self.backoff.reset();
        }
    }

    /// A batch of this size may be sent now. One is always let through, so that a large one is not stuck.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let fits = self.in_flight == 0 || self.in_flight + bytes as u64 <= self.max_in_flight;
        matches!(self.state, State::Open { .. }) && !self.draining && fits
    }

    /// Adds a batch to the next frame.
    pub(super) fn batch(&mut self, batch: PartitionBatch, now: Instant) {
        let bytes = batch.batch.len();
        if self.gathered_bytes + bytes > MESSAGE {
            self.send_gathered();
        }
        self.in_flight += bytes as u64;
        self.unanswered.insert(batch.correlation_id, (bytes, now));
        self.gathered_bytes += bytes;
        self.gathered.push(batch);
    }

    /// Tells the broker to take a partition up again, before what is sent later.
    pub(super) fn resume(&mut self, topic: &str, partition: i32) {
        self.send_gathered();
        self.frame(RequestFrame::Resume(ProduceResume { topic: topic.to_owned(), partition }));
    }

    /// Sends what has gathered.
    pub(super) fn send_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.gathered_bytes = 0;
            let batches = std::mem::take(&mut self.gathered);
            self.frame(RequestFrame::Batches(ProduceBatches { batches }));
        }
    }

    fn frame(&self, frame: RequestFrame) {
        if let State::Open { frames, .. } = &self.state {
            // A stream that is gone says so in an event of its own.
            let _ = frames.send(ProduceStreamRequest { frame: Some(frame) });
        }
    }

    /// A batch was answered.
    pub(super) fn answered(&mut self, correlation: u64) {
        if let Some((bytes, _)) = self.unanswered.remove(&correlation) {
            self.in_flight -= bytes as u64;
        }
    }

    /// Sends nothing more on this stream.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// The broker asked to leave, and everything has been answered.
    pub(super) fn is_drained(&self) -> bool {
        self.draining && self.unanswered.is_empty()
    }

    /// The oldest batch waits for its answer since then.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.unanswered.values().map(|(_, sent)| *sent).min()
    }

    /// The stream is over, or is ended here; answers when to connect again.
    pub(super) fn close(&mut self, now: Instant, random: f64) -> Instant {
        let again = now + self.backoff.next(random);
        if let State::Opening { task, .. } | State::Open { task, .. } =
            std::mem::replace(&mut self.state, State::Waiting(again))
        {
            task.abort();
        }
        // Events of the old stream that are still on their way are of no interest.
        self.generation += 1;
        self.draining = false;
        self.in_flight = 0;
        self.unanswered.clear();
        self.gathered.clear();
        self.gathered_bytes = 0;
        again
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let State::Opening { task, .. } | State::Open { task, .. } = &self.state {
            task.abort();
        }
    }
}

/// Speaks gRPC until the stream ends or nobody listens.
async fn run(
    place: StreamPlace,
    frames: mpsc::UnboundedReceiver<ProduceStreamRequest>,
    acks_none: bool,
    tell: impl Fn(LinkEvent) -> bool + Clone + Send + Sync + 'static,
) {
    let told = tell.clone();
    let frames = UnboundedReceiverStream::new(frames).map(move |request| {
        if let (true, Some(RequestFrame::Batches(batches))) = (acks_none, &request.frame) {
            told(LinkEvent::Written(batches.batches.iter().map(|b| b.correlation_id).collect()));
        }
        request
    });
    let mut client = ProducerClient::new(place.connection.clone()).max_decoding_message_size(MAX_MESSAGE);
    let opening = async {
        let mut answers = client.produce_stream(frames).await?.into_inner();
        let first = answers.message().await?;
        Ok::<_, tonic::Status>((first, answers))
    };
    let error = match timeout(OPEN_TIMEOUT, opening).await {
        Err(_) => lost("the broker did not open the produce stream in time"),
        Ok(Err(status)) => status.into(),
        Ok(Ok((Some(ProduceStreamResponse { frame: Some(ResponseFrame::Opened(opened)) }), answers))) => {
            if tell(LinkEvent::Opened(opened.max_in_flight_bytes)) {
                listen(answers, &tell).await
            } else {
                return;
            }
        }
        Ok(Ok(_)) => lost("the broker answered something else than `opened`"),
    };
    tell(LinkEvent::Closed(error));
}

async fn listen(mut answers: Streaming<ProduceStreamResponse>, tell: &impl Fn(LinkEvent) -> bool) -> Error {
    loop {
        let event = match answers.message().await {
            Ok(Some(response)) => match response.frame {
                Some(ResponseFrame::Acks(acks)) => LinkEvent::Acks(acks.acks),
                Some(ResponseFrame::Drain(_)) => LinkEvent::Drain,
                Some(ResponseFrame::Opened(_)) | None => continue,
            },
            Ok(None) => return lost("the broker ended the produce stream"),
            Err(status) => return status.into(),
        };
        if !tell(event) {
            return lost("the producer is gone");
        }
    }
}

pub(super) fn lost(message: &str) -> Error {
    Error::transient(ErrorKind::Unavailable, RequestOutcome::Unknown, message)
}
