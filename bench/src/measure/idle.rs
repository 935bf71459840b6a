//! What a client costs that is only connected.

use std::time::Duration;

use anyhow::Context;

use super::Bench;
use crate::client::Client;
use crate::load::{Pace, Reuse};
use crate::record::Of;

impl Bench {
    /// Memory before and after many connections have each had one request.
    pub(super) fn idle(&mut self) -> anyhow::Result<()> {
        let keys = self.plan.keys.iter().copied().min().unwrap_or(0);
        for round in 0..self.plan.rounds {
            for peer in self.turns(round) {
                let Some(setting) = self.setting(peer, keys, false)? else {
                    continue;
                };
                let name = self.peers[peer].name();
                let (running, _) = self.start(peer, &setting)?;
                // What the first requests leave behind is not counted.
                let body = self.plan.bodies.first().copied().unwrap_or(128);
                let mut spec = self.spec(&running, body, Reuse::Keepalive, Pace::Closed);
                spec.measure = Duration::from_secs(1);
                self.load(name, &running, &spec)?;
                std::thread::sleep(Duration::from_secs(1));
                let before = running.tree.memory();
                let mut clients = Vec::new();
                for number in 0..self.plan.idle_connections as u64 {
                    let mut client = Client::new(setting.listen);
                    client
                        .get("/128", Some(number % keys))
                        .with_context(|| format!("{name}: idle connection {number}"))?;
                    clients.push(client);
                }
                std::thread::sleep(Duration::from_secs(1));
                let after = running.tree.memory();
                let connections = clients.iter().filter(|client| client.open()).count() as u64;
                let each = after.resident.saturating_sub(before.resident) / connections.max(1);
                eprintln!("{name:>14}: {connections} idle connections, {each} bytes each");
                self.record(
                    name,
                    round,
                    keys,
                    Of::Idle {
                        connections,
                        before,
                        after,
                    },
                )?;
            }
        }
        Ok(())
    }
}
