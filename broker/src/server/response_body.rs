//! Bytes of answers as they go out: each piece carries its charge, which is given back when HTTP/2 has written it and lets
//! go of it. A peer that does not read thus holds its share and no more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

use super::Outbox;
use crate::memory::{Account, Charge};

/// Pieces up to this size are not worth the bookkeeping: a stream holds only one that is not written.
const UNCHARGED_BYTES: usize = 4 << 10;

type Admission = Pin<Box<dyn Future<Output = Charge> + Send>>;

/// A response's body, metered.
pub(super) struct ResponseBody {
    inner: tonic::body::Body,
    account: Arc<Account>,
    outbox: Outbox,
    /// Bytes and charges that wait for another charge.
    waiting: Option<(Charged, Admission)>,
}

/// Bytes and what was paid for them.
struct Charged {
    bytes: Bytes,
    charges: Vec<Charge>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ResponseBody {
    pub(super) fn new(inner: tonic::body::Body, account: Arc<Account>, outbox: Outbox) -> Self {
        Self { inner, account, outbox, waiting: None }
    }

    /// Bytes with the charges that the handler left for them; `Err` with what has to be waited for if they are not enough.
    fn charge(&self, bytes: Bytes) -> Result<Bytes, (Charged, Admission)> {
        let mut charges = self.outbox.take();
        let missing = bytes.len().saturating_sub(charges.iter().map(Charge::bytes).sum());
        if missing > UNCHARGED_BYTES {
            let Some(charge) = self.account.try_charge(missing) else {
                let account = Arc::clone(&self.account);
                let admission = Box::pin(async move { account.charge(missing).await });
                return Err((Charged { bytes, charges }, admission));
            };
            charges.push(charge);
        }
        Ok(if charges.is_empty() { bytes } else { Bytes::from_owner(Charged { bytes, charges }) })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(cx)) else { return Poll::Ready(None) };
            let bytes = match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            match this.charge(bytes) {
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(waiting) => this.waiting = Some(waiting),
            }
        }
        let Some((_, admission)) = &mut this.waiting else { return Poll::Pending };
        let charge = ready!(admission.as_mut().poll(cx));
        let Some((mut charged, _)) = this.waiting.take() else { return Poll::Pending };
        charged.charges.push(charge);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(charged)))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
