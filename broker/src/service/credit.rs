//! What a client lets a stream send.

/// Bytes that may be sent. May fall below zero by one batch, which later credit makes up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit(i64);

impl Credit {
    pub(super) fn new(bytes: u64) -> Self {
        // At least one batch is always sent.
        Self(i64::try_from(bytes).unwrap_or(i64::MAX).max(1))
    }

    /// As [`new`](Self::new); 0 is as much as the stream takes.
    pub(super) fn unlimited_if_0(bytes: u64) -> Self {
        if bytes == 0 { Self(i64::MAX) } else { Self::new(bytes) }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.0 = self.0.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes as i64);
    }

    /// Bytes left; 0 if nothing may be sent.
    pub(super) fn left(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_goes_below_zero_by_one_batch_and_is_made_up_for() {
        let mut credit = Credit::new(0);
        assert_eq!(credit.left(), 1);
        credit.spend(1_000);
        assert_eq!(credit.left(), 0);
        credit.add(999);
        assert_eq!(credit.left(), 0);
        credit.add(500);
        assert_eq!(credit.left(), 500);
        credit.add(u64::MAX);
        assert_eq!(credit.left(), i64::MAX as usize);
        assert_eq!(Credit::unlimited_if_0(0).left(), i64::MAX as usize);
        assert_eq!(Credit::unlimited_if_0(5).left(), 5);
    }
}
