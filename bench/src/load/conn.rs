//! One connection of the load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::answer::{Answer, Wrong};
use crate::table::{KEY, key};

/// Addresses that connections come from in turn: one alone has too few ports for
/// a connection a request.
const SOURCES: u64 = 64;

/// What became of a connection's turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    Waiting,
    Answered,
    Broken(String),
    Wrong(Wrong),
}

pub struct Conn {
    stream: TcpStream,
    answer: Answer,
    /// The cell that has to answer; any may when there is none.
    cell: Option<usize>,
    /// What of the request could not be written yet.
    unsent: Vec<u8>,
    /// When the request under way was due, in nanoseconds.
    pub due: Option<u64>,
}

impl Conn {
    /// Begins to connect; `number` picks the address to come from.
    pub fn open(target: SocketAddr, number: u64) -> io::Result<Conn> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        bind_to_one_of_many(&socket, number)?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Conn {
            stream: socket.into(),
            answer: Answer::default(),
            cell: None,
            unsent: Vec::new(),
            due: None,
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether the last answer asked for the connection to end.
    pub fn closes(&self) -> bool {
        self.answer.closes
    }

    /// Sends a request. False when not all of it could be written: call
    /// [`Conn::flush`] when the connection is writable.
    pub fn send(&mut self, request: &[u8], cell: Option<usize>, due: u64) -> io::Result<bool> {
        self.answer.start();
        self.cell = cell;
        self.due = Some(due);
        self.unsent.clear();
        self.write(request)
    }

    /// Whether something is left to be written.
    pub fn flush(&mut self) -> io::Result<bool> {
        let unsent = std::mem::take(&mut self.unsent);
        self.write(&unsent)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let written = match (&self.stream).write(bytes) {
            Ok(count) => count,
            // A connection that is not there yet says so with either.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    || error.kind() == io::ErrorKind::NotConnected =>
            {
                0
            }
            Err(error) => return Err(error),
        };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(self.unsent.is_empty())
    }

    /// Reads what there is of the answer.
    pub fn receive(&mut self, scratch: &mut [u8], bodies: &[Vec<u8>]) -> Turn {
        loop {
            let count = match (&self.stream).read(scratch) {
                Ok(0) => return Turn::Broken("closed".into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Waiting,
                Err(error) => return Turn::Broken(error.to_string()),
            };
            if self.due.is_none() {
                return Turn::Wrong(Wrong::Garbled("bytes that nobody asked for".into()));
            }
            match self.answer.take(&scratch[..count], self.cell, bodies) {
                Ok(true) => return Turn::Answered,
                // What filled the buffer may have more behind it.
                Ok(false) if count == scratch.len() => {}
                Ok(false) => return Turn::Waiting,
                Err(wrong) => return Turn::Wrong(wrong),
            }
        }
    }
}

fn bind_to_one_of_many(socket: &Socket, number: u64) -> io::Result<()> {
    let host = u8::try_from(2 + number % SOURCES).unwrap_or(2);
    let one = 1_i32;
    // The port is chosen with the target in mind, so that each target has all.
    // SAFETY: `one` is valid for reading.
    unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            4,
        );
    }
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into())
}

/// Requests of one kind, but for their keys.
pub struct Template {
    bytes: Vec<u8>,
    at: usize,
}

impl Template {
    pub fn new(target: SocketAddr, path: &str, close: bool) -> Template {
        let close = if close { "Connection: close\r\n" } else { "" };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: cellgate-bench\r\n\
             Accept: */*\r\n{close}X-Routing-Key: "
        );
        let at = head.len();
        let bytes = [head.as_bytes(), &[b'-'; KEY], b"\r\n\r\n"].concat();
        Template { bytes, at }
    }

    /// The request for a number's key.
    pub fn with(&mut self, number: u64) -> &[u8] {
        self.bytes[self.at..self.at + KEY].copy_from_slice(&key(number));
        &self.bytes
    }
}
