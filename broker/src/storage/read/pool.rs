//! A few threads that wait for the disk, so that nobody else does.

use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs, in order as far as there are threads.
pub(crate) struct Readers {
    running: Mutex<Option<Running>>,
}

struct Running {
    queue: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts `threads` threads, at least one.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (queue, jobs) = unbounded::<Job>();
        let start = |number| {
            let jobs = jobs.clone();
            let run = move || jobs.into_iter().for_each(|job| job());
            std::thread::Builder::new().name(format!("reader-{number}")).spawn(run)
        };
        let threads = (0..threads.max(1)).map(start).collect::<Result<_, _>>()?;
        Ok(Self { running: Mutex::new(Some(Running { queue, threads })) })
    }

    /// Runs a job on one of the threads; drops it if they were stopped. Callers bound how many they send: each belongs to a
    /// request in flight.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(running) = &*self.running.lock() {
            // The threads end only after the sender is dropped.
            let _ = running.queue.send(Box::new(job));
        }
    }

    /// What is sent now is begun soon: each thread has two jobs before it at most.
    pub(crate) fn have_time(&self) -> bool {
        self.running.lock().as_ref().is_some_and(|running| running.queue.len() <= 2 * running.threads.len())
    }

    /// Ends the threads when the jobs that wait are done.
    pub(crate) fn stop(&self) {
        let running = self.running.lock().take();
        if let Some(Running { queue, threads }) = running {
            drop(queue);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a reader thread has panicked");
                }
            }
        }
    }
}
