//! Captures, and what tshark(1) finds in them: a second opinion by people who know nothing of us.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::netns::Namespace;
use crate::process::{Process, wait_until};

const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(10);

/// A running tcpdump(1).
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures everything on an interface.
    ///
    /// # Errors
    /// When tcpdump does not come up.
    pub fn start(namespace: &Namespace, interface: &str, file: &Path) -> Result<Capture> {
        let mut command = namespace.command("tcpdump");
        command.args([
            "-i",
            interface,
            "-s",
            "0",
            "-B",
            "65536",
            "--immediate-mode",
            "-Z",
            "root",
            "-U",
            "-w",
        ]);
        let mut process = Process::start("tcpdump", command.arg(file), &file.with_extension("log"))?;
        wait_until("tcpdump", START, || {
            process.check_running()?;
            ensure!(process.log().contains("listening on"), "{}", process.log());
            Ok(())
        })?;
        Ok(Capture { process, file: file.to_owned() })
    }

    /// Ends it, and gives the file.
    ///
    /// # Errors
    /// When it lost packets, because then nobody can say what is right.
    pub fn finish(mut self) -> Result<PathBuf> {
        // What is under way arrives.
        std::thread::sleep(Duration::from_millis(300));
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(END)?;
        let log = self.process.log();
        ensure!(log.contains("\n0 packets dropped by kernel"), "tcpdump lost packets: {log}");
        Ok(self.file)
    }
}

/// An exchange as tshark tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Told {
    /// The method.
    pub method: String,
    /// The target.
    pub target: String,
    /// The SHA-256 of the request's body.
    pub request_body: String,
    /// The status.
    pub status: u64,
    /// The SHA-256 of the response's body, before content decoding.
    pub response_body: String,
}

/// The SHA-256 of a body, in hexadecimal digits.
#[must_use]
pub fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What tshark finds in a capture with HTTP/1 on this port: complete exchanges, in no order, and the number of responses
/// that answer no request.
///
/// # Errors
/// When tshark fails, or tells something that cannot be understood.
pub fn exchanges(file: &Path, port: u16) -> Result<(Vec<Told>, u64)> {
    let packets = packets(file, port, "http", "http tcp data")?;
    // By connection. tshark's own pairs are those of frames, and it has none where requests do not wait.
    let mut requests: HashMap<String, VecDeque<_>> = HashMap::new();
    let (mut told, mut unasked) = (Vec::new(), 0);
    for layers in &packets {
        let stream = text(layers.pointer("/tcp/tcp.stream"));
        for message in one_or_more(layers.get("http")) {
            let parts = || message.as_object().into_iter().flatten().map(|(_, value)| value);
            // A body with a content coding has a part of its own.
            let encoded = || parts().find_map(|part| part.get("data_raw"));
            let body = digest(&bytes(message.get("http.file_data_raw").or_else(encoded))?);
            for line in parts() {
                if let Some(method) = line.get("http.request.method") {
                    let request = (text(Some(method)), text(line.get("http.request.uri")), body.clone());
                    requests.entry(stream.clone()).or_default().push_back(request);
                } else if let Some(status) = line.get("http.response.code") {
                    let status = text(Some(status)).parse()?;
                    if status < 200 {
                        continue;
                    }
                    let request = requests.get_mut(&stream).and_then(VecDeque::pop_front);
                    let Some((method, target, request_body)) = request else {
                        unasked += 1;
                        continue;
                    };
                    let response_body = body.clone();
                    told.push(Told { method, target, request_body, status, response_body });
                }
            }
        }
    }
    Ok((told, unasked))
}

/// What tshark finds in a capture with HTTP/2 on this port, by prior knowledge or by upgrade from HTTP/1: complete exchanges,
/// in no order. Bodies are put together here, of the frames that tshark tells.
///
/// # Errors
/// When tshark fails, or tells something that cannot be understood.
pub fn http2_exchanges(file: &Path, port: u16, by_upgrade: bool) -> Result<Vec<Told>> {
    #[derive(Default)]
    struct Stream {
        /// Method and target, and whether it ended.
        request: (String, String, bool),
        /// The status, and whether it ended.
        response: (u64, bool),
        request_body: Vec<u8>,
        response_body: Vec<u8>,
    }
    let decode_as = if by_upgrade { "http" } else { "http2" };
    let mut streams: HashMap<(String, String), Stream> = HashMap::new();
    for layers in packets(file, port, decode_as, "http http2 tcp")? {
        let connection = text(layers.pointer("/tcp/tcp.stream"));
        let to_client = text(layers.pointer("/tcp/tcp.srcport")) == port.to_string();
        for message in one_or_more(layers.get("http")) {
            for line in message.as_object().into_iter().flatten().map(|(_, value)| value) {
                if let Some(method) = line.get("http.request.method") {
                    // The first request, which becomes stream 1 (RFC 7540, section 3.2).
                    let stream = streams.entry((connection.clone(), "1".to_owned())).or_default();
                    stream.request = (text(Some(method)), text(line.get("http.request.uri")), true);
                }
            }
        }
        let frames = one_or_more(layers.get("http2"))
            .into_iter()
            .flat_map(|layer| one_or_more(layer.get("http2.stream")));
        for frame in frames {
            let field = |name: &str| text(frame.get(name));
            let stream = streams.entry((connection.clone(), field("http2.streamid"))).or_default();
            let ends =
                frame.pointer("/http2.flags_tree/http2.flags.end_stream").is_some_and(|flag| flag == "1");
            match field("http2.type").as_str() {
                "0" => {
                    let body = if to_client { &mut stream.response_body } else { &mut stream.request_body };
                    // With the last of several frames tshark tells the whole body.
                    if frame.get("http2.body.fragments").is_some() {
                        body.clear();
                    }
                    body.extend(bytes(frame.get("http2.data.data_raw"))?);
                }
                "1" => {
                    for header in one_or_more(frame.get("http2.header")) {
                        let value = || text(header.get("http2.header.value"));
                        match text(header.get("http2.header.name")).as_str() {
                            ":method" => stream.request.0 = value(),
                            ":path" => stream.request.1 = value(),
                            ":status" => stream.response.0 = value().parse()?,
                            _ => {}
                        }
                    }
                }
                _ => continue,
            }
            *(if to_client { &mut stream.response.1 } else { &mut stream.request.2 }) |= ends;
        }
    }
    let whole = streams.into_values().filter(|stream| stream.request.2 && stream.response.1);
    let told = whole.map(|stream| Told {
        method: stream.request.0,
        target: stream.request.1,
        request_body: digest(&stream.request_body),
        status: stream.response.0,
        response_body: digest(&stream.response_body),
    });
    Ok(told.collect())
}

/// The layers of every packet in which tshark finds the protocol.
fn packets(file: &Path, port: u16, protocol: &str, shown: &str) -> Result<Vec<Value>> {
    let output = Command::new("tshark")
        .args([
            "-n",
            "-d",
            &format!("tcp.port=={port},{protocol}"),
            "-T",
            "json",
            "-x",
            "--no-duplicate-keys",
        ])
        .args(["-o", "tcp.reassemble_out_of_order:TRUE", "-o", "http.decompress_body:FALSE"])
        .args(["-Y", &format!("(http || http2) && tcp.port=={port}"), "-J", shown, "-r"])
        .arg(file)
        .output()
        .context("tshark could not be started")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let packets: Vec<Value> = serde_json::from_slice(&output.stdout).context("what tshark printed")?;
    let layers = packets.into_iter().map(|mut packet| {
        packet.pointer_mut("/_source/layers").map(Value::take).context("a packet without layers")
    });
    layers.collect()
}

fn one_or_more(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(all)) => all.iter().collect(),
        other => other.into_iter().collect(),
    }
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The bytes of a raw field: hexadecimal digits first, then where they are.
fn bytes(raw: Option<&Value>) -> Result<Vec<u8>> {
    let digits = raw.and_then(|raw| raw.get(0)).and_then(Value::as_str).unwrap_or_default();
    let byte = |at| {
        let pair = digits.get(at..at + 2).context("an odd number of digits")?;
        Ok(u8::from_str_radix(pair, 16)?)
    };
    (0..digits.len()).step_by(2).map(byte).collect()
}
