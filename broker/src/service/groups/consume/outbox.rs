//! What waits to be sent, in order.

use std::collections::VecDeque;

use taffrail_proto::v1::{ConsumeResponse, consume_response::Frame};
use tokio::sync::mpsc;
use tonic::Status;

use crate::memory::Charge;
use crate::service::call::Call;

type Answer = Result<ConsumeResponse, Status>;

/// Frames beyond which no more is taken from a client that does not listen.
const MAX_WAITING: usize = 1_000;
/// Frames of records that wait; as few as keep the connection busy.
const RECORDS_AHEAD: usize = 2;

/// What waits to be sent.
#[derive(Default)]
pub(super) struct Outbox {
    frames: VecDeque<(Frame, Option<Charge>)>,
    /// Frames of records among them.
    records: usize,
}

impl Outbox {
    /// Frames of records come with their charge.
    pub(super) fn push(&mut self, frame: Frame, charge: Option<Charge>) {
        self.records += usize::from(charge.is_some());
        self.frames.push_back((frame, charge));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= MAX_WAITING
    }

    /// More records would only wait.
    pub(super) fn has_records(&self) -> bool {
        self.records >= RECORDS_AHEAD
    }

    /// Sends the next frame.
    pub(super) fn send(&mut self, place: mpsc::Permit<'_, Answer>, call: &Call) {
        let Some((frame, charge)) = self.frames.pop_front() else { return };
        if let Some(charge) = charge {
            self.records -= 1;
            call.outbox.put(charge);
        }
        place.send(Ok(ConsumeResponse { frame: Some(frame) }));
    }

    /// Sends everything, as long as the client listens.
    pub(super) async fn send_all(&mut self, answers: &mpsc::Sender<Answer>, call: &Call) {
        while !self.is_empty() {
            let Ok(place) = answers.reserve().await else { return };
            self.send(place, call);
        }
    }
}
