//! `bare-pingora LISTEN CELL...`: what Cellgate is built on, without Cellgate.

use mimalloc::MiMalloc;

mod proxy;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments
        .next()
        .expect("usage: bare-pingora LISTEN CELL...");
    let cells = arguments.map(|cell| cell.parse().expect("a cell is an address and a port"));
    proxy::serve(&listen, cells.collect())
}
