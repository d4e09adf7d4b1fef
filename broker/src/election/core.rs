//! Who is controller, decided from what is read and written of one Lease: `apply(event, now)` gives what to do next. No
//! clock and no API in here.
//!
//! Times are this process's own, monotonic ones; nobody else's are looked at. Somebody else's Lease has expired when it was
//! not seen to change for the lease duration. One's own holds, for the purpose of writing, until the renew deadline after
//! the last renewal that succeeded was *sent* (M16): which is over before anybody else can take it for expired.

use std::time::Duration;

/// The times of an election; each is shorter than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a Lease holds without being renewed.
    pub lease: Duration,
    /// How long after its last renewal the holder stops to write.
    pub renew_deadline: Duration,
    /// How often the Lease is renewed, and looked at.
    pub retry: Duration,
}

/// A Lease as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Another with each change of it, and another object's is another.
    pub version: String,
    /// Who holds it; nobody: it was released.
    pub holder: Option<String>,
}

/// Why a write brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// It is not as it was read, or there already, or gone.
    Conflict,
    /// It was not done.
    Unavailable,
    /// It may have been done.
    Unknown,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The read's answer: the Lease, or that there is none, or no answer.
    Read(Result<Option<Seen>, ()>),
    /// The write's answer.
    Wrote(Result<Seen, WriteError>),
    /// Another controller has acted since: this one's term is over.
    Deposed,
    /// The process stops.
    Stop,
}

/// A call to make; its answer is the next [`Event::Read`] or [`Event::Wrote`]. One is under way at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the Lease.
    Read,
    /// Put the Lease in the place of this version, or make it; held by this process or by nobody.
    Write {
        /// The version that was read; none: there is no Lease.
        over: Option<String>,
        /// Released if not.
        held: bool,
    },
}

/// A time for which this process is controller, as far as the Lease goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Of this process, from 1.
    pub number: u64,
    /// No write begins at or after this time.
    pub write_until: Duration,
}

/// What is known of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum View {
    /// It has to be read.
    Unread,
    /// So it is, or there is none.
    Read(Option<Seen>),
}

/// The state of a candidate.
#[derive(Clone, Debug)]
pub struct Core {
    me: String,
    times: Times,
    view: View,
    /// What was last seen, and since when it is known to be so.
    last: Option<(Option<Seen>, Duration)>,
    term: Option<Term>,
    terms: u64,
    /// When the call that is under way was sent.
    under_way: Option<Duration>,
    next: Duration,
    stopping: bool,
    released: bool,
}

impl Core {
    /// A candidate of this name, which no process had before it (M15).
    pub fn new(me: String, times: Times) -> Self {
        let (view, next) = (View::Unread, Duration::ZERO);
        Self {
            me,
            times,
            view,
            last: None,
            term: None,
            terms: 0,
            under_way: None,
            next,
            stopping: false,
            released: false,
        }
    }

    /// The term, while it may be used.
    pub fn term(&self, now: Duration) -> Option<Term> {
        self.term.filter(|term| now < term.write_until)
    }

    /// Who holds the Lease, as far as is known.
    pub fn holder(&self) -> Option<&str> {
        self.last.as_ref()?.0.as_ref()?.holder.as_deref()
    }

    /// When the next [`Event::Tick`] is due; none: a call is under way, or everything is done.
    pub fn wake(&self) -> Option<Duration> {
        let expiry = self.term.map(|term| term.write_until);
        let next = (self.under_way.is_none() && !self.is_done()).then_some(self.next);
        expiry.into_iter().chain(next).min()
    }

    /// It was stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Nothing is left to be done: it was stopped, and holds nothing.
    pub fn is_done(&self) -> bool {
        self.stopping && self.released && self.under_way.is_none()
    }

    /// Takes in what happened; the call to make now, if any.
    pub fn apply(&mut self, event: Event, now: Duration) -> Option<Effect> {
        if self.term(now).is_none() {
            self.term = None;
        }
        match event {
            Event::Tick => {}
            Event::Deposed => self.term = None,
            Event::Stop => {
                (self.term, self.stopping, self.next) = (None, true, now);
            }
            Event::Read(answer) => {
                self.under_way = None;
                self.read(answer, now);
            }
            Event::Wrote(answer) => {
                let sent = self.under_way.take().unwrap_or(now);
                self.wrote(answer, sent, now);
            }
        }
        if self.under_way.is_some() || now < self.next || self.is_done() {
            return None;
        }
        let effect = self.choose(now);
        if effect.is_some() {
            self.under_way = Some(now);
        }
        effect
    }

    fn read(&mut self, answer: Result<Option<Seen>, ()>, now: Duration) {
        let Ok(seen) = answer else {
            self.next = now + self.times.retry;
            return;
        };
        let mine = self.is_mine(seen.as_ref());
        if seen.is_some() && !mine {
            self.term = None;
        }
        self.observe(seen, now);
        // What can be had is taken at once.
        let expiry = self.last.as_ref().map_or(now, |(_, since)| *since + self.times.lease);
        let at_once = self.can_take(now) || self.stopping;
        self.next = if at_once { now } else { (now + self.times.retry).min(expiry) };
    }

    fn wrote(&mut self, answer: Result<Seen, WriteError>, sent: Duration, now: Duration) {
        match answer {
            Ok(seen) => {
                let mine = self.is_mine(Some(&seen));
                self.observe(Some(seen), now);
                self.released = self.stopping && !mine;
                if mine && !self.stopping {
                    self.renewed(sent, now);
                }
                self.next = if self.stopping { now } else { (sent + self.times.retry).max(now) };
            }
            Err(WriteError::Conflict) => (self.view, self.next) = (View::Unread, now),
            Err(WriteError::Unavailable) => self.next = now + self.times.retry,
            Err(WriteError::Unknown) => (self.view, self.next) = (View::Unread, now + self.times.retry),
        }
    }

    fn renewed(&mut self, sent: Duration, now: Duration) {
        let write_until = sent + self.times.renew_deadline;
        if now >= write_until {
            return;
        }
        if let Some(term) = &mut self.term {
            term.write_until = write_until;
        } else {
            self.terms += 1;
            self.term = Some(Term { number: self.terms, write_until });
        }
    }

    fn observe(&mut self, seen: Option<Seen>, now: Duration) {
        if self.last.as_ref().is_none_or(|(last, _)| *last != seen) {
            // Where there never was a Lease, nobody holds one. One that was there was deleted by somebody, and its holder
            // may act until it notices.
            let since = if self.last.is_none() && seen.is_none() { None } else { Some(now) };
            self.last = since.map(|since| (seen.clone(), since));
        }
        self.view = View::Read(seen);
    }

    fn is_mine(&self, seen: Option<&Seen>) -> bool {
        seen.and_then(|seen| seen.holder.as_ref()) == Some(&self.me)
    }

    /// Nobody else can hold it any more.
    fn can_take(&self, now: Duration) -> bool {
        let View::Read(seen) = &self.view else { return false };
        let expired = self.last.as_ref().is_none_or(|(_, since)| now >= *since + self.times.lease);
        let free = seen.as_ref().is_some_and(|seen| seen.holder.is_none());
        free || self.is_mine(seen.as_ref()) || expired || self.term.is_some() && seen.is_none()
    }

    fn choose(&mut self, now: Duration) -> Option<Effect> {
        let View::Read(seen) = &self.view else { return Some(Effect::Read) };
        let mine = self.is_mine(seen.as_ref());
        if self.stopping {
            self.released = !mine;
            return mine.then(|| Effect::Write { over: seen.as_ref().map(|seen| seen.version.clone()), held: false });
        }
        if !self.can_take(now) {
            return Some(Effect::Read);
        }
        // An expired Lease is written over the version that did not change: whoever renewed it meanwhile wins.
        Some(Effect::Write { over: seen.as_ref().map(|seen| seen.version.clone()), held: true })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
