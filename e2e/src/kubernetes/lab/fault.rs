//! Faults that end.

use std::fmt;

use anyhow::{Context, Result};

type Undo<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// A fault that lasts until it is ended or goes out of scope: a test that fails leaves no broken cluster to the next.
pub struct Fault<'a> {
    what: String,
    undo: Option<Undo<'a>>,
}

impl<'a> Fault<'a> {
    pub(super) fn new(what: impl Into<String>, undo: impl FnOnce() -> Result<()> + 'a) -> Self {
        Self { what: what.into(), undo: Some(Box::new(undo)) }
    }

    /// Ends it.
    pub fn end(mut self) -> Result<()> {
        self.undo.take().map_or(Ok(()), |undo| undo()).with_context(|| format!("end: {}", self.what))
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.undo.take().map(|undo| undo()) {
            eprintln!("end: {}: {error:#}", self.what);
        }
    }
}

impl fmt::Debug for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("what", &self.what).finish_non_exhaustive()
    }
}
