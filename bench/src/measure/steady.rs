//! What a request costs, how many there can be, and how long they take.

use anyhow::Context;

use super::Bench;
use crate::load::{Pace, Reuse};
use crate::record::{Of, median};

/// Whose saturation the common rate is half of.
const YARDSTICK: &str = "nginx";
/// The largest share of its saturation that a proxy is asked for; at a higher
/// one, waiting grows without bound.
const TOO_MUCH: f64 = 0.9;
/// Pieces of load by which the common rate is set.
const CALIBRATIONS: usize = 3;

impl Bench {
    /// All peers in turns: start, memory, saturation, and fixed rates.
    pub(super) fn steady(&mut self) -> anyhow::Result<()> {
        for keys in self.plan.keys.clone() {
            let common = self.common_rates(keys)?;
            for round in 0..self.plan.rounds {
                for peer in self.turns(round) {
                    self.steady_turn(peer, round, keys, &common)?;
                }
            }
        }
        Ok(())
    }

    fn steady_turn(
        &mut self,
        peer: usize,
        round: usize,
        keys: u64,
        common: &[(usize, f64)],
    ) -> anyhow::Result<()> {
        let Some(setting) = self.setting(peer, keys, false)? else {
            return Ok(());
        };
        let name = self.peers[peer].name();
        let (running, seconds) = self.start(peer, &setting)?;
        let of = Of::Start {
            seconds,
            cpu_seconds: running.tree.cpu().as_secs_f64(),
            memory: running.tree.memory(),
        };
        self.record(name, round, keys, of)?;
        if round == 0 {
            self.preflight(name, &running)?;
        }
        for body in self.plan.bodies.clone() {
            let spec = self.spec(&running, body, Reuse::Keepalive, Pace::Closed);
            let saturation = self.load(name, &running, &spec)?;
            let most = saturation.per_second;
            self.record(name, round, keys, Of::Saturation(saturation))?;

            let mut rates = vec![("itself", most / 2.0)];
            let yardstick = common.iter().find(|(b, _)| *b == body);
            rates.extend(yardstick.map(|(_, rate)| (YARDSTICK, *rate)));
            for (half_of, rate) in rates
                .into_iter()
                .filter(|(_, rate)| *rate < most * TOO_MUCH)
            {
                let spec = self.spec(&running, body, Reuse::Keepalive, Pace::Rate(rate));
                let figures = self.load(name, &running, &spec)?;
                let half_of = half_of.to_owned();
                self.record(
                    name,
                    round,
                    keys,
                    Of::Rate {
                        half_of,
                        rate,
                        figures,
                    },
                )?;
            }

            let spec = self.spec(&running, body, Reuse::Never, Pace::Closed);
            let figures = self.load(name, &running, &spec)?;
            self.record(name, round, keys, Of::Saturation(figures))?;
        }
        Ok(())
    }

    /// Half of what the yardstick can do, by size of the body.
    fn common_rates(&mut self, keys: u64) -> anyhow::Result<Vec<(usize, f64)>> {
        let Some(peer) = self.peers.iter().position(|peer| peer.name() == YARDSTICK) else {
            return Ok(Vec::new());
        };
        let Some(setting) = self.setting(peer, keys, false)? else {
            return Ok(Vec::new());
        };
        let (running, _) = self.start(peer, &setting)?;
        let mut rates = Vec::new();
        for body in self.plan.bodies.clone() {
            let mut most = Vec::new();
            for _ in 0..CALIBRATIONS {
                let spec = self.spec(&running, body, Reuse::Keepalive, Pace::Closed);
                most.push(self.load("(calibration)", &running, &spec)?.per_second);
            }
            rates.push((body, median(most).context("no calibration")? / 2.0));
        }
        Ok(rates)
    }
}
