//! A machine to try the runtime on: numbers by name, which only rise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::coordinator::{Effects, Env, StateMachine, TimerChange};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Toy {
    numbers: Arc<BTreeMap<String, u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Sets numbers; answers them.
    Set(Vec<(&'static str, u64)>),
    /// As `Set`, many bytes of it.
    SetLong(usize),
    Get(&'static str),
    /// Answered when the number has risen to this, or when the time is over.
    Await(&'static str, u64, Duration),
}

pub(super) type Answer = Option<u64>;

/// Somebody waits for a name to rise to a number.
pub(super) type Waits = (String, u64);

impl Toy {
    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }
}

impl StateMachine for Toy {
    type Request = Ask;
    type Answer = Answer;
    type Record = (String, u64);
    type Timer = Waits;
    type Event = String;
    /// The number that "world" is set to when the world changes.
    type World = u64;

    fn handle(&self, request: Ask, _: &Env<'_, u64>) -> Effects<Self> {
        match request {
            Ask::Set(numbers) => Self::set(numbers.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()),
            Ask::SetLong(bytes) => Self::set(vec![("x".repeat(100), 1); bytes / 100]),
            Ask::Get(name) => Effects::answer(self.get(name)),
            Ask::Await(name, number, patience) => match self.get(name) {
                Some(now) if now >= number => Effects::answer(Some(now)),
                _ => {
                    let waits = (name.to_owned(), number);
                    let timers = vec![TimerChange::Set(waits.clone(), patience)];
                    Effects { park: Some(waits), timers, ..Effects::default() }
                }
            },
        }
    }

    fn on_timer(&self, timer: &Waits, _: &Env<'_, u64>) -> Effects<Self> {
        Effects { completed: vec![(timer.clone(), self.get(&timer.0))], ..Effects::default() }
    }

    fn on_world(&self, env: &Env<'_, u64>) -> Effects<Self> {
        Effects { records: vec![("world".to_owned(), *env.world)], ..Effects::default() }
    }

    fn on_loaded(&self, env: &Env<'_, u64>) -> Effects<Self> {
        let loads = self.get("loads").unwrap_or(0) + 1;
        Effects { records: vec![("loads".to_owned(), loads)], ..self.on_world(env) }
    }

    fn replay(&mut self, (name, number): &(String, u64)) {
        Arc::make_mut(&mut self.numbers).insert(name.clone(), *number);
    }

    fn checkpoint(&self) -> Box<dyn Iterator<Item = (String, u64)> + Send> {
        let numbers = self.numbers.clone();
        let names: Vec<String> = numbers.keys().cloned().collect();
        Box::new(names.into_iter().map(move |name| {
            let number = numbers[&name];
            (name, number)
        }))
    }

    fn encode((name, number): &(String, u64)) -> (Bytes, Bytes) {
        (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(&number.to_be_bytes()))
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<(String, u64)> {
        Some((String::from_utf8(key.to_vec()).ok()?, u64::from_be_bytes(value.try_into().ok()?)))
    }
}

impl Toy {
    fn set(records: Vec<(String, u64)>) -> Effects<Self> {
        let risen = |waits: &Waits| records.iter().any(|(name, number)| *name == waits.0 && *number >= waits.1);
        // Everybody who may wait: the numbers are small.
        let waiting = records.iter().flat_map(|(name, number)| (0..=*number).map(|n| (name.clone(), n)));
        let completed: Vec<_> = waiting.filter(risen).map(|waits| (waits.clone(), Some(waits.1))).collect();
        Effects {
            answer: Some(records.last().map(|(_, number)| *number)),
            timers: completed.iter().map(|(waits, _)| TimerChange::Cancel(waits.clone())).collect(),
            events: records.iter().map(|(name, _)| name.clone()).collect(),
            completed,
            records,
            ..Effects::default()
        }
    }
}
