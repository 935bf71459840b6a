//! Bytes that no edge would send.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Setup, Site, within};

const HANDSHAKE: &str = "GET /connect HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: cellgate.v1\r\n\r\n";

/// A frame of a client, as large as `announced` says.
fn frame(opcode: u8, announced: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode, 0x80 | 127];
    frame.extend(announced.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The code of the close frame that comes, after nothing but pings.
async fn closed(stream: &mut TcpStream) -> u16 {
    let read = async {
        loop {
            let (first, length) = (stream.read_u8().await?, stream.read_u8().await?);
            // Of control frames, neither masked nor long.
            let mut payload = vec![0; usize::from(length)];
            stream.read_exact(&mut payload).await?;
            match (first, &payload[..]) {
                (0x88, [high, low, ..]) => return Ok(u16::from_be_bytes([*high, *low])),
                (0x89, _) => {}
                other => panic!("{other:?} where a close was due"),
            }
        }
    };
    let code: std::io::Result<u16> = within("a close", read).await;
    code.unwrap()
}

/// Whatever comes, the connection ends, and others do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_one_connection_only() {
    let site = Site::with(Setup::default(), 3).await;
    let mut other = site.synced("edge-1").await;
    let mut random = StdRng::seed_from_u64(7);
    let mut noise = || {
        let mut bytes = vec![0; 4096];
        random.fill(&mut bytes[..]);
        bytes
    };
    let mut all = vec![
        // Announced as the largest there is, and as one byte too many.
        (Some(1009), frame(0x81, u64::MAX, b"{")),
        (Some(1009), frame(0x81, u64::MAX / 2, b"{")),
        (Some(1009), frame(0x81, 256 * 1024 + 1, b"{")),
        // Text that is none, a reserved opcode, a fragment of nothing, a ping that
        // is too long, and a frame without a mask.
        (Some(1007), frame(0x81, 2, &[0xff, 0xfe])),
        (Some(1002), frame(0x83, 2, b"{}")),
        (Some(1002), frame(0x80, 2, b"{}")),
        (Some(1002), frame(0x89, 200, &[0; 200])),
        (Some(1002), vec![0x81, 2, b'{', b'}']),
        (Some(1002), b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        // No message there is, and a binary one.
        (Some(1007), frame(0x81, 1, b"{")),
        (Some(1002), frame(0x82, 2, b"{}")),
    ];
    // Which may look like the beginning of something.
    all.extend((0..20).map(|_| (None, noise())));
    for (code, bytes) in all {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = within("an answer", stream.read_u8()).await.unwrap();
            head.push(byte);
        }
        assert_eq!(&head[9..12], b"101");
        // It may be closed before all of it is written.
        let _ = stream.write_all(&bytes).await;
        match code {
            // With the socket open on this side: it is the garbage that ends it.
            Some(code) => assert_eq!(closed(&mut stream).await, code, "{bytes:?}"),
            None => {
                let _ = stream.shutdown().await;
                let mut rest = Vec::new();
                let _ = within("the end", stream.read_to_end(&mut rest)).await;
            }
        }
    }
    site.set("key-0", "two").await;
    let delta = other.delta().await;
    other.ack(delta.mark()).await;
    site.until("the ack", |site| site.edges.counts().in_sync == 1)
        .await;
    assert_eq!(site.edges.connected(), 1);
}

/// A fragment after the other, and never an end.
#[tokio::test]
async fn a_message_without_end_is_too_large_in_the_end() {
    let site = Site::with(Setup::default(), 3).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writes = tokio::spawn(async move {
        let part = vec![b' '; 4096];
        let mut opcode = 0x01;
        let mut sent = 0;
        while write.write_all(&frame(opcode, 4096, &part)).await.is_ok() && sent < 64 << 20 {
            opcode = 0x00;
            sent += part.len();
        }
        sent
    });
    let mut answer = Vec::new();
    let _ = within("the end", read.read_to_end(&mut answer)).await;
    let close = 1009_u16.to_be_bytes();
    assert!(
        answer.windows(2).any(|pair| pair == close),
        "no close with 1009"
    );
    drop(read);
    let sent = within("no more is taken", writes).await.unwrap();
    assert!(sent < 32 << 20, "{sent} bytes were taken");
}
