//! An API that refuses calls for a while (429), and that has forgotten where a watch was (410): then all is listed anew.

use super::counts::Seen;
use super::planted::Planted;
use super::process::Purpose;
use super::store::{Answer, Request};
use super::world::{Event, Micros, World};

/// Longest that a call waits until the API takes calls again; one that would wait for longer is not made.
const LONGEST: Micros = 1_500_000;

impl World {
    pub(crate) fn start_refusing(&mut self) {
        if self.options.api.refuses {
            self.schedule(3_000_000, Event::Refuse);
        }
    }

    /// The API has too much to do, or has forgotten old versions.
    pub(crate) fn refuse_for_a_while(&mut self) {
        if !self.faulty {
            return;
        }
        let after = self.chaos_millis(2_000, 15_000);
        self.schedule(after, Event::Refuse);
        if self.is_rewinding() {
            return;
        }
        if self.chaos.once_in(2) {
            self.counts.saw(Seen::ApiThrottled);
            self.refuses_until = self.now + self.chaos_millis(1_000, 8_000);
        } else {
            let broker = self.chaos.index(self.nodes.len()) as i32;
            self.expire(broker);
        }
    }

    /// Whether a call is refused that gets to the API now; then when the next may be made.
    pub(crate) fn refuses(&mut self) -> Option<Answer> {
        if self.refuses_until <= self.now || self.chaos.once_in(3) {
            return None;
        }
        self.counts.saw(Seen::TooManyRequests);
        // Whole seconds, as in the header.
        let seconds = 1 + self.chaos.below(3);
        Some(Answer::TooMany(seconds * 1_000_000))
    }

    /// For how long a broker's call waits, because the API has said so; `None`: it is not made.
    pub(crate) fn waits(&mut self, broker: i32) -> Option<Micros> {
        let now = self.now;
        let quiet = self.process(broker).map_or(0, |process| process.quiet_until.saturating_sub(now));
        if quiet > 0 {
            self.counts.saw(Seen::CallsHeldBack);
        }
        (quiet < LONGEST).then_some(quiet)
    }

    /// The watches of a broker tell nothing more.
    fn expire(&mut self, broker: i32) {
        let planted = self.options.planted == Some(Planted::NotListedAnew);
        let Some(process) = self.process(broker).filter(|process| process.incarnation > 0 && !process.deaf) else {
            return;
        };
        process.deaf = true;
        self.counts.saw(Seen::WatchExpired);
        if !planted {
            self.list_later(broker);
        }
    }

    /// Lists everything after a pause, so that not all do so at once.
    pub(crate) fn list_later(&mut self, broker: i32) {
        let (life, after) = (self.life(broker), self.chaos_millis(400, 2_000));
        self.schedule(after, Event::List { broker, life });
    }

    pub(crate) fn list(&mut self, broker: i32) {
        let call = self.call(broker, Request::List);
        self.await_answer(broker, call, Purpose::List);
    }

    /// All is as this list says, or it is asked for once more.
    pub(crate) fn listed(&mut self, broker: i32, answer: &Answer) {
        // A list that was asked for twice is taken in once.
        if self.process(broker).is_none_or(|process| !process.deaf) {
            return;
        }
        let Answer::Listed(slice, brokers, cluster) = *answer else { return self.list_later(broker) };
        let Some(process) = self.process(broker) else { return };
        process.deaf = false;
        (process.slice, process.brokers, process.cluster) = (slice, brokers, cluster);
        self.counts.saw(Seen::ListedAnew);
        self.remember(broker);
        self.serve(broker);
        self.control_sees(broker);
    }
}
