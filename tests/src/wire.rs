//! A bad network between two devices of a namespace: what passes is lost, doubled or held back, at random.
//!
//! The kernel can do that by itself (netem), where it is built with it; this needs nothing but packet sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::netns::Namespace;
use crate::process::{Process, wait_until};

const PROGRAM: &str = include_str!("wire.py");
const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(10);

/// How bad: of a thousand packets.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// So many are lost.
    pub lose: u32,
    /// So many come twice.
    pub double: u32,
    /// So many are held back for up to 4 ms, while others overtake them.
    pub hold: u32,
}

/// A running wire.
#[derive(Debug)]
pub struct Wire {
    process: Process,
}

impl Wire {
    /// Joins two devices of a namespace, which must be up.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(
        namespace: &Namespace,
        [near, far]: [&str; 2],
        impairment: Impairment,
        folder: &Path,
    ) -> Result<Wire> {
        let Impairment { lose, double, hold } = impairment;
        let mut command = namespace.command("/usr/bin/python3");
        command.args(["-c", PROGRAM, near, far]);
        command.args([lose, double, hold, 1].map(|number| number.to_string()));
        let mut process = Process::start("wire", &mut command, &folder.join("wire.log"))?;
        wait_until("the wire", START, || {
            process.check_running()?;
            ensure!(process.log().starts_with("ready"), "{}", process.log());
            Ok(())
        })?;
        Ok(Wire { process })
    }

    /// Ends it, and tells what was carried, lost, doubled and held.
    ///
    /// # Errors
    /// When it did not last until now.
    pub fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(END)?;
        let log = self.process.log();
        let line = log.lines().last().context("it said nothing")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let pair = |pair: &[&str]| {
            let [name, count] = pair else { return None };
            Some(((*name).to_owned(), count.parse().ok()?))
        };
        words.chunks(2).map(|words| pair(words).with_context(|| format!("it said: {log}"))).collect()
    }
}
