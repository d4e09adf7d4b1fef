use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TIMES: Times =
    Times { lease: Duration::from_secs(6), renew_deadline: Duration::from_secs(4), retry: Duration::from_secs(1) };

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn seen(version: &str, holder: Option<&str>) -> Seen {
    Seen { version: version.to_owned(), holder: holder.map(str::to_owned) }
}

fn candidate() -> Core {
    Core::new("a".to_owned(), TIMES)
}

fn read(lease: Option<Seen>) -> Event {
    Event::Read(Ok(lease))
}

/// As `apply` gives it.
#[expect(clippy::unnecessary_wraps)]
fn write(over: Option<&str>) -> Option<Effect> {
    Some(Effect::Write { over: over.map(str::to_owned), held: true })
}

/// A candidate that holds version 1 since 10 s.
fn holder() -> Core {
    let mut core = candidate();
    assert_eq!(core.apply(Event::Tick, s(10.0)), Some(Effect::Read));
    assert_eq!(core.apply(read(None), s(10.0)), write(None));
    assert_eq!(core.apply(Event::Wrote(Ok(seen("1", Some("a")))), s(10.5)), None);
    assert_eq!(core.term(s(10.5)), Some(Term { number: 1, write_until: s(14.0) }));
    core
}

#[test]
fn m16_a_term_ends_at_the_sending_of_the_last_renewal_plus_the_renew_deadline() {
    let mut core = holder();
    assert_eq!(core.wake(), Some(s(11.0)));
    assert_eq!(core.apply(Event::Tick, s(11.0)), write(Some("1")));
    // Its answer takes 3 s: what counts is when it was sent.
    assert_eq!(core.apply(Event::Tick, s(13.0)), None);
    assert_eq!(core.apply(Event::Wrote(Ok(seen("2", Some("a")))), s(13.9)), write(Some("2")));
    assert_eq!(core.term(s(14.9)), Some(Term { number: 1, write_until: s(15.0) }));
    assert_eq!(core.term(s(15.0)), None);
    assert_eq!(core.wake(), Some(s(15.0)), "the end of the term is told, even while a call is under way");
    // A renewal after the end begins another term: others may have acted between.
    assert_eq!(core.apply(Event::Wrote(Ok(seen("3", Some("a")))), s(16.0)), write(Some("3")));
    assert_eq!(core.term(s(16.0)).map(|term| term.number), Some(2));
}

#[test]
fn an_answer_that_comes_after_the_deadline_gives_no_term() {
    let mut core = candidate();
    core.apply(Event::Tick, s(0.0));
    core.apply(read(None), s(0.0));
    core.apply(Event::Wrote(Ok(seen("1", Some("a")))), s(4.0));
    assert_eq!(core.term(s(4.0)), None);
}

#[test]
fn somebody_elses_lease_is_taken_once_it_did_not_change_for_its_duration() {
    let mut core = candidate();
    core.apply(Event::Tick, s(0.0));
    let mut now = 0.3;
    assert_eq!(core.apply(read(Some(seen("7", Some("b")))), s(now)), None);
    assert_eq!(core.holder(), Some("b"));
    while now < 5.0 {
        now += 1.0;
        assert_eq!(core.apply(Event::Tick, s(now)), Some(Effect::Read));
        assert_eq!(core.apply(read(Some(seen("7", Some("b")))), s(now)), None);
    }
    // It changes: the time begins anew.
    assert_eq!(core.apply(Event::Tick, s(6.3)), write(Some("7")));
    assert_eq!(core.apply(Event::Wrote(Err(WriteError::Conflict)), s(6.4)), Some(Effect::Read));
    assert_eq!(core.apply(read(Some(seen("8", Some("b")))), s(6.4)), None);
    for now in [7.4, 8.4, 9.4, 10.4, 11.4] {
        assert_eq!(core.apply(Event::Tick, s(now)), Some(Effect::Read), "{now}");
        assert_eq!(core.apply(Event::Read(Err(())), s(now)), None, "nobody answers: {now}");
    }
    assert_eq!(core.apply(Event::Tick, s(12.39)), None);
    assert_eq!(core.apply(Event::Tick, s(12.4)), write(Some("8")));
}

#[test]
fn a_released_lease_is_taken_at_once_and_one_that_was_deleted_after_its_time() {
    let mut core = candidate();
    core.apply(Event::Tick, s(0.0));
    assert_eq!(core.apply(read(Some(seen("1", None))), s(0.0)), write(Some("1")));

    let mut core = candidate();
    core.apply(Event::Tick, s(0.0));
    core.apply(read(Some(seen("1", Some("b")))), s(0.0));
    core.apply(Event::Tick, s(1.0));
    assert_eq!(core.apply(read(None), s(1.0)), None, "its holder may act until it notices");
    assert_eq!(core.apply(Event::Tick, s(7.0)), write(None));
}

#[test]
fn whoever_holds_a_lease_that_was_deleted_or_edited_only_loses_time() {
    let mut core = holder();
    core.apply(Event::Tick, s(11.0));
    assert_eq!(core.apply(Event::Wrote(Err(WriteError::Conflict)), s(11.0)), Some(Effect::Read));
    assert!(core.term(s(11.0)).is_some(), "not yet known to be lost");
    assert_eq!(core.apply(read(None), s(11.1)), write(None));

    let mut core = holder();
    core.apply(Event::Tick, s(11.0));
    core.apply(Event::Wrote(Err(WriteError::Conflict)), s(11.0));
    assert_eq!(core.apply(read(Some(seen("2", Some("thief")))), s(11.1)), None);
    assert_eq!(core.term(s(11.1)), None);
    core.apply(Event::Tick, s(12.1));
    assert_eq!(core.apply(read(Some(seen("2", Some("thief")))), s(12.1)), None);
    for now in [13.1, 14.1, 15.1, 16.1] {
        core.apply(Event::Tick, s(now));
        core.apply(Event::Read(Err(())), s(now));
    }
    assert_eq!(core.apply(Event::Tick, s(17.1)), write(Some("2")));
}

#[test]
fn m3_a_write_of_unknown_outcome_is_looked_up_and_renewed() {
    let mut core = holder();
    core.apply(Event::Tick, s(11.0));
    assert_eq!(core.apply(Event::Wrote(Err(WriteError::Unknown)), s(12.0)), None);
    assert_eq!(core.apply(Event::Tick, s(13.0)), Some(Effect::Read));
    assert_eq!(core.apply(read(Some(seen("2", Some("a")))), s(13.1)), write(Some("2")), "it went through");
    assert_eq!(core.term(s(13.1)).map(|term| term.write_until), Some(s(14.0)), "until this is known to be renewed");
}

#[test]
fn a_stop_releases_what_is_held_and_nothing_else() {
    let mut core = holder();
    let release = Some(Effect::Write { over: Some("1".to_owned()), held: false });
    assert_eq!(core.apply(Event::Stop, s(10.6)), release);
    assert_eq!(core.term(s(10.6)), None);
    assert!(!core.is_done());
    assert_eq!(core.apply(Event::Wrote(Ok(seen("2", None))), s(10.7)), None);
    assert!(core.is_done() && core.wake().is_none());

    let mut core = candidate();
    core.apply(Event::Tick, s(0.0));
    assert_eq!(core.apply(read(Some(seen("1", Some("b")))), s(0.0)), None);
    assert_eq!(core.apply(Event::Stop, s(0.5)), None);
    assert!(core.is_done());
}

#[test]
fn who_was_deposed_begins_another_term() {
    let mut core = holder();
    core.apply(Event::Deposed, s(10.6));
    assert_eq!(core.term(s(10.6)), None);
    core.apply(Event::Tick, s(11.0));
    core.apply(Event::Wrote(Ok(seen("2", Some("a")))), s(11.1));
    assert_eq!(core.term(s(11.1)), Some(Term { number: 2, write_until: s(15.0) }));
}

/// A Lease, two candidates whose clocks differ in time and speed, calls that are lost before or after they are done, and
/// a person who deletes and edits.
struct World {
    lease: Option<Seen>,
    versions: u32,
    candidates: Vec<Candidate>,
    random: StdRng,
    now: f64,
    /// When a person deleted the Lease last.
    deleted: f64,
    terms: usize,
}

struct Candidate {
    core: Core,
    offset: f64,
    speed: f64,
    /// The call that is under way, and its answer once the API has done it.
    call: Option<(Effect, Option<Event>)>,
    /// Writes that nobody waits for any more, and that may still be done.
    stray: Vec<Effect>,
}

impl Candidate {
    fn clock(&self, now: f64) -> Duration {
        s(self.offset + now * self.speed)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let candidates = (0..2).map(|i| Candidate {
            core: Core::new(format!("candidate-{i}"), TIMES),
            offset: random.random_range(0.0..1e6),
            // A clock that is slower than another by less than the deadline is than the duration.
            speed: random.random_range(0.85..1.15),
            call: None,
            stray: Vec::new(),
        });
        let candidates = candidates.collect();
        Self { lease: None, versions: 0, candidates, random, now: 0.0, deleted: 0.0, terms: 0 }
    }

    fn write(&mut self, holder: Option<String>) -> Seen {
        self.versions += 1;
        let seen = Seen { version: self.versions.to_string(), holder };
        self.lease = Some(seen.clone());
        seen
    }

    /// What the API does.
    fn perform(&mut self, i: usize, effect: &Effect) -> Event {
        match effect {
            Effect::Read => Event::Read(Ok(self.lease.clone())),
            Effect::Write { over, held } => {
                if self.lease.as_ref().map(|lease| &lease.version) != over.as_ref() {
                    return Event::Wrote(Err(WriteError::Conflict));
                }
                let holder = held.then(|| format!("candidate-{i}"));
                Event::Wrote(Ok(self.write(holder)))
            }
        }
    }

    fn tell(&mut self, i: usize, event: Event) {
        let now = self.now;
        let candidate = &mut self.candidates[i];
        let clock = candidate.clock(now);
        if let Some(effect) = candidate.core.apply(event, clock) {
            assert!(candidate.call.is_none(), "one call at a time");
            candidate.call = Some((effect, None));
        }
    }

    fn step(&mut self) {
        self.now += self.random.random_range(0.0..0.4);
        let i = self.random.random_range(0..2);
        match (self.random.random_range(0..100), self.candidates[i].call.take()) {
            (0..35, Some((effect, None))) => {
                let answer = self.perform(i, &effect);
                self.candidates[i].call = Some((effect, Some(answer)));
            }
            (0..80, Some((_, Some(answer)))) => self.tell(i, answer),
            (35..45, Some((effect, answer))) => {
                let lost =
                    if effect == Effect::Read { Event::Read(Err(())) } else { Event::Wrote(Err(WriteError::Unknown)) };
                // Only a write that makes the Lease could be done after somebody else had it and a person deleted it. No
                // Lease can help against that; the epoch does.
                if answer.is_none() && !matches!(effect, Effect::Write { over: None, .. }) {
                    self.candidates[i].stray.push(effect);
                }
                self.tell(i, lost);
            }
            (45..55, call) => {
                self.candidates[i].call = call;
                if let Some(effect) = self.candidates[i].stray.pop() {
                    self.perform(i, &effect);
                }
            }
            (96, call) => {
                self.candidates[i].call = call;
                self.meddle();
            }
            (97, call) => {
                self.candidates[i].call = call;
                // A long pause of everything.
                self.now += self.random.random_range(0.0..8.0);
            }
            (_, call) => {
                self.candidates[i].call = call;
                self.tell(i, Event::Tick);
            }
        }
    }

    /// A person deletes the Lease, or names somebody else its holder.
    fn meddle(&mut self) {
        let all_know = self.candidates.iter().all(|candidate| candidate.core.last.is_some());
        if all_know && self.lease.is_some() {
            // Twice in a row looks, to whoever did not look between, like once.
            if self.random.random() && self.now - self.deleted > 60.0 {
                (self.lease, self.deleted) = (None, self.now);
            } else {
                self.write(Some("nobody".to_owned()));
            }
        }
    }

    fn acting(&self) -> Vec<Term> {
        self.candidates.iter().filter_map(|c| c.core.term(c.clock(self.now))).collect()
    }
}

#[test]
fn m16_no_two_candidates_ever_write_at_the_same_time() {
    let mut terms = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        let mut before = 0;
        for step in 0..2_000 {
            world.step();
            let acting = world.acting();
            assert!(acting.len() < 2, "seed {seed}, step {step}, {:.2} s: {acting:?}", world.now);
            world.terms += usize::from(acting.len() > before);
            before = acting.len();
        }
        assert!(world.terms > 3, "seed {seed}: {} terms only", world.terms);
        terms += world.terms;
    }
    assert!(terms > 10_000, "{terms} terms");
}
