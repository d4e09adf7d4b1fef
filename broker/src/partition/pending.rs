//! Answers that wait for the log: which appends are acknowledged when it has grown, and which fail with it.

use std::collections::VecDeque;

use super::Acks;

/// Answers of type `A` for those who asked, `R`, in the order of their batches.
#[derive(Debug)]
pub(super) struct PendingAcks<R, A> {
    leader: VecDeque<Pending<R, A>>,
    all: VecDeque<Pending<R, A>>,
}

#[derive(Debug)]
struct Pending<R, A> {
    /// Exclusive end of the batch.
    end: i64,
    to: R,
    answer: A,
}

impl<R, A> PendingAcks<R, A> {
    pub(super) fn new() -> Self {
        Self { leader: VecDeque::new(), all: VecDeque::new() }
    }

    /// Adds the answer for a batch that ends at `end`. A repeat of an earlier batch is due once all before it are, at the
    /// latest.
    pub(super) fn push(&mut self, acks: Acks, end: i64, to: R, answer: A) {
        let queue = if acks == Acks::All { &mut self.all } else { &mut self.leader };
        queue.push_back(Pending { end, to, answer });
    }

    /// Gives out what is due: the leader's log ends at `log_end`, all in-sync replicas have `high_watermark` (A1, A2, P2).
    pub(super) fn release(&mut self, log_end: i64, high_watermark: i64, mut give: impl FnMut(Acks, R, A)) {
        let queues = [(Acks::Leader, &mut self.leader, log_end), (Acks::All, &mut self.all, high_watermark)];
        for (acks, queue, bound) in queues {
            while let Some(due) = queue.pop_front_if(|p| p.end <= bound) {
                give(acks, due.to, due.answer);
            }
        }
    }

    /// Gives out those whose batches are not in a log that ends at `log_end`. Of no log: all.
    pub(super) fn fail(&mut self, log_end: i64, mut give: impl FnMut(R)) {
        for queue in [&mut self.leader, &mut self.all] {
            for pending in std::mem::take(queue) {
                if pending.end > log_end {
                    give(pending.to);
                } else {
                    queue.push_back(pending);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(acks: &mut PendingAcks<&'static str, ()>, log_end: i64, high_watermark: i64) -> Vec<&'static str> {
        let mut out = vec![];
        acks.release(log_end, high_watermark, |_, to, ()| out.push(to));
        out
    }

    #[test]
    fn a1_all_waits_for_the_high_watermark_and_a2_leader_for_the_log() {
        let mut acks = PendingAcks::new();
        acks.push(Acks::All, 10, "all", ());
        acks.push(Acks::Leader, 20, "leader", ());
        assert_eq!(released(&mut acks, 19, 9), Vec::<&str>::new());
        assert_eq!(released(&mut acks, 20, 9), ["leader"]);
        assert_eq!(released(&mut acks, 20, 10), ["all"]);
    }

    #[test]
    fn p2_a_repeat_is_released_with_or_after_its_original() {
        let mut acks = PendingAcks::new();
        acks.push(Acks::All, 10, "original", ());
        acks.push(Acks::All, 20, "next", ());
        acks.push(Acks::All, 10, "repeat", ());
        assert_eq!(released(&mut acks, 10, 10), ["original"]);
        assert_eq!(released(&mut acks, 20, 20), ["next", "repeat"]);
    }

    #[test]
    fn what_lies_beyond_the_log_fails_and_the_rest_stays() {
        let mut acks = PendingAcks::new();
        acks.push(Acks::All, 10, "kept", ());
        acks.push(Acks::Leader, 20, "lost", ());
        acks.push(Acks::All, 30, "lost too", ());
        let mut failed = vec![];
        acks.fail(10, |to| failed.push(to));
        assert_eq!(failed, ["lost", "lost too"]);
        assert_eq!(released(&mut acks, 10, 10), ["kept"]);
    }
}
