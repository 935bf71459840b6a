//! The cells: one thread that answers for all of them as fast as it can.
//!
//! `GET /128` and `GET /65536` bring a body of so many bytes that says which cell
//! it is from, `GET /head` the request's header as it came; anything else is
//! answered with 200 as well, so that health checks pass.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use crate::sys::{Epoll, Events, Interest, pin};
use crate::table::{self, CELLS};

/// Sizes of bodies, in bytes.
pub const SIZES: [usize; 2] = [128, 65_536];
/// Longest request header that a cell reads, in bytes.
const HEAD: usize = 16 << 10;
/// How often the thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(100);

/// A body of a cell, different in every cell.
pub fn body(cell: usize, size: usize) -> Vec<u8> {
    let name = table::name(cell);
    name.bytes().chain([b' ']).cycle().take(size).collect()
}

/// All cells; they end when this is dropped.
pub struct Cells {
    addresses: Vec<SocketAddr>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cells {
    /// Starts the cells on free ports of 127.0.0.1, on the processors `cpus`.
    pub fn start(cpus: &[usize]) -> anyhow::Result<Cells> {
        let listeners = (0..=CELLS)
            .map(|_| listen())
            .collect::<io::Result<Vec<_>>>()
            .context("cells cannot listen")?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<Vec<_>>>()?;
        let end = Arc::new(AtomicBool::new(false));
        let mut server = Server::new(listeners, Arc::clone(&end))?;
        let cpus = cpus.to_vec();
        let thread = std::thread::Builder::new()
            .name("cells".into())
            .spawn(move || {
                if let Err(error) = pin(&cpus).and_then(|()| server.serve()) {
                    eprintln!("the cells ended: {error}");
                }
            })?;
        Ok(Cells {
            addresses,
            end,
            thread: Some(thread),
        })
    }

    /// Addresses by cell, the default one's last.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Conn {
    stream: TcpStream,
    cell: usize,
    head: Vec<u8>,
    /// What is left to be written of an answer.
    rest: Option<(Arc<[u8]>, usize)>,
}

struct Server {
    listeners: Vec<TcpListener>,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    /// Whole answers, by cell and size.
    answers: Vec<[Arc<[u8]>; SIZES.len()]>,
    epoll: Epoll,
    end: Arc<AtomicBool>,
}

impl Server {
    fn new(listeners: Vec<TcpListener>, end: Arc<AtomicBool>) -> io::Result<Server> {
        let epoll = Epoll::new()?;
        for (cell, listener) in listeners.iter().enumerate() {
            epoll.add(listener, cell as u64, Interest::Read)?;
        }
        let answers = (0..listeners.len())
            .map(|cell| SIZES.map(|size| answer(cell, &body(cell, size))))
            .collect();
        Ok(Server {
            listeners,
            conns: Vec::new(),
            free: Vec::new(),
            answers,
            epoll,
            end,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::new(256);
        let mut ready = Vec::new();
        let mut scratch = vec![0; HEAD];
        while !self.end.load(Relaxed) {
            ready.clear();
            ready.extend(self.epoll.wait(&mut events, TICK)?.map(|event| event.token));
            for &token in &ready {
                let token = usize::try_from(token).unwrap_or(usize::MAX);
                match token.checked_sub(self.listeners.len()) {
                    None => self.accept(token)?,
                    Some(slot) => self.turn(slot, &mut scratch),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, cell: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[cell].accept() {
                Ok((stream, _)) => stream,
                Err(_) => return Ok(()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            let token = (slot + self.listeners.len()) as u64;
            self.epoll.add(&stream, token, Interest::Read)?;
            self.conns[slot] = Some(Conn {
                stream,
                cell,
                head: Vec::new(),
                rest: None,
            });
        }
    }

    fn turn(&mut self, slot: usize, scratch: &mut [u8]) {
        let Some(Some(conn)) = self.conns.get_mut(slot) else {
            return;
        };
        let token = (slot + self.listeners.len()) as u64;
        let alive = match conn.rest {
            Some(_) => conn.write(&self.epoll, token, true),
            None => conn.read(&self.answers, scratch, &self.epoll, token),
        };
        if !alive.unwrap_or(false) {
            self.conns[slot] = None;
            self.free.push(slot);
        }
    }
}

impl Conn {
    /// Reads a request, or more of it, and answers it. False at the end.
    fn read(
        &mut self,
        answers: &[[Arc<[u8]>; SIZES.len()]],
        scratch: &mut [u8],
        epoll: &Epoll,
        token: u64,
    ) -> io::Result<bool> {
        let count = match self.stream.read(scratch) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let head = if self.head.is_empty() && scratch[..count].ends_with(b"\r\n\r\n") {
            &scratch[..count]
        } else {
            self.head.extend_from_slice(&scratch[..count]);
            if !self.head.ends_with(b"\r\n\r\n") {
                return Ok(self.head.len() < HEAD);
            }
            &self.head
        };
        let is = |path: &[u8]| head.starts_with(path);
        let answers = &answers[self.cell];
        let answer = if is(b"GET /65536 ") {
            Arc::clone(&answers[1])
        } else if is(b"GET /head ") {
            answer(self.cell, head)
        } else {
            Arc::clone(&answers[0])
        };
        self.head.clear();
        self.rest = Some((answer, 0));
        self.write(epoll, token, false)
    }

    fn write(&mut self, epoll: &Epoll, token: u64, waited: bool) -> io::Result<bool> {
        while let Some((answer, from)) = &mut self.rest {
            match self.stream.write(&answer[*from..]) {
                Ok(count) if *from + count == answer.len() => {
                    self.rest = None;
                    if waited {
                        epoll.change(&self.stream, token, Interest::Read)?;
                    }
                }
                Ok(count) => *from += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !waited {
                        epoll.change(&self.stream, token, Interest::Write)?;
                    }
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn answer(cell: usize, body: &[u8]) -> Arc<[u8]> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: cell\r\nDate: Tue, 01 Sep 2026 00:00:00 GMT\r\n\
         Content-Type: text/plain\r\nX-Cell: {}\r\nContent-Length: {}\r\n\r\n",
        table::name(cell),
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer.into()
}
