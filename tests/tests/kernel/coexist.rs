//! Beside others on a device: their programs see every packet and have their say, however our agent begins and ends.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, MapInfo, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use aya::util::KernelVersion;
use shadow_agent::capture::PacketResult;
use shadow_agent::capture::kernel::Attachment;
use shadow_ebpf::abi::{Counts, PROGRAMS};

use crate::netns::{DEVICE, Pair, SERVER};
use crate::veth::{attached, exchange, server};

mod agent;
mod agents;
pub(crate) mod other;
mod refused;
mod stripped;

use agent::Agent;
use other::{At, Ipv6, Other};

/// What takes as long hangs.
const HANG: Duration = Duration::from_secs(60);

/// What an agent that would attach in this way ends up with: the agent falls back where there is no TCX.
fn possible(preferred: Attachment) -> Attachment {
    if preferred == Attachment::Tcx && KernelVersion::current().unwrap() < KernelVersion::new(6, 6, 0) {
        crate::host::differs("no TCX before Linux 6.6, clsact instead");
        return Attachment::Clsact;
    }
    preferred
}

/// What others have attached to the server's end, in the kernel's and in `tc`'s words.
fn of_others(pair: &Pair) -> String {
    let show = |what: &[&str]| pair.output(&[&["tc"], what].concat());
    let said = [
        show(&["qdisc", "show", "dev", DEVICE]),
        show(&["filter", "show", "dev", DEVICE, "ingress"]),
        show(&["filter", "show", "dev", DEVICE, "egress"]),
    ]
    .concat();
    // Ours are the only ones with this priority.
    let mut others: Vec<String> =
        said.lines().filter(|line| !line.contains(" pref 90 ")).map(str::to_owned).collect();
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        // Without TCX there is nothing attached by it.
        let Ok((_, programs)) = pair.on_server(|| SchedClassifier::query_tcx(DEVICE, hook)) else { continue };
        let ours = |name: &str| PROGRAMS.contains(&name);
        let theirs = programs.iter().filter(|program| !program.name_as_str().is_some_and(ours));
        others.extend(theirs.map(|program| format!("{hook:?} {}", program.id())));
    }
    others.join("\n")
}

/// Whether a datagram to an address of the server comes through: one to the first address, sent after it, does.
fn comes_through(pair: &Pair, address: &str) -> bool {
    let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
    let (tried, sure) = pair.on_server(|| {
        (UdpSocket::bind(at(address, 7000)).unwrap(), UdpSocket::bind(at(SERVER[0], 7001)).unwrap())
    });
    sure.set_read_timeout(Some(HANG)).unwrap();
    tried.set_nonblocking(true).unwrap();
    pair.on_client(|| {
        let any = if address.contains(':') { "::" } else { "0.0.0.0" };
        // A neighbour that does not answer is a reason not to come through.
        let _ = UdpSocket::bind((any, 0)).unwrap().send_to(b"?", at(address, 7000));
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"!", at(SERVER[0], 7001)).unwrap();
    });
    sure.recv(&mut [0; 8]).unwrap();
    tried.recv(&mut [0; 8]).is_ok()
}

/// Waits for something that is about to be so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends traffic, and fails unless every packet that passes the first of the others reaches the last, whose word holds.
fn both_have_their_say(pair: &Pair, before: &Other, after: &Other) {
    let counted = (before.seen(), after.seen());
    exchange(pair, server(), b"ping", b"pong");
    assert!(comes_through(pair, SERVER[0]));
    assert!(!comes_through(pair, SERVER[1]), "the other program drops IPv6");
    wait_for("every packet reaches the last program", || {
        let more = (before.seen() - counted.0, after.seen() - counted.1);
        more.0 >= 10 && more.0 == more.1
    });
}

fn others_are_left_alone(preferred: Attachment) {
    let pair = Pair::new();
    let attachment = possible(preferred);
    assert!(comes_through(&pair, SERVER[1]));
    let (first, last) = match attachment {
        Attachment::Tcx => (At::TcxFirst, At::TcxLast),
        _ => {
            pair.output(&["tc", "qdisc", "add", "dev", DEVICE, "clsact"]);
            (At::Clsact { priority: 10 }, At::Clsact { priority: 200 })
        }
    };
    let after = Other::attach(&pair, last, Ipv6::Drop);
    let mut before = Other::attach(&pair, first, Ipv6::Next);
    both_have_their_say(&pair, &before, &after);

    let begun = of_others(&pair);
    let mut agent = Agent::start(&pair, preferred);
    assert_eq!((attached(&pair).len(), of_others(&pair)), (2, begun.clone()));
    both_have_their_say(&pair, &before, &after);
    let copied = agent.copied();
    assert!(copied > 0);
    if attachment == Attachment::Tcx {
        // Ours goes first, so another goes before it only afterwards.
        before = Other::attach(&pair, first, Ipv6::Next);
        both_have_their_say(&pair, &before, &after);
    }
    let begun = of_others(&pair);
    pair.set_mtu(1400);
    agent.attach_again();
    both_have_their_say(&pair, &before, &after);
    assert!(agent.copied() > copied);
    assert_eq!(of_others(&pair), begun);
    agent.stop();
    assert_eq!((attached(&pair), of_others(&pair)), (Vec::new(), begun.clone()));
    both_have_their_say(&pair, &before, &after);

    let killed = Agent::start(&pair, preferred);
    both_have_their_say(&pair, &before, &after);
    killed.kill();
    assert_eq!(of_others(&pair), begun);
    both_have_their_say(&pair, &before, &after);
    if attachment == Attachment::Tcx {
        assert_eq!(attached(&pair), Vec::<String>::new(), "links die with their process");
        return;
    }
    assert_eq!(attached(&pair).len(), 2, "filters do not");
    is_silent(&pair);
    let next = Agent::start(&pair, preferred);
    assert_eq!((attached(&pair).len(), of_others(&pair)), (2, begun.clone()), "the old ones are swept");
    both_have_their_say(&pair, &before, &after);
    next.stop();
    assert_eq!((attached(&pair), of_others(&pair)), (Vec::new(), begun));
    both_have_their_say(&pair, &before, &after);
}

/// Waits until the programs that a killed agent left on the server's end copy nothing any more.
fn is_silent(pair: &Pair) {
    let ids: Vec<u32> = pair
        .output(&["tc", "filter", "show", "dev", DEVICE, "ingress"])
        .lines()
        .filter(|line| PROGRAMS.iter().any(|name| line.contains(name)))
        .filter_map(|line| line.split_once(" id ")?.1.split(' ').next()?.parse().ok())
        .collect();
    let [id] = ids[..] else { panic!("one program of ours at ingress, not {ids:?}") };
    let program = loaded_programs().map(Result::unwrap).find(|program| program.id() == id).unwrap();
    let maps = program.map_ids().unwrap().unwrap();
    let is_counts = |id: &&u32| MapInfo::from_id(**id).unwrap().name_as_str() == Some("COUNTS");
    let id = maps.iter().find(is_counts).unwrap();
    let counts: PerCpuArray<_, [u64; size_of::<Counts>() / 8]> =
        Map::PerCpuArray(MapData::from_id(*id).unwrap()).try_into().unwrap();
    let count = |result: PacketResult| -> u64 {
        counts.get(&0, 0).unwrap().iter().map(|counts| counts[result as usize]).sum()
    };
    wait_for("the heartbeat is stale", || {
        let before = (count(PacketResult::Copied), count(PacketResult::Killed));
        exchange(pair, server(), b"ping", b"pong");
        count(PacketResult::Copied) == before.0 && count(PacketResult::Killed) > before.1
    });
}

#[test]
fn others_are_left_alone_through_tcx() {
    others_are_left_alone(Attachment::Tcx);
}

#[test]
fn others_are_left_alone_through_clsact() {
    others_are_left_alone(Attachment::Clsact);
}
