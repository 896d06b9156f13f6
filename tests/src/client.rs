//! A blocking HTTP/1.1 client that does exactly what it is told, byte for byte: pipelining, chunked uploads, half a
//! request. Reads responses of every framing (RFC 9112, section 6.3). Retries nothing, follows nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest head of a response that is accepted, in bytes.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body after transfer decoding.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of the field `name` (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, broken UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request with a body of known length; none when `body` is empty.
#[must_use]
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = head(method, target, headers);
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A request whose body comes in chunks of the sizes given, the last size again and again.
#[must_use]
pub fn chunked_request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    sizes: &[usize],
) -> Vec<u8> {
    let mut bytes = head(method, target, headers);
    bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = body;
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(sizes.last().copied().unwrap_or(1024)));
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = after;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending a request")
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// When the connection is gone, or what comes back is not HTTP.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Reply> {
        self.send(request)?;
        self.receive(request.starts_with(b"HEAD "))
    }

    /// `GET target`.
    ///
    /// # Errors
    /// As [`Connection::exchange`].
    pub fn get(&mut self, target: &str) -> Result<Reply> {
        self.exchange(&request("GET", target, &[], b""))
    }

    /// Reads one final response; `to_head` when it answers a HEAD request.
    ///
    /// # Errors
    /// When the connection ends within it, or it is not HTTP.
    pub fn receive(&mut self, to_head: bool) -> Result<Reply> {
        loop {
            let (mut reply, framing) = self.receive_head(to_head)?;
            if (100..200).contains(&reply.status) {
                continue;
            }
            reply.body = match framing {
                Framing::None => Vec::new(),
                Framing::Length(length) => self.take(length)?,
                Framing::Chunked => self.receive_chunks()?,
                Framing::UntilClose => {
                    let mut body = std::mem::take(&mut self.buffer);
                    self.stream.read_to_end(&mut body).context("reading until the end")?;
                    body
                }
            };
            return Ok(reply);
        }
    }

    fn receive_head(&mut self, to_head: bool) -> Result<(Reply, Framing)> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut parsed = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(length) = parsed.parse(&self.buffer)? {
                let headers: Vec<(String, String)> = parsed
                    .headers
                    .iter()
                    .map(|field| {
                        (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
                    })
                    .collect();
                let reply = Reply { status: parsed.code.unwrap_or_default(), headers, body: Vec::new() };
                self.buffer.drain(..length);
                let framing = framing(&reply, to_head)?;
                return Ok((reply, framing));
            }
            ensure!(self.buffer.len() < MAX_HEAD, "the head of a response exceeds {MAX_HEAD} bytes");
            self.fill()?;
        }
    }

    fn receive_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk size {size:?}"))?;
            if size == 0 {
                while !self.take_line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            ensure!(self.take_line()?.is_empty(), "a chunk does not end where it should");
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn take_line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut bytes = [0; 16 * 1024];
        let length = self.stream.read(&mut bytes).context("reading a response")?;
        ensure!(length > 0, "the server closed the connection within a response");
        self.buffer.extend_from_slice(bytes.get(..length).unwrap_or_default());
        Ok(())
    }
}

fn framing(reply: &Reply, to_head: bool) -> Result<Framing> {
    if to_head || (100..200).contains(&reply.status) || reply.status == 204 || reply.status == 304 {
        return Ok(Framing::None);
    }
    match (reply.header("transfer-encoding"), reply.header("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (Some(coding), _) => bail!("unknown transfer-encoding {coding:?}"),
        (None, Some(length)) => {
            Ok(Framing::Length(length.trim().parse().map_err(|_| anyhow!("content-length {length:?}"))?))
        }
        (None, None) => Ok(Framing::UntilClose),
    }
}

/// `GET target` on a connection of its own.
///
/// # Errors
/// As [`Connection::exchange`].
pub fn get(address: SocketAddr, target: &str) -> Result<Reply> {
    Connection::open(address)?.exchange(&request("GET", target, &[("Connection", "close")], b""))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn check(answer: &'static str, expected: &[(u16, &str)]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in answer.as_bytes().chunks(3) {
                stream.write_all(byte).unwrap();
            }
        });
        let mut connection = Connection::open(address).unwrap();
        for (status, body) in expected {
            let reply = connection.receive(false).unwrap();
            assert_eq!((reply.status, reply.text().as_str()), (*status, *body), "of {answer:?}");
        }
        server.join().unwrap();
    }

    #[test]
    fn responses_of_every_framing_are_read() {
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 204 No\r\n\r\n",
            &[(200, "ab"), (204, "")],
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\na: b\r\n\r\n",
            &[(200, "abc")],
        );
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nabc", &[(200, "abc")]);
    }

    #[test]
    fn a_chunked_request_spells_out_every_chunk() {
        let bytes = chunked_request("POST", "/x", &[], b"abcdef", &[1, 3]);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with("\r\n\r\n1\r\na\r\n3\r\nbcd\r\n2\r\nef\r\n0\r\n\r\n"), "{text:?}");
    }
}
