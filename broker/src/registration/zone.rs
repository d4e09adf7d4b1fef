//! The zone that this broker's machine is in, from a file that somebody else writes, perhaps late.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::{Instant, sleep};

/// How long a first start waits for the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How often it is looked at once the broker runs.
const SLOW_POLL: Duration = Duration::from_secs(5);
/// Most characters of a zone.
const MAX: usize = 63;

/// The zone, if the file has one.
pub(super) async fn read(file: &Path) -> Option<String> {
    // A file that is not there yet is nothing to tell of.
    let text = tokio::fs::read_to_string(file).await.ok()?;
    parse(&text)
}

/// The zone, as soon as the file has one; nothing after a while.
pub(super) async fn wait(file: &Path) -> Option<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let zone = read(file).await;
        if zone.is_some() || Instant::now() >= end {
            return zone;
        }
        sleep(POLL).await;
    }
}

/// Each other zone that the file names, after `known`. A file that is empty or gone changes nothing. Without a file it
/// never tells any.
pub(super) fn follow(file: Option<PathBuf>, known: Option<String>) -> BoxStream<'static, String> {
    let Some(file) = file else { return stream::pending().boxed() };
    let next = move |known: Option<String>| {
        let file = file.clone();
        async move {
            loop {
                sleep(SLOW_POLL).await;
                let zone = read(&file).await;
                if let Some(zone) = zone.filter(|zone| known.as_ref() != Some(zone)) {
                    return Some((zone.clone(), Some(zone)));
                }
            }
        }
    };
    stream::unfold(known, next).boxed()
}

fn parse(text: &str) -> Option<String> {
    let zone = text.trim();
    (1..=MAX).contains(&zone.chars().count()).then(|| zone.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_short_word_and_nothing_is_none() {
        for (text, zone) in [("a\n", Some("a")), ("", None), (" \n", None), (&"z".repeat(64), None)] {
            assert_eq!(parse(text).as_deref(), zone, "{text:?}");
        }
    }
}
