//! Bodies larger than any buffer: they stream through the edge, and its memory stays constant.
//!
//! 256 MiB each way; with CELLGATE_SOAK=full, 1 GiB.

use std::time::{Duration, Instant};

use crate::harness::{
    Cell, Edge, Framing, document, memory, peak_memory, placements, reset_peak_memory, table,
};

const BLOCK: usize = 64 * 1024;
/// The most that memory may grow: room for a few buffers, independent of the size of the body.
const FLAT: u64 = 24 << 20;

fn size() -> usize {
    let mebibytes = if crate::soak::full() { 1024 } else { 256 };
    mebibytes << 20
}

/// A cell that counts the bytes of a body and responds with the count; a GET gets `size()` bytes.
async fn warehouse() -> Cell {
    Cell::scripted("tier1", |mut conn| async move {
        conn.wire.patience(Duration::from_secs(120));
        while let Some(head) = conn.head().await? {
            if head.method() == "GET" {
                send(&mut conn, head.target() == "/chunked").await?;
                continue;
            }
            let count = count(&mut conn, head.framing()).await?.to_string();
            let length = count.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{count}");
            conn.wire.send(answer.as_bytes()).await?;
        }
        Ok(())
    })
    .await
}

async fn count(conn: &mut crate::harness::Conn, framing: Framing) -> std::io::Result<usize> {
    let mut count = 0;
    match framing {
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(std::io::Error::other)?;
            while count < length {
                count += conn.wire.exactly(BLOCK.min(length - count)).await?.len();
            }
        }
        _ => loop {
            let chunk = conn.wire.chunk().await?;
            if chunk.is_empty() {
                conn.wire.through(b"\r\n").await?;
                break;
            }
            count += chunk.len();
        },
    }
    Ok(count)
}

async fn send(conn: &mut crate::harness::Conn, chunked: bool) -> std::io::Result<()> {
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", size()),
    };
    conn.wire
        .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes())
        .await?;
    let block = block(chunked);
    for _ in 0..size() / BLOCK {
        conn.wire.send(&block).await?;
    }
    if chunked {
        conn.wire.send(b"0\r\n\r\n").await
    } else {
        Ok(())
    }
}

/// One block of a body, as a chunk or plain.
fn block(chunked: bool) -> Vec<u8> {
    let data = vec![b'd'; BLOCK];
    if !chunked {
        return data;
    }
    [format!("{BLOCK:x}\r\n").as_bytes(), &data, b"\r\n"].concat()
}

async fn edge(cell: &Cell) -> Edge {
    let routes = table(&[("acme", "tier1")]);
    let edge = Edge::serving(&document("1", routes, placements(&[cell]), "tier1")).await;
    // A first request, so that one-time allocations are made before memory is measured.
    let warm = "PUT / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(edge.exchange(warm).await.text(), "1");
    edge
}

/// Runs `transfer` and asserts that the edge's memory did not grow with the body.
async fn flat(edge: &Edge, what: &str, transfer: impl Future<Output = ()>) {
    reset_peak_memory(edge.pid());
    let before = memory(edge.pid());
    let began = Instant::now();
    transfer.await;
    let took = began.elapsed();
    let grown = peak_memory(edge.pid()).saturating_sub(before);
    let rate = size() as f64 / took.as_secs_f64() / 1e6;
    eprintln!(
        "{what}: {} MiB in {took:.1?} ({rate:.0} MB/s), memory +{} KiB",
        size() >> 20,
        grown >> 10
    );
    assert!(grown < FLAT, "{what}: the memory grew by {grown} bytes");
}

async fn upload(chunked: bool) {
    let cell = warehouse().await;
    let edge = edge(&cell).await;
    let mut client = edge.client().await;
    client.patience(Duration::from_secs(120));
    flat(
        &edge,
        if chunked { "chunked upload" } else { "upload" },
        async {
            let framing = match chunked {
                true => "Transfer-Encoding: chunked".to_owned(),
                false => format!("Content-Length: {}", size()),
            };
            client
                .send(format!(
                    "PUT / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n{framing}\r\n\r\n"
                ))
                .await;
            let block = block(chunked);
            for _ in 0..size() / BLOCK {
                client.send(&block).await;
            }
            if chunked {
                client.send("0\r\n\r\n").await;
            }
            let response = client.response().await;
            assert_eq!(
                (response.status, response.text()),
                (200, size().to_string())
            );
        },
    )
    .await;
}

async fn download(chunked: bool) {
    let cell = warehouse().await;
    let edge = edge(&cell).await;
    let mut client = edge.client().await;
    client.patience(Duration::from_secs(120));
    flat(
        &edge,
        if chunked {
            "chunked download"
        } else {
            "download"
        },
        async {
            let path = if chunked { "/chunked" } else { "/" };
            client.ask("acme", path).await;
            let head = client
                .wire()
                .head()
                .await
                .expect("a head")
                .expect("an answer");
            assert_eq!(head.status(), 200);
            let mut received = 0;
            while received < size() {
                received += match head.framing() {
                    Framing::Chunked => client.wire().chunk().await.expect("a chunk").len(),
                    _ => client.wire().exactly(BLOCK).await.expect("a block").len(),
                };
            }
            assert_eq!(received, size());
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_stream() {
    upload(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_uploads_stream() {
    upload(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_stream() {
    download(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_downloads_stream() {
    download(true).await;
}
