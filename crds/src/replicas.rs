//! Rules of how many replicas there must be, the same for a Topic and for what holds where it does not say: CEL, attached where
//! they look.

use kube::core::Rule;

/// As many replicas as an acks=all write needs.
pub(crate) fn enough_for_min_isr() -> Rule {
    Rule::new("!has(self.replicationFactor) || !has(self.config.minInSyncReplicas) || self.config.minInSyncReplicas <= self.replicationFactor")
        .message("minInSyncReplicas is higher than replicationFactor, so that no acks=all write could ever succeed: lower it")
        .field_path(".config.minInSyncReplicas")
}

/// More than one replica where a loss is to be survived.
pub(crate) fn more_than_one_to_survive() -> Rule {
    Rule::new("!has(self.survives) || !has(self.replicationFactor) || self.replicationFactor > 1")
        .message("one replica survives no loss: set a replicationFactor of 2 at least, or leave survives out")
        .field_path(".survives")
}

/// More replicas than an acks=all write needs where a loss is to be survived.
pub(crate) fn more_than_min_isr_to_survive() -> Rule {
    Rule::new("!has(self.survives) || !has(self.replicationFactor) || !has(self.config.minInSyncReplicas) || self.config.minInSyncReplicas < self.replicationFactor")
        .message("with minInSyncReplicas as high as replicationFactor no acks=all write would go on after a loss, which survives asks for: lower it")
        .field_path(".survives")
}
