//! One broker's fetch stream: additions, removals and credit out, batches in.
//!
//! The task checks each batch's CRC, so that the work is not the application's task's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taffrail_proto::record::BatchHeader;
use taffrail_proto::record::header::verify_crc;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::fetch_stream_request::Frame as RequestFrame;
use taffrail_proto::v1::fetch_stream_response::Frame as ResponseFrame;
use taffrail_proto::v1::{FetchCredit, FetchOpen, FetchStreamRequest, PartitionData};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::record::bad_batch;
use super::state::{Received, ended};
use crate::connection::{MAX_MESSAGE, StreamPlace};
use crate::error::{Error, Result};
use crate::retry::Backoff;

/// How long the broker may take to accept the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a link's task tells the consumer.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// Data or an error of one partition.
    Data(Received),
    /// The stream is over, or the broker asks to leave it.
    Closed(Error),
}

/// A link's event with the link it belongs to.
#[derive(Debug)]
pub(super) struct Tagged {
    pub(super) endpoint: Arc<str>,
    pub(super) generation: u64,
    pub(super) event: LinkEvent,
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Open { frames: mpsc::UnboundedSender<FetchStreamRequest>, task: AbortHandle },
}

/// The consumer's side of a stream from one broker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) generation: u64,
    state: State,
    backoff: Backoff,
    prefetch: u64,
    /// Bytes handed out or dropped that the broker has not been told of.
    credit: u64,
}

impl Link {
    pub(super) fn new(prefetch: u64, now: Instant) -> Self {
        Self { generation: 0, state: State::Waiting(now), backoff: Backoff::default(), prefetch, credit: 0 }
    }

    /// When it may connect; `None`: it is connected.
    pub(super) fn connects_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Open { .. } => None,
        }
    }

    /// Starts a stream; `buffered` bytes of an earlier one are not handed out yet.
    pub(super) fn connect(
        &mut self,
        (endpoint, place): (&Arc<str>, StreamPlace),
        client_id: String,
        buffered: u64,
        events: mpsc::UnboundedSender<Tagged>,
    ) {
        self.generation += 1;
        self.credit = 0;
        let (frames, queued) = mpsc::unbounded_channel();
        let credit_bytes = self.prefetch.saturating_sub(buffered);
        let open = FetchOpen { credit_bytes, client_id, ..FetchOpen::default() };
        let _ = frames.send(FetchStreamRequest { frame: Some(RequestFrame::Open(open)) });
        let (endpoint, generation) = (endpoint.clone(), self.generation);
        let tell = move |event| events.send(Tagged { endpoint: endpoint.clone(), generation, event }).is_ok();
        let task = tokio::spawn(run(place, queued, tell)).abort_handle();
        self.state = State::Open { frames, task };
    }

    pub(super) fn frame(&self, frame: RequestFrame) {
        if let State::Open { frames, .. } = &self.state {
            // A stream that is gone says so in an event of its own.
            let _ = frames.send(FetchStreamRequest { frame: Some(frame) });
        }
    }

    /// Lets the broker send more, a quarter of the prefetch at a time: one frame for many batches.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.credit += bytes;
        if self.credit >= self.prefetch / 4 {
            let bytes = std::mem::take(&mut self.credit);
            self.frame(RequestFrame::Credit(FetchCredit { bytes }));
        }
    }

    /// Data came: the broker is well.
    pub(super) fn received(&mut self) {
        self.backoff.reset();
    }

    /// The stream is over; answers when to connect again.
    pub(super) fn close(&mut self, now: Instant, random: f64) -> Instant {
        let again = now + self.backoff.next(random);
        if let State::Open { task, .. } = std::mem::replace(&mut self.state, State::Waiting(again)) {
            task.abort();
        }
        self.generation += 1;
        again
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let State::Open { task, .. } = &self.state {
            task.abort();
        }
    }
}

async fn run(
    place: StreamPlace,
    frames: mpsc::UnboundedReceiver<FetchStreamRequest>,
    tell: impl Fn(LinkEvent) -> bool + Send + 'static,
) {
    let error = match stream(place, frames, &tell).await {
        Ok(()) => ended("the broker ended the fetch stream"),
        Err(error) => error,
    };
    tell(LinkEvent::Closed(error));
}

async fn stream(
    place: StreamPlace,
    frames: mpsc::UnboundedReceiver<FetchStreamRequest>,
    tell: &(impl Fn(LinkEvent) -> bool + Send),
) -> Result<()> {
    let mut client = ConsumerClient::new(place.connection.clone()).max_decoding_message_size(MAX_MESSAGE);
    let opening = timeout(OPEN_TIMEOUT, client.fetch_stream(UnboundedReceiverStream::new(frames))).await;
    let mut answers = opening.map_err(|_| ended("the broker did not open the fetch stream in time"))??.into_inner();
    while let Some(response) = answers.message().await? {
        let data = match response.frame {
            Some(ResponseFrame::Data(data)) => data,
            Some(ResponseFrame::Drain(_)) => return Err(ended("the broker is about to stop")),
            None => continue,
        };
        if !tell(LinkEvent::Data(received(data))) {
            break;
        }
    }
    Ok(())
}

/// Checks the batches; what comes behind a damaged one is dropped, since order needs it.
fn received(data: PartitionData) -> Received {
    let mut received = Received {
        subscription: data.subscription,
        batches: Vec::with_capacity(data.batches.len()),
        error: data.error.map(Error::from),
    };
    for bytes in data.batches {
        match checked(&bytes) {
            Ok(header) => received.batches.push((header, bytes)),
            Err(fault) => {
                received.error = Some(bad_batch(&data.topic, data.partition, base_offset(&bytes), &fault));
                break;
            }
        }
    }
    received
}

fn checked(bytes: &Bytes) -> Result<BatchHeader, taffrail_proto::record::BatchError> {
    let header = BatchHeader::parse(bytes)?;
    verify_crc(bytes)?;
    Ok(header)
}

fn base_offset(bytes: &Bytes) -> i64 {
    bytes.first_chunk().map_or(-1, |first| i64::from_be_bytes(*first))
}
