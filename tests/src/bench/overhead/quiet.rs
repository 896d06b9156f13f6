//! The agent where little happens: what it costs to wait, and how long a lonely segment takes to userspace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::observer::{self, OTHER_PORT};
use crate::bed::Bed;
use crate::bench::stages::Stage;
use crate::process::{check_interrupt, pause, scheduled};

/// How long the agent is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

/// What an idle agent costs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Idle {
    /// Of one core, in per cent.
    pub(super) cpu: f64,
    /// How often one of its threads ran, per second.
    pub(super) wakeups: f64,
    /// Anonymous memory, in bytes.
    pub(super) memory: f64,
}

/// Leaves an agent alone for so long.
pub(super) fn idle(bed: &Bed, span: Duration) -> Result<Idle> {
    let mut agent = observer::idle_agent(bed)?;
    pause(SETTLE)?;
    let (cpu, runs) = scheduled(agent.process.id())?;
    pause(span)?;
    let (cpu_after, runs_after) = scheduled(agent.process.id())?;
    let memory = agent.process.memory("RssAnon")? as f64;
    agent.finish()?;
    let seconds = span.as_secs_f64();
    Ok(Idle {
        cpu: cpu_after.saturating_sub(cpu).as_secs_f64() / seconds * 100.0,
        wakeups: runs_after.saturating_sub(runs) as f64 / seconds,
        memory,
    })
}

/// Microseconds from the packet to userspace, and what it costs to be there in time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delay {
    /// Of one core, in per cent.
    pub(super) cpu: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// Sends single segments, `spacing` apart, for so long; one connection, and nothing else on the port.
pub(super) fn delay(bed: &Bed, spacing: Duration, span: Duration) -> Result<Delay> {
    let address = SocketAddr::new(bed.production_address().ip(), OTHER_PORT);
    let listener = bed.production.run(|| Ok(TcpListener::bind(address)?))?;
    let stage = observer::start_stage(Stage::Delay, bed, OTHER_PORT)?;
    let (before, begin) = (scheduled(stage.id())?.0, Instant::now());
    let count = (span.as_secs_f64() / spacing.as_secs_f64()) as u64;
    std::thread::scope(|scope| {
        let sink = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = [0; 256];
            while stream.read(&mut bytes)? > 0 {}
            Ok(())
        });
        bed.client.run(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            for _ in 0..count {
                check_interrupt()?;
                stream.write_all(b"one segment by itself\n")?;
                std::thread::sleep(spacing);
            }
            Ok(())
        })?;
        sink.join().map_err(|_| anyhow::anyhow!("the sink panicked"))?
    })?;
    let used = scheduled(stage.id())?.0.saturating_sub(before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let said = observer::finish_stage(stage)?;
    let segments = said.get("segments").and_then(Value::as_u64).unwrap_or_default();
    ensure!(segments >= count, "{segments} of {count} segments were captured: {said}");
    let at = |position: usize| {
        let value = said.get("delay").and_then(|delay| delay.get(position)).and_then(Value::as_f64);
        value.map(|nanoseconds| nanoseconds / 1e3).with_context(|| format!("no delay in {said}"))
    };
    Ok(Delay { cpu: used * 100.0, p50: at(0)?, p99: at(1)?, max: at(2)? })
}
