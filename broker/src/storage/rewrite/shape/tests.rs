use proptest::prelude::*;
use taffrail_proto::record::BatchHeader;

use super::*;
use crate::storage::state::LogState;

/// A batch of `records` at the log's end.
fn header(base: i64, records: i32, leader_epoch: i32, producer: i64, sequence: i32) -> BatchHeader {
    BatchHeader {
        base_offset: base,
        batch_length: 100,
        leader_epoch,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: base,
        max_timestamp: base,
        producer_id: producer,
        producer_epoch: 0,
        base_sequence: sequence,
        record_count: records,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { records: i32, new_epoch: bool, producer: i64 },
    Trim(prop::sample::Index),
    Truncate(prop::sample::Index),
    Checkpoint,
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (1i32..4, prop::bool::weighted(0.1), 1i64..4);
    let step = prop_oneof![
        10 => append.prop_map(|(records, new_epoch, producer)| Step::Append { records, new_epoch, producer }),
        1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        1 => any::<prop::sample::Index>().prop_map(Step::Truncate),
        1 => Just(Step::Checkpoint),
        4 => Just(Step::Seal),
    ];
    prop::collection::vec(step, 1..80)
}

/// A log with the pieces that its sealed epochs hold, each with its epoch.
struct Sealed {
    state: LogState,
    pieces: Vec<(u32, Piece)>,
    bases: Vec<i64>,
    sequences: [i32; 4],
    epoch: u32,
    leader_epoch: i32,
}

impl Sealed {
    fn by(steps: &[Step]) -> Self {
        let state = LogState::new();
        let mut log = Self { state, pieces: vec![], bases: vec![], sequences: [0; 4], epoch: 1, leader_epoch: 0 };
        for step in steps {
            log.step(step);
        }
        log.step(&Step::Seal);
        log
    }

    fn step(&mut self, step: &Step) {
        let (start, end) = (self.state.start(), self.state.end());
        match step {
            Step::Append { records, new_epoch, producer } => {
                self.leader_epoch += i32::from(*new_epoch);
                let sequence = &mut self.sequences[*producer as usize];
                self.state.append(&header(end, *records, self.leader_epoch, *producer, *sequence), 100, 1000);
                *sequence += records;
                self.bases.push(end);
            }
            Step::Trim(index) => self.state.trim(start + index.index((end - start + 1) as usize) as i64),
            Step::Truncate(index) => {
                let bounds: Vec<i64> = self.bases.iter().copied().filter(|&base| base >= start).chain([end]).collect();
                let to = *index.get(&bounds);
                self.bases.retain(|&base| base < to);
                // Producers are not what is tested here: any that were there before will do.
                let producers = self.state.producers();
                let after = self.state.snapshot_truncated(to, producers);
                self.state.truncate(&after);
            }
            Step::Checkpoint => {
                let snapshot = self.state.snapshot();
                self.state.checkpoint(&snapshot);
            }
            Step::Seal => {
                if let Some(piece) = self.state.piece(self.epoch) {
                    self.state.seal(&piece);
                    self.pieces.push((self.epoch, piece));
                }
                self.epoch += 1;
            }
        }
    }

    fn view(&self) -> LogView {
        let (start, entries) = (self.state.start(), self.state.index().entries().to_vec());
        LogView { start, entries, needed_from: self.state.needed_from() }
    }
}

/// The log as a start finds it.
fn start(mut pieces: Vec<(u32, Piece)>) -> LogState {
    pieces.sort_by_key(|(_, piece)| piece.origin);
    let mut state = LogState::new();
    for (container, piece) in &pieces {
        state.apply(piece, *container);
    }
    state
}

/// Base offsets of the batches that a reader finds, from the log's start.
fn found(state: &LogState, pieces: &[(u32, Piece)]) -> Vec<i64> {
    let mut bases = vec![];
    for entry in state.index().live(state.start()) {
        let piece = pieces.iter().find(|(epoch, piece)| (*epoch, piece.origin) == (entry.container, entry.origin));
        let batches = &piece.expect("each entry has its piece").1.batches;
        bases.extend(batches.iter().map(|batch| batch.base).filter(|base| (entry.first..=entry.last).contains(base)));
    }
    let from = bases.iter().rposition(|&base| base <= state.start()).unwrap_or(0);
    bases.split_off(from)
}

const REWRITTEN: u32 = 1 << 31;

proptest! {
    #[test]
    fn t6_a_rewrite_changes_nothing_that_a_start_finds(steps in steps(), choice in any::<u64>(), again in any::<u64>()) {
        let mut log = Sealed::by(&steps);
        let wanted: Vec<i64> = {
            let last_below = log.bases.iter().rposition(|&base| base <= log.state.start()).unwrap_or(0);
            if log.state.start() == log.state.end() { vec![] } else { log.bases.split_off(last_below) }
        };
        let mut pieces = log.pieces.clone();
        for (round, choice) in [choice, again].into_iter().enumerate() {
            let sources: Vec<u32> = pieces.iter().map(|(epoch, _)| *epoch).filter(|epoch| choice >> (epoch % 64) & 1 == 1).collect();
            let (moved, kept): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|(epoch, _)| sources.contains(epoch));
            let container = REWRITTEN + round as u32;
            let shape = Shape::of(&log.view(), moved);
            prop_assert!(shape.pieces.iter().zip(&shape.from).all(|(piece, from)| piece.batches.len() == from.len()));
            log.state.index_mut().replace(&sources, container, &shape.pieces);
            pieces = kept.into_iter().chain(shape.pieces.into_iter().map(|piece| (container, piece))).collect();
            prop_assert_eq!(found(&log.state, &pieces), wanted.clone());
            let started = start(pieces.clone());
            prop_assert_eq!((started.start(), started.end()), (log.state.start(), log.state.end()));
            prop_assert_eq!(started.epochs(), log.state.epochs());
            prop_assert_eq!(started.producers(), log.state.producers());
            prop_assert_eq!(found(&started, &pieces), wanted.clone());
            prop_assert_eq!(started.index().spans(started.start()), log.state.index().spans(log.state.start()));
        }
    }
}

fn sealed(batches: usize, origins: u32) -> Sealed {
    let append = Step::Append { records: 1, new_epoch: false, producer: 1 };
    let epoch = std::iter::repeat_n(append, batches).chain([Step::Seal]);
    let steps: Vec<Step> = (0..origins).flat_map(|_| epoch.clone()).collect();
    Sealed::by(&steps)
}

#[test]
fn neighbours_become_one_piece_with_the_origin_of_the_last() {
    let log = sealed(3, 6);
    let moved = log.pieces.iter().filter(|(epoch, _)| *epoch != 4).cloned().collect();
    let shape = Shape::of(&log.view(), moved);
    let pieces: Vec<_> = shape.pieces.iter().map(|piece| (piece.origin, piece.full, piece.batches.len())).collect();
    assert_eq!(pieces, [(3, true, 9), (6, false, 6)]);
    assert_eq!(shape.from, [vec![1, 1, 1, 2, 2, 2, 3, 3, 3], vec![5, 5, 5, 6, 6, 6]]);
}

#[test]
fn pieces_are_not_folded_across_more_than_a_day() {
    let mut log = sealed(1, 5);
    for (_, piece) in &mut log.pieces {
        let hours = i64::from(piece.origin) * 10;
        piece.span.as_mut().unwrap().max_append_time = hours * 60 * 60 * 1000;
    }
    let shape = Shape::of(&log.view(), log.pieces.clone());
    assert_eq!(shape.pieces.iter().map(|piece| piece.origin).collect::<Vec<_>>(), [3, 5]);
}

#[test]
fn what_only_old_state_needs_goes_after_a_checkpoint() {
    let mut log = sealed(2, 3);
    log.state.trim(log.state.end());
    assert_eq!(Shape::of(&log.view(), log.pieces.clone()).pieces.len(), 1, "the state is folded and kept");
    log.step(&Step::Checkpoint);
    assert_eq!(Shape::of(&log.view(), log.pieces.clone()), Shape::default());
}
