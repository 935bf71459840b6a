use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::http::Lifecycle;

const LONG: Duration = Duration::from_secs(30);
const HEADER_BYTES: usize = 65_536;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

async fn connected() -> io::Result<(TcpStream, ClientConn)> {
    connected_with(None).await
}

async fn connected_with(
    origin_fields: Option<OriginFields>,
) -> io::Result<(TcpStream, ClientConn)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (tcp, peer) = listener.accept().await?;
    let config = ConnConfig {
        client_header: LONG,
        client_idle: LONG,
        stream_idle: LONG,
        response_header: LONG,
        request: LONG,
        header_bytes: HEADER_BYTES,
        origin_fields,
    };
    let slot = Arc::new(Lifecycle::new()).connection();
    Ok((client, ClientConn::new(tcp, peer, Arc::new(config), slot)))
}

/// Asks for the next request, which is not there.
fn rests(conn: &mut ClientConn) -> bool {
    let mut next = pin!(conn.next());
    next.as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
}

fn buffers(conn: &ClientConn) -> (usize, usize) {
    (conn.input.capacity(), conn.output.capacity())
}

#[tokio::test]
async fn a_connection_without_a_request_has_no_buffers() -> io::Result<()> {
    let (mut client, mut conn) = connected().await?;
    for long in ["", "x", &"y".repeat(20_000)] {
        assert!(rests(&mut conn));
        assert_eq!(buffers(&conn), (0, 0));

        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nLong: {long}\r\n\r\n");
        client.write_all(request.as_bytes()).await?;
        assert!(conn.next().await);
        // Asking again changes nothing.
        assert!(conn.next().await);
        let mut read = vec![0; request.len()];
        conn.read_exact(&mut read).await?;
        assert_eq!(read, request.as_bytes());
        conn.write_all(ANSWER).await?;
        conn.flush().await?;
        conn.request_finished();
        let mut answer = vec![0; ANSWER.len()];
        client.read_exact(&mut answer).await?;
        assert_eq!(answer, ANSWER);
    }
    // A request that is half there keeps what there is of it.
    let (begin, end) = REQUEST.split_at(10);
    client.write_all(begin).await?;
    conn.tcp.as_ref().expect("open").readable().await?;
    assert!(rests(&mut conn));
    assert_ne!(conn.input.capacity(), 0);
    client.write_all(end).await?;
    assert!(conn.next().await);
    Ok(())
}

#[tokio::test]
async fn a_head_that_begins_with_the_end_of_a_body_is_read_in_one_go() -> io::Result<()> {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut conn) = connected().await?;
    client.write_all(HEAD).await?;
    assert!(conn.next().await);
    let mut read = vec![0; HEAD.len()];
    conn.read_exact(&mut read).await?;
    let (begin, end) = REQUEST.split_at(1);
    client.write_all(&[b"0\r\n\r\n", begin].concat()).await?;
    let mut body = [0; 5];
    conn.read_exact(&mut body).await?;
    assert!(conn.is_whole());
    conn.request_finished();
    client.write_all(end).await?;
    assert!(conn.next().await);
    assert!(conn.input.len() >= buffers::SIZE);
    let mut read = vec![0; REQUEST.len()];
    conn.read_exact(&mut read).await?;
    assert_eq!(read, REQUEST);
    Ok(())
}

#[tokio::test]
async fn what_is_written_in_any_pieces_arrives_in_order() -> io::Result<()> {
    let (mut client, mut conn) = connected().await?;
    let piece = |length: usize, byte: u8| vec![byte; length];
    // Around the size of the buffer, and more than the socket takes at once.
    let pieces = [
        piece(300, b'a'),
        piece(buffers::SIZE - 300, b'b'),
        piece(1, b'c'),
        piece(buffers::SIZE, b'd'),
        piece(300, b'e'),
        piece(20 << 20, b'f'),
        piece(300, b'g'),
        piece(buffers::SIZE - 299, b'h'),
    ];
    let all = pieces.concat();
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
    Ok(())
}

#[tokio::test]
async fn announced_fields_come_after_the_status_line_of_any_head() -> io::Result<()> {
    for long in [10, buffers::SIZE, 3 * buffers::SIZE] {
        let (mut client, mut conn) = connected().await?;
        conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        conn.announce(|lines| lines.extend_from_slice(b"X: y\r\n"));
        let rest = format!("Long: {}\r\n\r\n", "z".repeat(long));
        conn.write_all(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes())
            .await?;
        conn.write_all(&vec![b'.'; 2 * buffers::SIZE]).await?;
        conn.flush().await?;
        drop(conn);
        let mut arrived = String::new();
        client.read_to_string(&mut arrived).await?;
        let body = ".".repeat(2 * buffers::SIZE);
        let head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n";
        assert!(arrived == format!("{head}{rest}{body}"), "{long}");
    }
    Ok(())
}

#[tokio::test]
async fn there_is_no_next_request_from_a_client_that_is_gone() -> io::Result<()> {
    let (client, mut conn) = connected().await?;
    drop(client);
    assert!(!conn.next().await);

    let (mut client, mut conn) = connected().await?;
    client.write_all(b"GET / HTTP/1.1\r\nHo").await?;
    drop(client);
    assert!(!conn.next().await);
    Ok(())
}

#[tokio::test]
async fn a_refused_request_is_the_last() -> io::Result<()> {
    let (mut client, mut conn) = connected().await?;
    client.write_all(b"no request\r\n\r\n").await?;
    assert!(conn.next().await, "it has to be answered");
    assert!(conn.refusal().is_some());
    let mut stand_in = [0; 1024];
    assert!(conn.read(&mut stand_in).await? > 0);
    conn.request_finished();
    assert!(!conn.next().await);
    Ok(())
}

/// Some lines about a client, and as many about its host as that says.
fn lines(client: &HeaderValue, host: &[u8], lines: &mut Vec<u8>) {
    let host = String::from_utf8_lossy(host);
    let client = client.to_str().unwrap_or_default();
    lines.extend_from_slice(format!("From: {client}\r\n").as_bytes());
    let count = host.parse().unwrap_or(1);
    lines.extend_from_slice(format!("To: {host}\r\n").repeat(count).as_bytes());
}

#[tokio::test]
async fn a_head_gets_fields_and_what_follows_it_does_not() -> io::Result<()> {
    let (mut client, mut conn) = connected_with(Some(lines)).await?;
    let body = "0123456789";
    let post =
        |host: &str| format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n");
    // What is added to the first fits the buffer, to the second it does not, to the third
    // it goes before all that is there; the fourth tells of itself, and the fifth is so
    // large that it could not be parsed with more.
    let told = "GET / HTTP/1.1\r\nHost: c\r\nX-Request-Id: 1\r\n\r\n";
    let large = format!("Host: b\r\nLong: {}\r\n\r\n", "x".repeat(HEADER_BYTES - 50));
    let large = format!("GET / HTTP/1.1\r\n{large}");
    assert!(large.len() <= HEADER_BYTES && large.len() > HEADER_BYTES - 30);
    let (first, second, third) = (post("a"), post("700"), post("2"));
    let pipelined = format!("{first}{body}{second}{body}\r\n{third}{body}{told}{large}");
    client.write_all(pipelined.as_bytes()).await?;
    for (head, body, added) in [
        (post("a"), body, "From: 127.0.0.1\r\nTo: a\r\n".to_owned()),
        (
            post("700"),
            body,
            format!("From: 127.0.0.1\r\n{}", "To: 700\r\n".repeat(700)),
        ),
        (
            post("2"),
            body,
            format!("From: 127.0.0.1\r\n{}", "To: 2\r\n".repeat(2)),
        ),
        (told.to_owned(), "", String::new()),
        (large, "", String::new()),
    ] {
        assert!(conn.next().await);
        let (head, end) = head.split_at(head.len() - 2);
        let expected = format!("{head}{added}{end}{body}");
        let mut read = vec![0; expected.len()];
        conn.read_exact(&mut read).await?;
        assert_eq!(String::from_utf8_lossy(&read), expected);
        assert_eq!(conn.told_origin(), !added.is_empty());
        assert!(conn.is_whole());
        conn.write_all(ANSWER).await?;
        conn.flush().await?;
        conn.request_finished();
    }
    assert!(rests(&mut conn));
    assert_eq!(buffers(&conn), (0, 0));
    Ok(())
}
