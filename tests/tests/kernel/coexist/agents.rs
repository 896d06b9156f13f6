//! Several agents on one device without TCX: each has its slot, and only what a killed one left is swept.

use shadow_agent::capture::interfaces::Toward;
use shadow_agent::capture::kernel::{Attachment, KernelCapture, KernelError, Occupant};

use super::agent::Agent;
use super::possible;
use crate::capture;
use crate::netns::{DEVICE, Pair, device};
use crate::veth::{attached, exchange, has_clsact, server};

/// As many as a device has room for.
const SLOTS: usize = 8;

fn start(pair: &Pair, attachment: Attachment) -> Result<KernelCapture, KernelError> {
    let started = || KernelCapture::start_with(&capture(), &[pair.device()], true, attachment);
    pair.on_server(started).map(|(capture, _sources)| capture)
}

#[test]
fn two_agents_both_capture_and_the_last_takes_clsact_along() {
    let pair = Pair::new();
    let mut first = Agent::start(&pair, Attachment::Clsact);
    let mut second = Agent::start(&pair, Attachment::Clsact);
    assert_eq!(attached(&pair).len(), 4);
    exchange(&pair, server(), b"ping", b"pong");
    let copied = second.copied();
    assert!(first.copied() > 0 && copied > 0);

    // The one that added clsact is killed; a third begins, which sweeps after it and leaves the second alone.
    first.kill();
    assert_eq!(attached(&pair).len(), 4);
    let mut third = Agent::start(&pair, Attachment::Clsact);
    assert_eq!(attached(&pair).len(), 4);
    exchange(&pair, server(), b"ping", b"pong");
    assert!(second.copied() > copied && third.copied() > 0);

    second.stop();
    assert_eq!((attached(&pair).len(), has_clsact(&pair)), (2, true));
    third.stop();
    assert_eq!((attached(&pair).len(), has_clsact(&pair)), (0, false));
}

#[test]
fn an_agent_with_tcx_sweeps_too_and_leaves_those_that_run() {
    let pair = Pair::new();
    let killed = Agent::start(&pair, Attachment::Clsact);
    let mut running = Agent::start(&pair, Attachment::Clsact);
    killed.kill();
    let next = Agent::start(&pair, Attachment::Tcx);
    assert_eq!(attached(&pair).len(), 4, "two of the one that runs, and two of the new one");
    exchange(&pair, server(), b"ping", b"pong");
    assert!(running.copied() > 0);
    running.kill();
    next.stop();
    let last = Agent::start(&pair, Attachment::Tcx);
    let clsact = possible(Attachment::Tcx) == Attachment::Clsact;
    assert_eq!((attached(&pair).len(), has_clsact(&pair)), (2, clsact), "what it attached itself, only");
    last.stop();
}

#[test]
fn doctor_says_whose_filters_are_whose() {
    let pair = Pair::new();
    let look = || {
        let report = pair.on_server(|| shadow_agent::doctor::run(None));
        let name = format!("interface {DEVICE}");
        let check = report.checks.into_iter().find(|check| check.name == name).unwrap();
        format!("{} | {}", check.finding, check.remedy.unwrap_or_default())
    };
    let check = |said: &[&str], unsaid: &[&str]| {
        let text = look();
        assert!(said.iter().all(|part| text.contains(part)), "{said:?} in {text}");
        assert!(!unsaid.iter().any(|part| text.contains(part)), "{unsaid:?} not in {text}");
    };
    let (runs, killed) = ("of the agent that runs in slot", "left by an agent that was killed");
    check(&["nothing attached | "], &[runs, killed]);
    let first = Agent::start(&pair, Attachment::Clsact);
    let second = Agent::start(&pair, Attachment::Clsact);
    check(&["in slot 0", "in slot 1", "a shadow-agent captures here"], &[killed]);
    first.kill();
    check(&[killed, "in slot 1", "a shadow-agent captures here"], &["in slot 0"]);
    second.kill();
    check(&[killed, "the next start removes it"], &[runs]);
}

#[test]
fn agents_that_come_and_go_at_once_do_not_take_clsact_from_each_other() {
    let pair = Pair::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (agent, _sources) =
                    KernelCapture::start_with(&capture(), &[], true, Attachment::Clsact).unwrap();
                for _ in 0..20 {
                    pair.on_server(|| {
                        agent.attach(&pair.device()).unwrap();
                        agent.detach().unwrap();
                    });
                }
            });
        }
    });
    assert_eq!((attached(&pair).len(), has_clsact(&pair)), (0, false));
}

#[test]
fn clsact_of_somebody_else_stays_when_it_is_empty() {
    let pair = Pair::new();
    pair.output(&["tc", "qdisc", "add", "dev", DEVICE, "clsact"]);
    Agent::start(&pair, Attachment::Clsact).kill();
    let next = start(&pair, Attachment::Clsact).unwrap();
    pair.on_server(|| next.detach()).unwrap();
    assert_eq!((attached(&pair).len(), has_clsact(&pair)), (0, true));
}

#[test]
fn clsact_that_somebody_made_anew_is_not_ours_any_more() {
    let pair = Pair::new();
    let agent = start(&pair, Attachment::Clsact).unwrap();
    pair.output(&["tc", "qdisc", "del", "dev", DEVICE, "clsact"]);
    pair.output(&["tc", "qdisc", "add", "dev", DEVICE, "clsact"]);
    pair.on_server(|| agent.detach()).unwrap();
    assert!(has_clsact(&pair));
}

#[test]
fn there_is_room_for_so_many_agents_and_no_more() {
    let pair = Pair::new();
    let mut agents: Vec<_> = (0..SLOTS).map(|_| start(&pair, Attachment::Clsact).unwrap()).collect();
    assert_eq!(attached(&pair).len(), 2 * SLOTS);
    let error = start(&pair, Attachment::Clsact).err().expect("there is no room for one more");
    assert!(matches!(error, KernelError::Occupied { by: Occupant::Agents(8), .. }), "{error:?}");
    assert!(error.to_string().contains("stop one of them"), "{error}");
    assert_eq!(attached(&pair).len(), 2 * SLOTS);
    let gone = agents.remove(3);
    pair.on_server(|| gone.detach()).unwrap();
    agents.push(start(&pair, Attachment::Clsact).unwrap());
    assert_eq!(attached(&pair).len(), 2 * SLOTS);
    for agent in agents {
        pair.on_server(|| drop(agent));
    }
    assert_eq!((attached(&pair).len(), has_clsact(&pair)), (0, false));
}

#[test]
fn a_device_that_goes_while_it_is_attached_to_leaves_nothing() {
    let pair = Pair::new();
    let claims = || pair.output(&["cat", "/proc/net/unix"]).contains("shadow-agent/device");
    let agent = start(&pair, Attachment::Clsact).unwrap();
    assert!(claims());
    let device = device("gone0", Toward::Ingress);
    for attachment in [Attachment::Tcx, Attachment::Clsact] {
        let (other, _sources) = KernelCapture::start_with(&capture(), &[], true, attachment).unwrap();
        let mut vanished = 0;
        for round in 0..30 {
            pair.output(&["ip", "link", "add", "gone0", "type", "veth", "peer", "name", "gone1"]);
            std::thread::scope(|scope| {
                scope.spawn(|| pair.output(&["ip", "link", "del", "gone0"]));
                // So that attaching meets the end of the device at another step in every round.
                std::thread::sleep(std::time::Duration::from_micros(round * 200));
                match pair.on_server(|| other.attach(&device)) {
                    Ok(()) => {}
                    Err(KernelError::Device { .. }) => vanished += 1,
                    Err(error) => panic!("{error:?}"),
                }
            });
            pair.on_server(|| other.retain(&[])).unwrap();
            assert_eq!(other.attached(), []);
        }
        assert!(vanished > 0, "the device was always there");
    }
    pair.on_server(|| agent.detach()).unwrap();
    assert!(!claims());
}
