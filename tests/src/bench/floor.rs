//! The floor of replaying: a bare pooled hyper client that sends requests at a fixed rate and reads the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use crate::process::cpu_of;

/// How often a batch of requests leaves; a timer a request would cost more than the request.
const TICK: Duration = Duration::from_millis(2);
const CONCURRENCY: usize = 64;

/// Sends `count` requests at `rate` a second and returns how many were answered by 200, and the CPU time of this
/// process.
///
/// # Errors
/// When the runtime or the requests cannot be made.
pub fn run(address: SocketAddr, rate: u32, count: u64) -> Result<(u64, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ok = runtime.block_on(send(address, rate, count))?;
    Ok((ok, cpu_of(std::process::id())?))
}

async fn send(address: SocketAddr, rate: u32, count: u64) -> Result<u64> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    let ok = Arc::new(AtomicU64::new(0));
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let per_tick = f64::from(rate) * TICK.as_secs_f64();
    let mut sent = 0_u64;
    let mut due = 0.0;
    while sent < count {
        ticks.tick().await;
        due += per_tick;
        while (sent as f64) < due && sent < count {
            let request = Request::get(format!("http://{address}/file?n={sent}")).body(Empty::new())?;
            sent += 1;
            let slot = Arc::clone(&slots).acquire_owned().await.context("slots")?;
            let (client, ok) = (client.clone(), Arc::clone(&ok));
            tokio::spawn(async move {
                if let Ok(answer) = client.request(request).await {
                    let good = answer.status() == 200;
                    if answer.into_body().collect().await.is_ok() && good {
                        ok.fetch_add(1, Ordering::Relaxed);
                    }
                }
                drop(slot);
            });
        }
    }
    let _all = slots.acquire_many(u32::try_from(CONCURRENCY)?).await.context("slots")?;
    Ok(ok.load(Ordering::Relaxed))
}
