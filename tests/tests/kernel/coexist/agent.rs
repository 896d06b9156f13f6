//! An agent in a process of its own, which can be killed.

use std::io::{BufRead as _, BufReader, Write as _, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::slice;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use shadow_agent::capture::PacketResult;
use shadow_agent::capture::interfaces::Toward;
use shadow_agent::capture::kernel::{Attachment, KernelCapture};

use super::possible;
use crate::capture;
use crate::netns::{DEVICE, Pair, device};

/// Tells the process how to attach.
const ATTACHMENT: &str = "SHADOW_TESTS_ATTACHMENT";
/// What it answers begins with this, to be told from what the test harness prints.
const ANSWER: &str = "agent: ";

/// The process.
pub(crate) struct Agent {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    /// Starts one that captures from the server's end of `pair`, by TCX only where there is TCX.
    pub(crate) fn start(pair: &Pair, attachment: Attachment) -> Agent {
        let mut process = pair.on_server(|| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "coexist::agent::a_process_of_its_own", "--nocapture"])
                .env(ATTACHMENT, attachment.as_str())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut agent = Agent { process, orders, answers };
        assert_eq!(agent.answer(), "attached");
        agent
    }

    /// How many packets it has copied.
    pub(crate) fn copied(&mut self) -> u64 {
        self.order("copied").parse().unwrap()
    }

    /// Has it let go of the device and attach again.
    pub(crate) fn attach_again(&mut self) {
        assert_eq!(self.order("again"), "attached");
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) {
        assert_eq!(self.order("stop"), "detached");
        assert!(self.process.wait().unwrap().success());
    }

    /// Ends it as nobody should (`SIGKILL`).
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the agent ended");
            // The harness does not end its own line first.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim().to_owned();
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_process_of_its_own() {
    match std::env::var(ATTACHMENT).as_deref() {
        Ok("tcx") => obey(Attachment::Tcx),
        Ok("clsact") => obey(Attachment::Clsact),
        _ => {
            let pair = Pair::new();
            let mut agent = Agent::start(&pair, Attachment::Tcx);
            assert_eq!(agent.copied(), 0);
            agent.attach_again();
            agent.stop();
        }
    }
}

/// What the process does: what the test that started it says.
#[expect(clippy::print_stdout, reason = "the test that started this reads it")]
fn obey(attachment: Attachment) {
    let device = device(DEVICE, Toward::Ingress);
    let (capture, _sources) =
        KernelCapture::start_with(&capture(), slice::from_ref(&device), true, attachment).unwrap();
    assert_eq!(capture.attached()[0].attachment, possible(attachment));
    let (sender, orders) = mpsc::channel();
    // Ends with the process; at the end of input the channel closes, and nobody is left to capture for.
    thread::spawn(move || stdin().lines().try_for_each(|line| sender.send(line.unwrap())));
    println!("{ANSWER}attached");
    loop {
        capture.beat();
        match orders.recv_timeout(Duration::from_millis(100)).as_deref() {
            Ok("copied") => {
                println!("{ANSWER}{}", capture.counters().unwrap().packets[PacketResult::Copied as usize]);
            }
            Ok("again") => {
                capture.retain(&[]).unwrap();
                capture.attach(&device).unwrap();
                println!("{ANSWER}attached");
            }
            Ok("stop") => {
                capture.detach().unwrap();
                println!("{ANSWER}detached");
                return;
            }
            Ok(order) => panic!("{order}?"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
