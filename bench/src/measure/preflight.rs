//! Whether a proxy does what it is measured for.

use std::net::IpAddr;

use anyhow::{Context, ensure};

use super::{Bench, Running};
use crate::client::{Client, field};
use crate::load::Expect;
use crate::table;

impl Bench {
    /// Checks, with a few requests, that the proxy does all that the others do.
    pub(super) fn preflight(&self, name: &str, running: &Running) -> anyhow::Result<()> {
        if running.expect == Expect::Routed {
            check(running).with_context(|| format!("{name} is not set up as the others are"))?;
        }
        Ok(())
    }
}

fn check(running: &Running) -> anyhow::Result<()> {
    let table = running.setting.table;
    let mut client = Client::new(running.setting.listen);
    for number in [0, 1, table.keys / 2, table.keys - 1, table.keys + 7] {
        let cell = table::name(table.cell(number));
        let answer = client.get("/head", Some(number))?;
        ensure!(answer.status == 200, "key {number}: {}", answer.head);
        let says = |name: &str| answer.field(name).unwrap_or_default().to_owned();
        ensure!(
            says("x-cell") == cell,
            "key {number}: {} for {cell}",
            says("x-cell")
        );
        ensure!(
            says("x-routed-to") == cell,
            "X-Routed-To: {:?}",
            says("x-routed-to")
        );
        let reason = if number < table.keys {
            "tier"
        } else {
            "default"
        };
        ensure!(
            says("x-route-reason") == reason,
            "X-Route-Reason: {:?}",
            says("x-route-reason")
        );

        let head = String::from_utf8_lossy(&answer.body);
        let forwarded = |name: &str| field(&head, name).unwrap_or_default().to_owned();
        let id = forwarded("x-request-id");
        ensure!(id.len() >= 16, "X-Request-Id towards the cell: {id:?}");
        ensure!(
            says("x-request-id") == id,
            "X-Request-Id: {:?}",
            says("x-request-id")
        );
        // Envoy names a client of the same machine by another address of it.
        let client = forwarded("x-forwarded-for").parse::<IpAddr>();
        ensure!(client.is_ok(), "X-Forwarded-For: {head}");
        ensure!(
            forwarded("x-forwarded-proto") == "http",
            "X-Forwarded-Proto: {head}"
        );
        ensure!(
            forwarded("x-forwarded-host") == running.setting.listen.to_string(),
            "X-Forwarded-Host: {head}"
        );
    }
    let keyless = client.get("/128", None)?;
    ensure!(keyless.status == 400, "without a key: {}", keyless.head);
    Ok(())
}
