// Also part of benches/allocations.rs of the edge.
//! The least that a proxy on Pingora can be: it knows some cells and takes them
//! in turn.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Turns {
    cells: Vec<SocketAddr>,
    next: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Turns {
    type CTX = ();

    fn new_ctx(&self) {}

    /// None, as in the edge.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let turn = self.next.fetch_add(1, Relaxed) % self.cells.len();
        Ok(Box::new(HttpPeer::new(
            self.cells[turn],
            false,
            String::new(),
        )))
    }
}

/// Serves on one thread until it is killed.
pub fn serve(listen: &str, cells: Vec<SocketAddr>) -> ! {
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let turns = Turns {
        cells,
        next: AtomicUsize::new(0),
    };
    let mut service = http_proxy_service(&server.configuration, turns);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
