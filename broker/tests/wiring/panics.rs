//! Panics of tasks, which their runtimes keep to themselves.

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    /// On this thread, which is the one that runs all machines of its simulation.
    static SEEN: Cell<u32> = const { Cell::new(0) };
}

/// Counts from now on, from nothing, on this thread.
pub(crate) fn count() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SEEN.set(SEEN.get() + 1);
            before(info);
        }));
    });
    SEEN.set(0);
}

/// How many there were.
pub(crate) fn seen() -> u32 {
    SEEN.get()
}
