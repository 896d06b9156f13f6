//! The test bed itself: what the other tests take for granted.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::{self, Connection};
use shadow_tests::load::{self, Plan};
use shadow_tests::netns::Namespace;
use shadow_tests::servers::{Nginx, Shop};
use shadow_tests::service::{Version, filler};

#[test]
fn a_namespace_goes_with_its_value_and_takes_its_processes_along() -> Result<()> {
    let namespace = Namespace::new("gone")?;
    let path = Path::new("/run/netns").join(namespace.name());
    let mut child = namespace.command("sleep").arg("60").spawn()?;
    shadow_tests::process::pause(std::time::Duration::from_millis(200))?;
    ensure!(path.exists() && child.try_wait()?.is_none());
    drop(namespace);
    ensure!(!path.exists());
    ensure!(!child.wait()?.success(), "the process inside was not killed");
    Ok(())
}

#[test]
fn the_shop_serves_both_address_families_and_logs_every_request() -> Result<()> {
    let bed = Bed::new()?;
    let shop = Shop::start(&bed.production, bed.folder(), "shop", Version::Production, PORT)?;
    let size = 1 << 20;
    for address in [bed.production_address(), bed.production_address_v6()] {
        let reply = bed.client.run(|| Connection::open(address)?.get(&format!("/large?size={size}")))?;
        ensure!(reply.body == filler(size), "{} bytes from {address}", reply.body.len());
    }
    ensure!(shop.requests()?.len() == 2, "the log holds {:?}", shop.requests()?);
    Ok(())
}

#[test]
fn the_versions_differ_where_the_regressions_were_planted() -> Result<()> {
    let bed = Bed::new()?;
    let (folder, shadow) = (bed.folder(), &bed.shadow);
    let _production = Shop::start(shadow, folder, "production", Version::Production, PORT)?;
    let _candidate = Shop::start(shadow, folder, "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let ask = |port: u16, target: &str| shadow.run(|| client::get(([127, 0, 0, 1], port).into(), target));
    for (target, pointer) in [("/products/1", "/price/gross"), ("/users/1", "/loyalty")] {
        let [production, candidate] = [PORT, CANDIDATE_PORT].map(|port| {
            let value: serde_json::Value = serde_json::from_slice(&ask(port, target)?.body)?;
            anyhow::Ok(value.pointer(pointer).cloned())
        });
        ensure!(production? != candidate?, "{target} is the same in both");
    }
    ensure!(ask(PORT, "/coupons/1")?.status == 410 && ask(CANDIDATE_PORT, "/coupons/1")?.status == 404);
    Ok(())
}

#[test]
fn nginx_logs_each_request_of_the_load_generator() -> Result<()> {
    let bed = Bed::new()?;
    std::fs::write(bed.folder().join("file"), filler(1024))?;
    let server = format!("server {{ listen {PORT}; root {}; }}", bed.folder().display());
    let nginx = Nginx::start(&bed.production, bed.folder(), "nginx", PORT, &server)?;
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan {
        address: bed.production_address(),
        rate: 5000,
        count: 10_000,
        connections: 32,
        request: &request,
    };
    let outcome = bed.client.run(|| load::run(&plan))?;
    ensure!(outcome.ok == 10_000 && outcome.failed == 0, "{outcome:?}");
    let lines = nginx.access_log()?;
    ensure!(lines.len() == 10_000, "{} lines", lines.len());
    Ok(())
}
