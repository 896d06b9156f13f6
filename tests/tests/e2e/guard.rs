//! The CPU guard: under more load than the agent may take, it captures fewer flows, says so, and comes back.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent;
use shadow_tests::bed::Bed;
use shadow_tests::metrics::Scrape;

use crate::site::{self, is_quiet, load, lost, packets, until};

/// How long the guard may take for a few steps either way.
const STEPS: Duration = Duration::from_secs(90);

fn sample(metrics: &Scrape) -> f64 {
    metrics.sum("shadow_capture_sample_ratio", &[]).unwrap_or_default()
}

fn steps(metrics: &Scrape, direction: &str) -> u64 {
    metrics.count("shadow_guard_steps_total", &[("guard", "cpu"), ("direction", direction)])
}

#[test]
fn sampling_goes_down_under_load_and_up_again_after_it_and_the_books_balance() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = site::servers(&bed, 1024)?;
    let mut agent = site::agent(&bed, "", "limits: { cpu: 2% }")?;
    let lowered = thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 1500, 30_000));
        let lowered = until(&mut agent, "sampling to go down", STEPS, |metrics| sample(metrics) <= 0.25)?;
        let said = agent::command(&bed, &["ctl", "status"])?.output()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        ensure!(said.contains("of flows instead of the configured 100 %, to keep limits.cpu (2 %"), "{said}");
        traffic.join().ok().context("the load panicked")??;
        anyhow::Ok(lowered)
    })?;
    ensure!(lowered.sum("shadow_capture_sample_configured_ratio", &[]) == Some(1.0));
    ensure!(steps(&lowered, "down") >= 2 && steps(&lowered, "up") == 0);
    let said = agent.process.log();
    ensure!(said.contains("over limits.cpu (2%): sampling goes from 100% to 50% of flows"), "{said}");

    let ended = until(&mut agent, "every exchange to be closed", STEPS, is_quiet)?;
    let left_out = lost(&ended, Some("sampled_out"));
    ensure!(lost(&ended, None) == left_out, "{} lost, {left_out} of them left out", lost(&ended, None));
    ensure!(packets(&ended, "sampled_out") > 0);

    let low = sample(&ended);
    let raised = until(&mut agent, "sampling to go up again", STEPS, |metrics| sample(metrics) > low)?;
    ensure!(steps(&raised, "up") >= 1);
    let said = agent.process.log();
    ensure!(said.contains("well below limits.cpu (2%)"), "{said}");

    let seen = |metrics: &Scrape| metrics.count("shadow_exchanges_total", &[]);
    let before = seen(&raised);
    // The sample may still be so small that it has none of the few connections of one load.
    let mut loaded = Ok(());
    until(&mut agent, "flows of the sample", STEPS, |metrics| {
        let in_the_sample = seen(metrics) > before;
        if !in_the_sample {
            loaded = load(&bed, 200, 200);
        }
        in_the_sample || loaded.is_err()
    })?;
    loaded?;
    let report = agent.finish()?;
    ensure!(report.outcome() != Some("fail"), "the verdict is {:?}", report.outcome());
    Ok(())
}
