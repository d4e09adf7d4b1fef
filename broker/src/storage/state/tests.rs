use proptest::prelude::*;

use super::*;
use crate::storage::LogId;
use crate::storage::footer::Footer;
use crate::storage::ledger::Ledger;
use crate::storage::replay::Unsealed;

const LOG: LogId = LogId(1);

#[derive(Clone, Debug)]
enum Step {
    Append { records: i32, producer: Option<i64>, epoch_rises: bool, after: i64 },
    BeginEpoch,
    Truncate(prop::sample::Index),
    Trim(prop::sample::Index),
    Restart(prop::sample::Index),
    Checkpoint,
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let append = (1..4, prop::option::of(1i64..4), prop::bool::weighted(0.2), 0i64..2)
        .prop_map(|(records, producer, epoch_rises, after)| Step::Append { records, producer, epoch_rises, after });
    prop_oneof![
        8 => append,
        1 => Just(Step::BeginEpoch),
        2 => any::<prop::sample::Index>().prop_map(Step::Truncate),
        1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        1 => any::<prop::sample::Index>().prop_map(Step::Restart),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Seal),
    ]
}

/// A log as the writer drives it, and what a crash would find of it.
struct Live {
    state: LogState,
    epoch: u32,
    sealed: Vec<Vec<u8>>,
    batches: Vec<(BatchHeader, u32)>,
    ledger: Vec<Vec<u8>>,
    headers: Vec<(BatchHeader, i64)>,
    time: i64,
    marked: Option<i64>,
}

impl Live {
    fn new() -> Self {
        Self {
            state: LogState::new(),
            epoch: 1,
            sealed: vec![],
            batches: vec![],
            ledger: vec![],
            headers: vec![],
            time: 1,
            marked: None,
        }
    }

    fn step(&mut self, step: &Step) {
        let (start, end) = (self.state.start(), self.state.end());
        match step {
            Step::Append { records, producer, epoch_rises, after } => {
                self.time += after;
                if self.marked.is_none_or(|marked| marked < self.time) {
                    let ends = if self.marked.is_some() { vec![(LOG, end)] } else { vec![] };
                    self.ledger.push(Ledger::Clock { append_time: self.time, ends }.encode());
                    self.marked = Some(self.time);
                }
                let latest = self.state.epochs().latest().unwrap_or(0);
                let header = self.header(*records, *producer, latest + i32::from(*epoch_rises));
                self.state.append(&header, 100, self.time);
                self.batches.push((header, 100));
                self.headers.push((header, self.time));
            }
            Step::BeginEpoch => {
                let epoch = self.state.epochs().latest().unwrap_or(0) + 1;
                self.ledger.push(Ledger::BeginEpoch { log: LOG, end, epoch }.encode());
                self.state.begin_epoch(epoch);
            }
            Step::Truncate(index) => {
                let bounds = self.headers.iter().map(|(header, _)| header.base_offset).filter(|&base| base >= start);
                self.truncate(*index.get(&bounds.chain([end]).collect::<Vec<_>>()));
            }
            Step::Trim(index) => {
                let start = start + index.index((end - start + 1) as usize) as i64;
                self.ledger.push(Ledger::Trim { log: LOG, end, start }.encode());
                self.state.trim(start);
            }
            Step::Restart(index) => {
                let after = self.state.snapshot_restarted(start + index.index((end - start + 5) as usize) as i64);
                (self.batches, self.headers) = (vec![], vec![]);
                self.ledger.push(Ledger::Truncate { log: LOG, end, after: after.clone() }.encode());
                self.state.truncate(&after);
            }
            Step::Checkpoint => {
                let state = self.state.snapshot();
                self.ledger.push(Ledger::Checkpoint { log: LOG, state: state.clone() }.encode());
                self.state.checkpoint(&state);
            }
            Step::Seal => {
                if let Some(piece) = self.state.piece(self.epoch) {
                    self.sealed.push(Footer { pieces: vec![piece.clone()] }.encode());
                    self.state.seal(&piece);
                }
                self.epoch += 1;
                (self.batches, self.ledger, self.marked) = (vec![], vec![], None);
            }
        }
    }

    fn header(&self, records: i32, producer: Option<i64>, leader_epoch: i32) -> BatchHeader {
        let sequence = self
            .headers
            .iter()
            .map(|(h, _)| h)
            .filter(|h| Some(h.producer_id) == producer)
            .map(|h| h.record_count)
            .sum();
        BatchHeader {
            base_offset: self.state.end(),
            batch_length: 88,
            leader_epoch,
            crc: 0,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp: 0,
            max_timestamp: self.state.end(),
            producer_id: producer.unwrap_or(-1),
            producer_epoch: 0,
            base_sequence: sequence,
            record_count: records,
        }
    }

    fn truncate(&mut self, to: i64) {
        let end = self.state.end();
        self.headers.retain(|(header, _)| header.base_offset < to);
        self.batches.retain(|(header, _)| header.base_offset < to);
        let mut producers = Producers::new();
        for (header, time) in &self.headers {
            if let Some(sequenced) = Sequenced::of(header) {
                producers.record(&sequenced, *time);
            }
        }
        let after = self.state.snapshot_truncated(to, producers);
        self.ledger.push(Ledger::Truncate { log: LOG, end, after: after.clone() }.encode());
        self.state.truncate(&after);
    }

    /// What a start makes of it.
    fn recovered(&self) -> LogState {
        let mut state = LogState::new();
        for bytes in &self.sealed {
            let piece = &Footer::decode_summary(bytes).unwrap().pieces[0];
            state.apply(piece, piece.origin);
        }
        let mut unsealed = Unsealed::default();
        for bytes in &self.ledger {
            unsealed.add_record(Ledger::decode(bytes).unwrap());
        }
        for (header, bytes) in &self.batches {
            unsealed.add_batch(LOG, *header, *bytes);
        }
        assert!(unsealed.replay(LOG, &mut state));
        state
    }
}

/// What is visible of a state, and what its next footer would say.
fn visible(state: &LogState) -> impl PartialEq + std::fmt::Debug + use<> {
    let epochs = state.epochs().entries().to_vec();
    let ends = (state.start(), state.end(), state.bytes(), state.append_time);
    (ends, epochs, state.producers(), state.index().clone(), state.piece(u32::MAX))
}

proptest! {
    #[test]
    fn t6_live_state_is_what_a_start_finds_at_each_step(steps in prop::collection::vec(step(), 1..60)) {
        let mut live = Live::new();
        for step in &steps {
            live.step(step);
            prop_assert_eq!(visible(&live.recovered()), visible(&live.state), "after {:?}", step);
        }
    }
}

#[test]
fn a_log_without_earlier_pieces_has_its_whole_state_in_its_first_footer() {
    let mut live = Live::new();
    let append = Step::Append { records: 2, producer: Some(1), epoch_rises: true, after: 0 };
    live.step(&append);
    live.step(&Step::Seal);
    assert_eq!(live.state.needed_from(), 1);
    live.step(&append);
    live.step(&Step::Seal);
    assert_eq!(live.state.needed_from(), 1);
    live.step(&Step::Checkpoint);
    live.step(&Step::Seal);
    assert_eq!(live.state.needed_from(), 3);
}
