//! SIGTERM and SIGINT: the first asks the broker to stop, the second ends it at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals that come so soon after the first are the same wish: `timeout`, `make` and terminals signal a process and its
/// group.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Cancelled by the first SIGTERM or SIGINT from now on. The second ends the process with the code that shells give to
/// death by that signal: records that were acknowledged are in the kernel, so nothing is lost, only the next start has to
/// scan the write-ahead log.
pub fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        let mut first = None;
        loop {
            let (name, code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            match first {
                None => {
                    tracing::info!(signal = name, "stopping; a second signal ends at once");
                    asked.cancel();
                    first = Some(Instant::now());
                }
                Some(at) if at.elapsed() < SAME_WISH => {}
                Some(_) => {
                    tracing::warn!(signal = name, "second signal: ending at once");
                    std::process::exit(code);
                }
            }
        }
    });
    Ok(stop)
}
