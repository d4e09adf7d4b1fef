//! What a broker has decided as controller.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    step: &'static str,
}

/// Decisions of the controller, counted where they were written. Clones count on the same.
#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    moves: Family<Labels, Counter>,
}

impl ControllerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let help = "Partitions whose replicas began to move to other brokers, have moved, or went back, as this broker \
                    decided as controller";
        registry.register("controller_moves", help, new.moves.clone());
        new.count_moves(0, 0, 0);
        new
    }

    /// Counts partitions that began to move, have moved, and went back.
    pub fn count_moves(&self, begun: usize, completed: usize, cancelled: usize) {
        for (step, count) in [("begun", begun), ("completed", completed), ("cancelled", cancelled)] {
            self.moves.get_or_create(&Labels { step }).inc_by(count as u64);
        }
    }
}
