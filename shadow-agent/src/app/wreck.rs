//! Notices a thread that panics, so that the agent ends instead of going on without it.

use std::thread;

use anyhow::anyhow;
use tokio::sync::mpsc::Sender;

/// Lives as long as a thread works, and reports when it is a panic that ends it.
#[derive(Debug)]
pub(super) struct Witness(Sender<anyhow::Error>);

impl Witness {
    pub(super) fn new(broken: &Sender<anyhow::Error>) -> Witness {
        Witness(broken.clone())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = thread::current().name().unwrap_or("a capture thread").to_owned();
            // One report is enough to end the run.
            let _ = self.0.try_send(panicked(&name));
        }
    }
}

/// What a panic is to whoever reads why the agent ended.
pub(super) fn panicked(who: &str) -> anyhow::Error {
    anyhow!(
        "capture broke down: {who} panicked, and what it held is missing; start again, and report the panic above"
    )
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_panic_is_reported_and_an_ordinary_end_is_not() {
        let (broken, mut reports) = mpsc::channel(1);
        for (panics, expected) in [(false, false), (true, true), (true, true)] {
            let witness = Witness::new(&broken);
            let work = move || {
                let _witness = witness;
                assert!(!panics, "on purpose");
            };
            let _ = thread::Builder::new().name("shard-7".to_owned()).spawn(work).unwrap().join();
            let report = reports.try_recv().map(|error| error.to_string());
            assert_eq!(report.is_ok_and(|text| text.contains("shard-7 panicked")), expected);
        }
    }
}
