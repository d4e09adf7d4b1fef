//! Whether the Kubernetes API went back in time, as when etcd is restored from a backup (M5).
//!
//! Revisions of an API only rise. A watch goes on from the last one it was told: after a restore it waits, without a word, until
//! the API has come as far again, and never hears of what was done before that. So whoever watches asks for the newest
//! revision every [`INTERVAL`], and lists everything anew when it has fallen.
//!
//! Only answers that say what is newest when they are given can be compared: lists that ask for no version, each asked for after
//! the one before was answered. Caches of API servers lag, each for itself.

use std::time::Duration;

/// How often the newest revision is asked for. Short: what is written after a restore must not have passed the revision of
/// before when it is asked for the next time.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// The API was further before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Kubernetes API went back in time, from revision {from} to {to}, as when etcd is restored from a backup")]
pub struct WentBack {
    /// Its revision before.
    pub from: u64,
    /// Its revision now.
    pub to: u64,
}

/// The newest revision of the API, told one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Revisions {
    last: Option<u64>,
}

impl Revisions {
    /// Takes what the next answer says. What is no number says nothing.
    pub fn take(&mut self, told: Option<&str>) -> Result<(), WentBack> {
        let Some(to) = told.and_then(|told| told.parse::<u64>().ok()).filter(|to| *to > 0) else { return Ok(()) };
        match self.last.replace(to) {
            Some(from) if from > to => Err(WentBack { from, to }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m5_a_revision_that_falls_is_noticed_once_and_nothing_else_is() {
        let went_back = |from, to| Err(WentBack { from, to });
        for (what, told, expected) in [
            ("it rises", vec![Some("700"), Some("700"), Some("1000")], Ok(())),
            ("nothing that can be compared", vec![Some("700"), Some("x-3"), Some(""), Some("-3"), None], Ok(())),
            ("0 is no revision", vec![Some("700"), Some("0")], Ok(())),
            ("it falls", vec![Some("700"), Some("505")], went_back(700, 505)),
            ("by numbers, not by text", vec![Some("1000"), Some("999")], went_back(1000, 999)),
            ("with something else between", vec![Some("700"), None, Some("?"), Some("699")], went_back(700, 699)),
            ("noticed already", vec![Some("700"), Some("505"), Some("506")], Ok(())),
            ("twice", vec![Some("700"), Some("505"), Some("400")], went_back(505, 400)),
        ] {
            let mut revisions = Revisions::default();
            let last = told.into_iter().map(|told| revisions.take(told)).last();
            assert_eq!(last, Some(expected), "{what}");
        }
    }
}
