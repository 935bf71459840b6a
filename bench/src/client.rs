//! One request at a time, by hand: for what is no load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::table::{self, key};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a proxy, made anew when it was closed.
pub struct Client {
    target: SocketAddr,
    stream: Option<TcpStream>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header field of the answer.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// A field of a header, by its name in whatever case.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl Client {
    pub fn new(target: SocketAddr) -> Client {
        Client {
            target,
            stream: None,
        }
    }

    /// Asks for `path` with a number's key, or with none.
    pub fn get(&mut self, path: &str, number: Option<u64>) -> io::Result<Answer> {
        let key = number.map(|number| {
            format!(
                "X-Routing-Key: {}\r\n",
                String::from_utf8_lossy(&key(number))
            )
        });
        let key = key.unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{key}\r\n", self.target);
        self.ask(&request)
    }

    /// Sends JSON.
    pub fn put(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.ask(&format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.target,
            body.len()
        ))
    }

    fn ask(&mut self, request: &str) -> io::Result<Answer> {
        let answer = self.exchange(request);
        match &answer {
            Ok(answer) if answer.field("connection") != Some("close") => {}
            _ => self.stream = None,
        }
        answer
    }

    /// Whether the connection is still there.
    pub fn open(&self) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        let quiet = stream
            .set_nonblocking(true)
            .and_then(|()| stream.peek(&mut [0]));
        let _ = stream.set_nonblocking(false);
        matches!(quiet, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Which cell answers a number's key, if one does.
    pub fn cell(&mut self, number: u64) -> Option<usize> {
        let answer = self.get("/128", Some(number)).ok()?;
        let name = answer.field("x-cell").filter(|_| answer.status == 200)?;
        (0..=table::DEFAULT).find(|&cell| table::name(cell) == name)
    }

    fn exchange(&mut self, request: &str) -> io::Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect_timeout(&self.target, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                none.insert(stream)
            }
        };
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        let mut scratch = [0; 16 << 10];
        let end = loop {
            if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut scratch)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&scratch[..count]),
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        let length: usize = length.unwrap_or(0);
        while bytes.len() < end + length {
            match stream.read(&mut scratch)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&scratch[..count]),
            }
        }
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok(Answer {
            status: status.unwrap_or(0),
            head,
            body: bytes.split_off(end),
        })
    }
}
