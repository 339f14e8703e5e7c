//! The equation of a side, ten times a second, for as long as a trial lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::world;
use crate::metrics::{check_status, get};

/// Where every process of a trial answers, each in its own namespace.
pub(super) const PORT: u16 = 9464;

/// Asks whoever is there.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) taken: u64,
    /// Those in which something was in no place or in two.
    pub(super) broken: Vec<String>,
}

impl Watch {
    pub(super) fn start(namespace: String) -> Self {
        Self::of(PORT, move || world::go(&namespace))
    }

    /// Of who answers on this port, without namespaces.
    pub(super) fn at(port: u16) -> Self {
        Self::of(port, || {})
    }

    fn of(port: u16, go: impl FnOnce() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            go();
            let mut samples = Samples::default();
            while !told.load(Ordering::Acquire) {
                // nobody answers while a process is away
                if let Some((_, text)) = get(port, "/statusz") {
                    samples.taken += 1;
                    if std::panic::catch_unwind(|| check_status(&text)).is_err() {
                        samples.broken.push(text);
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            samples
        });
        Self { stop, thread }
    }

    pub(super) fn end(self) -> Samples {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// The status of the process in a namespace, once.
pub(super) fn status(namespace: &str) -> Option<Value> {
    let namespace = namespace.to_owned();
    let asked = std::thread::spawn(move || {
        world::go(&namespace);
        get(PORT, "/statusz")
    });
    serde_json::from_str(&asked.join().unwrap()?.1).ok()
}
