//! nginx, with a `map` from key to upstream.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, Setting, Way, first_line, unpacked};
use crate::process::Tree;
use crate::table;

const RELOAD: Way = "reload";
const MAP: &str = "keys.map";

pub struct Nginx {
    peers: PathBuf,
    program: PathBuf,
}

impl Nginx {
    pub fn new(peers: &Path) -> Nginx {
        Nginx {
            peers: peers.to_owned(),
            program: peers.join("debian/usr/sbin/nginx"),
        }
    }
}

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn version(&self) -> anyhow::Result<String> {
        let mut command = unpacked(&self.peers, "usr/sbin/nginx");
        command.arg("-v");
        Ok(first_line(command)?.replace("nginx version: nginx/", "nginx "))
    }

    fn set_up(&self, setting: &Setting) -> anyhow::Result<()> {
        std::fs::create_dir_all(setting.path("tmp"))?;
        setting.write("nginx.conf", |file| {
            file.write_all(configuration(setting).as_bytes())
        })?;
        self.write_table(setting, MAP)
    }

    fn command(&self, setting: &Setting, _way: Option<Way>) -> Command {
        let mut command = unpacked(&self.peers, "usr/sbin/nginx");
        command.arg("-p").arg(&setting.dir);
        command.arg("-c").arg(setting.path("nginx.conf"));
        command.arg("-e").arg(setting.path("error.log"));
        command
    }

    fn ways(&self, _setting: &Setting) -> Vec<Way> {
        vec![RELOAD]
    }

    fn write_table(&self, setting: &Setting, name: &str) -> anyhow::Result<()> {
        setting.write(name, |file| {
            setting
                .table
                .write(file, |to, key, cell| writeln!(to, "{key} {cell};"))
        })
    }

    fn apply(&self, setting: &Setting, _way: Way, file: &str, tree: &Tree) -> anyhow::Result<()> {
        setting.replace(MAP, file)?;
        tree.signal(libc::SIGHUP)
    }
}

fn configuration(setting: &Setting) -> String {
    let dir = setting.dir.display();
    let listen = setting.listen;
    let user = match is_root() {
        true => "user root;",
        false => "",
    };
    let upstreams: String = setting
        .cells
        .iter()
        .enumerate()
        .map(|(cell, address)| {
            let name = table::name(cell);
            format!(
                "    upstream {name} {{ server {address}; keepalive 256; \
                 keepalive_requests 1000000000; keepalive_timeout 90s; }}\n"
            )
        })
        .collect();
    let log = match setting.access_log {
        true => format!("access_log {dir}/access.log line buffer=64k flush=1s;"),
        false => "access_log off;".to_owned(),
    };
    // Room for all keys at first try: nginx makes a table larger until no bucket is full.
    let buckets = (setting.table.keys * 2).max(2048);
    let default = table::name(table::DEFAULT);
    format!(
        r#"daemon off;
{user}
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    client_body_temp_path {dir}/tmp/body;
    proxy_temp_path {dir}/tmp/proxy;
    fastcgi_temp_path {dir}/tmp/fastcgi;
    uwsgi_temp_path {dir}/tmp/uwsgi;
    scgi_temp_path {dir}/tmp/scgi;
    log_format line escape=json '{{"timestamp":"$time_iso8601","request_id":"$id","method":"$request_method","path":"$request_uri","routing_key":"$http_x_routing_key","placement_key":"$cell","route_reason":"$reason","upstream_url":"$proxy_host","status_code":$status,"duration_ms":$request_time,"client":"$remote_addr:$remote_port","bytes_sent":$body_bytes_sent,"upstream_address":"$upstream_addr"}}';
    {log}
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 60s;
    keepalive_requests 1000000000;
    client_header_timeout 15s;
    client_max_body_size 10m;
    # A body of 64 KiB fits, and none goes to disk.
    proxy_buffers 16 8k;
    proxy_busy_buffers_size 64k;
    proxy_max_temp_file_size 0;
    map_hash_max_size {buckets};
    map_hash_bucket_size 256;
    map $http_x_routing_key $cell {{ default {default}; include {dir}/{MAP}; }}
    map $cell $reason {{ default tier; {default} default; }}
    map $http_x_request_id $id {{ default $http_x_request_id; "" $request_id; }}
{upstreams}
    server {{
        listen {listen} backlog=4096;
        location / {{
            if ($http_x_routing_key = "") {{ return 400; }}
            proxy_pass http://$cell;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Request-Id $id;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_connect_timeout 5s;
            proxy_read_timeout 60s;
            proxy_send_timeout 60s;
            add_header X-Routed-To $cell;
            add_header X-Route-Reason $reason;
            add_header X-Request-Id $id;
        }}
    }}
}}
"#
    )
}

/// Its worker gives up root's rights, and with them this directory, unless told otherwise.
fn is_root() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::geteuid() == 0 }
}
