use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::http::{Lifecycle, Refusal};

const LONG: Duration = Duration::from_secs(30);
const HEADER_BYTES: usize = 65_536;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The client's end of a connection.
trait Pipe: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Pipe for T {}

fn over(stream: impl ClientStream, peer: SocketAddr) -> ClientConn {
    let config = ConnConfig {
        client_header: LONG,
        client_idle: LONG,
        deadlines: Deadlines {
            response_header: LONG,
            request: 2 * LONG,
            stream_idle: LONG,
        },
        header_bytes: HEADER_BYTES,
    };
    let slot = Arc::new(Lifecycle::new()).connection();
    let client = Client::new(peer, None, Transport::Plain);
    ClientConn::new(Box::new(stream), client, Arc::new(config), slot)
}

/// A connection over a pipe that holds `size` bytes.
fn piped(size: usize) -> (DuplexStream, ClientConn) {
    let (client, server) = duplex(size);
    (
        client,
        over(server, SocketAddr::from(([192, 0, 2, 1], 4000))),
    )
}

async fn connected() -> io::Result<(TcpStream, ClientConn)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (tcp, peer) = listener.accept().await?;
    Ok((client, over(tcp, peer)))
}

/// Asks for the next request, which is not there.
fn is_idle(conn: &mut ClientConn) -> bool {
    let mut next = pin!(conn.next());
    next.as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
}

fn buffers(conn: &ClientConn) -> (usize, usize) {
    (conn.input.capacity(), conn.output.capacity())
}

async fn expect_read(conn: &mut ClientConn, expected: &[u8]) -> io::Result<()> {
    let mut read = vec![0; expected.len()];
    conn.read_exact(&mut read).await?;
    assert_eq!(
        String::from_utf8_lossy(&read),
        String::from_utf8_lossy(expected)
    );
    Ok(())
}

async fn answer(conn: &mut ClientConn) -> io::Result<()> {
    conn.write_all(ANSWER).await?;
    conn.flush().await?;
    conn.request_finished();
    Ok(())
}

#[tokio::test]
async fn a_connection_without_a_request_has_no_buffers() -> io::Result<()> {
    let (mut pipe, piped) = piped(65_536);
    let (mut tcp, connected) = connected().await?;
    for (client, mut conn) in [(&mut pipe as &mut dyn Pipe, piped), (&mut tcp, connected)] {
        for long in ["", "x", &"y".repeat(20_000)] {
            assert!(is_idle(&mut conn));
            assert_eq!(buffers(&conn), (0, 0));

            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nLong: {long}\r\n\r\n");
            client.write_all(request.as_bytes()).await?;
            assert!(conn.next().await);
            // Asking again changes nothing.
            assert!(conn.next().await);
            expect_read(&mut conn, request.as_bytes()).await?;
            answer(&mut conn).await?;
            let mut arrived = vec![0; ANSWER.len()];
            client.read_exact(&mut arrived).await?;
            assert_eq!(arrived, ANSWER);
        }
        // Half a request is kept.
        let (begin, end) = REQUEST.split_at(10);
        client.write_all(begin).await?;
        while conn.end < begin.len() {
            assert!(is_idle(&mut conn));
            tokio::task::yield_now().await;
        }
        assert_ne!(conn.input.capacity(), 0);
        client.write_all(end).await?;
        assert!(conn.next().await);
    }
    Ok(())
}

#[tokio::test]
async fn pipelined_requests_are_handed_out_one_at_a_time() -> io::Result<()> {
    let (mut client, mut conn) = piped(65_536);
    let pipelined = [POST, b"abc", b"\r\n", POST, b"def", REQUEST].concat();
    client.write_all(&pipelined).await?;
    for (head, body) in [(POST, "abc"), (POST, "def"), (REQUEST, "")] {
        assert!(conn.next().await);
        assert!(!conn.downstream().is_whole());
        let whole = [head, body.as_bytes()].concat();
        expect_read(&mut conn, &whole).await?;
        assert!(conn.downstream().is_whole());
        // Nothing of the next one.
        let mut more = [0; 1];
        let mut read = pin!(conn.read(&mut more));
        let read = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(read.is_pending());
        answer(&mut conn).await?;
    }
    assert!(is_idle(&mut conn));
    assert_eq!(buffers(&conn), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_head_that_begins_with_the_end_of_a_body_is_read_in_one_go() -> io::Result<()> {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut conn) = piped(65_536);
    client.write_all(HEAD).await?;
    assert!(conn.next().await);
    expect_read(&mut conn, HEAD).await?;
    let (begin, end) = REQUEST.split_at(1);
    client.write_all(&[b"0\r\n\r\n", begin].concat()).await?;
    expect_read(&mut conn, b"0\r\n\r\n").await?;
    assert!(conn.downstream().is_whole());
    conn.request_finished();
    client.write_all(end).await?;
    assert!(conn.next().await);
    assert!(conn.input.len() >= BUFFER);
    expect_read(&mut conn, REQUEST).await
}

#[tokio::test]
async fn what_is_written_in_any_pieces_arrives_in_order() -> io::Result<()> {
    let piece = |length: usize, byte: u8| vec![byte; length];
    // Around the size of the buffer, and more than the stream takes at once.
    let pieces = [
        piece(300, b'a'),
        piece(BUFFER - 300, b'b'),
        piece(1, b'c'),
        piece(BUFFER, b'd'),
        piece(300, b'e'),
        piece(20 << 20, b'f'),
        piece(300, b'g'),
        piece(BUFFER - 299, b'h'),
    ];
    let all = pieces.concat();
    let (mut tcp, connected) = connected().await?;
    let (mut pipe, piped) = piped(1000);
    for (client, mut conn) in [(&mut pipe as &mut dyn Pipe, piped), (&mut tcp, connected)] {
        let write = async {
            for piece in &pieces {
                conn.write_all(piece).await?;
            }
            conn.flush().await
        };
        let mut arrived = vec![0; all.len()];
        let (written, read) = tokio::join!(write, client.read_exact(&mut arrived));
        written?;
        read?;
        assert!(arrived == all);
    }
    Ok(())
}

#[tokio::test]
async fn there_is_no_next_request_from_a_client_that_is_gone() -> io::Result<()> {
    let (client, mut conn) = piped(1024);
    drop(client);
    assert!(!conn.next().await);

    let (mut client, mut conn) = piped(1024);
    client.write_all(b"GET / HTTP/1.1\r\nHo").await?;
    drop(client);
    assert!(!conn.next().await);
    Ok(())
}

#[tokio::test]
async fn a_refused_request_is_the_last() -> io::Result<()> {
    let (mut client, mut conn) = piped(1024);
    client.write_all(b"no request\r\n\r\n").await?;
    client.write_all(REQUEST).await?;
    assert!(conn.next().await, "it has to be answered");
    assert!(matches!(
        conn.downstream().refusal(),
        Some(Refusal::Malformed(_))
    ));
    let mut stand_in = [0; 1024];
    assert!(conn.read(&mut stand_in).await? > 0);
    conn.request_finished();
    assert!(!conn.next().await);
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_its_framing_ends_the_request() -> io::Result<()> {
    let (mut client, mut conn) = piped(1024);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(&[head, &b";\r\n"[..]].concat()).await?;
    assert!(conn.next().await);
    expect_read(&mut conn, head).await?;
    let read = conn.read(&mut [0; 10]).await;
    assert_eq!(
        read.map_err(|error| error.kind()),
        Err(io::ErrorKind::InvalidData)
    );
    let fault = conn.downstream().fault();
    assert_eq!(fault, Some(Fault::BadBody("chunk size")));
    Ok(())
}

/// Which deadline ends the request that `client` sent, and after how many seconds.
async fn expires(conn: &mut ClientConn) -> (Option<Fault>, u64) {
    let began = Instant::now();
    let mut sink = [0; 1024];
    let error = loop {
        match conn.read(&mut sink).await {
            Ok(0) => panic!("the client is there"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    (conn.downstream().fault(), began.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn each_part_of_an_exchange_has_its_deadline() -> io::Result<()> {
    let late = |expiry| Some(Fault::Expired(expiry));
    let begin = async |head: &[u8]| {
        let (mut client, mut conn) = piped(1024);
        client.write_all(head).await?;
        assert!(conn.next().await);
        io::Result::Ok((client, conn))
    };
    let (_client, mut conn) = begin(POST).await?;
    assert_eq!(expires(&mut conn).await, (late(Expiry::RequestBody), 30));

    // A client that waits for 100 owes no body yet.
    let (_client, mut conn) = begin(POST).await?;
    conn.downstream().expects_continue();
    assert_eq!(expires(&mut conn).await, (late(Expiry::ResponseHeader), 30));

    let (_client, mut conn) = begin(REQUEST).await?;
    assert_eq!(expires(&mut conn).await, (late(Expiry::ResponseHeader), 30));

    let (_client, mut conn) = begin(REQUEST).await?;
    conn.downstream().set_deadlines(Deadlines {
        response_header: LONG,
        request: LONG / 3,
        stream_idle: LONG,
    });
    assert_eq!(expires(&mut conn).await, (late(Expiry::Request), 10));
    assert_eq!(conn.downstream().request_time_left(), Duration::ZERO);

    let (_client, mut conn) = begin(REQUEST).await?;
    conn.downstream().response_started();
    assert_eq!(expires(&mut conn).await, (late(Expiry::Stream), 30));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() -> io::Result<()> {
    let (mut client, mut conn) = piped(1024);
    client.write_all(REQUEST).await?;
    assert!(conn.next().await);
    let written = conn.write_all(&[0; 100_000]).await;
    assert_eq!(
        written.map_err(|error| error.kind()),
        Err(io::ErrorKind::TimedOut)
    );
    let fault = conn.downstream().fault();
    assert_eq!(fault, Some(Fault::Expired(Expiry::ClientStalled)));
    Ok(())
}

#[tokio::test]
async fn an_exchange_that_is_still_held_does_not_touch_the_next_request() -> io::Result<()> {
    let (mut client, mut conn) = piped(1024);
    client.write_all(&[POST, b"abc", REQUEST].concat()).await?;
    assert!(conn.next().await);
    expect_read(&mut conn, &[POST, b"abc"].concat()).await?;
    let first = Arc::clone(conn.downstream());
    answer(&mut conn).await?;
    assert!(conn.next().await);
    first.tunnel_started();
    assert!(first.is_whole() && !conn.downstream().is_whole());
    expect_read(&mut conn, REQUEST).await?;
    assert!(!conn.downstream().is_tunnel());
    Ok(())
}
