//! Bytes of requests as they come in: what is there of an unfinished message is charged, and a message that begins has to
//! end in time.
//!
//! A message that is there whole is decoded at once and the handler charges what it holds, so only unfinished ones are
//! charged here. Nothing is handed on while the connection is not admitted: its window fills and the peer has to wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use taffrail_proto::v1::Reason;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::memory::{Account, Charge};
use crate::service::MAX_REQUEST_BYTES;
use crate::service::status::{refusal, status};

/// How long a message may take, however short it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// And one second more for each so many bytes: the slowest line that is served.
const LEAST_BYTES_PER_SECOND: usize = 64 << 10;
/// Flag and length in front of each gRPC message.
const PREFIX: usize = 5;

/// Follows gRPC's framing: how much of an unfinished message has been seen.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the current message that were seen, prefix included.
    seen: usize,
    /// Messages that were seen whole.
    finished: u64,
}

impl Framing {
    /// Bytes of the current message, prefix included; unknown (0) while its prefix is not whole.
    fn length(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        if self.seen < PREFIX { 0 } else { PREFIX + u32::from_be_bytes(length) as usize }
    }

    fn advance(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.seen < PREFIX {
                let taken = data.len().min(PREFIX - self.seen);
                self.prefix[self.seen..self.seen + taken].copy_from_slice(&data[..taken]);
                self.seen += taken;
                data = &data[taken..];
            } else {
                let taken = data.len().min(self.length() - self.seen);
                self.seen += taken;
                data = &data[taken..];
            }
            if self.seen >= PREFIX && self.seen == self.length() {
                self.seen = 0;
                self.finished += 1;
            }
        }
    }
}

type Admission = Pin<Box<dyn Future<Output = Charge> + Send>>;

/// A request's body, metered.
pub(super) struct RequestBody {
    inner: Incoming,
    account: Arc<Account>,
    framing: Framing,
    charge: Option<Charge>,
    /// Bytes that wait for their charge.
    waiting: Option<(Bytes, Admission)>,
    /// When the current message must be there, and which one it is.
    due: Option<(u64, Pin<Box<Sleep>>)>,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, account: Arc<Account>) -> Self {
        Self { inner, account, framing: Framing::default(), charge: None, waiting: None, due: None }
    }

    /// Takes note of `data`; `Some` if more has to be charged before it may be handed on.
    fn meter(&mut self, data: &[u8]) -> Option<Admission> {
        self.framing.advance(data);
        let partial = self.framing.seen;
        let held = self.charge.as_ref().map_or(0, Charge::bytes);
        match &mut self.charge {
            charge if partial == 0 => *charge = None,
            Some(charge) if partial < held => charge.shrink(partial),
            _ => {}
        }
        let more = partial.saturating_sub(held);
        if more == 0 && self.account.admits(0) {
            return None;
        }
        if let Some(charge) = self.account.try_charge(more) {
            self.hold(charge);
            return None;
        }
        let account = Arc::clone(&self.account);
        Some(Box::pin(async move { account.charge(more).await }))
    }

    fn hold(&mut self, charge: Charge) {
        match &mut self.charge {
            Some(held) => held.merge(charge),
            none => *none = Some(charge),
        }
    }

    /// Nothing came: an error if a message that has begun is overdue.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.framing.seen == 0 {
            self.due = None;
            return Poll::Pending;
        }
        let (message, sleep) = self.due.get_or_insert_with(|| (u64::MAX, Box::pin(tokio::time::sleep(PATIENCE))));
        if *message != self.framing.finished {
            *message = self.framing.finished;
            let length = Duration::from_secs((self.framing.length() / LEAST_BYTES_PER_SECOND) as u64);
            sleep.as_mut().reset(Instant::now() + PATIENCE + length);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Status::deadline_exceeded("a message was begun and not finished in time: send whole messages"))
    }
}

/// Told before the message has come, and before anything makes room for it.
fn too_large(bytes: usize) -> Status {
    let fault = format_args!("the message has {bytes} bytes, more than {MAX_REQUEST_BYTES}: send less at a time");
    status(&refusal(Reason::BatchTooLarge, fault))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some((_, admission)) = &mut this.waiting {
            let charge = ready!(admission.as_mut().poll(cx));
            this.hold(charge);
            let data = this.waiting.take().map(|(data, _)| data).unwrap_or_default();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(Box::new(error))))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return this.poll_due(cx).map(|error| Some(Err(error))),
        };
        let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
        let admission = this.meter(data);
        if this.framing.length() > PREFIX + MAX_REQUEST_BYTES {
            return Poll::Ready(Some(Err(too_large(this.framing.length() - PREFIX))));
        }
        let Some(admission) = admission else { return Poll::Ready(Some(Ok(frame))) };
        this.waiting = frame.into_data().ok().map(|data| (data, admission));
        self.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    #[test]
    fn only_unfinished_messages_count() {
        let mut framing = Framing::default();
        framing.advance(&message(10));
        assert_eq!((framing.seen, framing.finished), (0, 1));
        framing.advance(&message(100)[..60]);
        assert_eq!((framing.seen, framing.length()), (60, 105));
        framing.advance(&message(100)[60..]);
        assert_eq!((framing.seen, framing.finished), (0, 2));
    }

    #[test]
    fn however_the_bytes_are_cut_the_messages_are_the_same() {
        let bytes = [message(0), message(3), message(500), message(1)].concat();
        for cut in 1..bytes.len() {
            let mut framing = Framing::default();
            bytes.chunks(cut).for_each(|chunk| framing.advance(chunk));
            assert_eq!((framing.seen, framing.finished), (0, 4), "cut every {cut} bytes");
        }
    }
}
