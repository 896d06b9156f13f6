//! What changes while the programs run: the switch, the heartbeat, full rings, shards, the log.

use super::*;

#[test]
fn the_switch_comes_first_and_works_at_once() {
    let mut bench = Bench::new(&capture());
    let packet = request().bytes();
    let udp = with(request(), |packet| packet.protocol = 17).bytes();
    bench.kernel.set_enabled(false);
    assert_eq!(bench.run(TO_SERVER, &packet, 0), (PacketResult::Killed, Vec::new()));
    assert_eq!(bench.run(TO_SERVER, &udp, 0).0, PacketResult::Killed);
    bench.kernel.set_enabled(true);
    assert_eq!(bench.run(TO_SERVER, &packet, 0).0, PacketResult::Copied);
    let (mut kernel, _sources) = KernelCapture::start(&capture(), &[], false).unwrap();
    kernel.run_packet(TO_SERVER, &packet, 0, 1).unwrap();
    assert_eq!(kernel.counters().unwrap().packets[PacketResult::Killed as usize], 1, "off from the start");
}

#[test]
fn without_a_heartbeat_nothing_is_copied() {
    let mut bench = Bench::new(&capture());
    let packet = request().bytes();
    assert_eq!(bench.run(TO_SERVER, &packet, 0).0, PacketResult::Copied);
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(bench.run_without_heartbeat(TO_SERVER, &packet, 0), (PacketResult::Killed, Vec::new()));
    assert_eq!(bench.run(TO_SERVER, &packet, 0).0, PacketResult::Copied);
}

#[test]
fn a_full_ring_drops_and_counts_and_recovers() {
    let mut bench = Bench::new(&Capture { ring_size: 256 * 1024, ..capture() });
    let packet = Packet::new(CLIENT, SERVER, &[7; 1000]);
    const RUNS: u32 = 400;
    bench.load(TO_SERVER);
    bench.kernel.beat();
    let before = bench.kernel.counters().unwrap();
    assert_eq!(before.packets[PacketResult::Copied as usize], 0);
    bench.kernel.run_packet(TO_SERVER, &packet.bytes(), 0, RUNS).unwrap();
    let counters = bench.kernel.counters().unwrap();
    let (copied, full) =
        (counters.packets[PacketResult::Copied as usize], counters.packets[PacketResult::RingFull as usize]);
    assert_eq!(copied + full, u64::from(RUNS));
    assert!(full > 0 && copied > 100, "copied {copied}, full {full}");
    assert_eq!(counters.bytes, copied * 1000);
    assert_eq!(bench.drain().len() as u64, copied, "what was counted as copied is there");
    assert_eq!(bench.run(TO_SERVER, &packet.bytes(), 0).1, whole(&packet, Some(Direction::ToServer)));
}

#[test]
fn a_flow_stays_on_one_shard_in_both_directions() {
    let config = Capture { shards: Some(4), ring_size: 4 * 1024 * 1024, ..capture() };
    let (mut kernel, mut sources) = KernelCapture::start(&config, &[], true).unwrap();
    assert_eq!(sources.iter().map(RingSource::shard).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for entry in [TO_SERVER, TO_CLIENT] {
        kernel.run_packet(entry, &[0; 64], 0, 1).unwrap();
    }
    let mut used = [0; 4];
    for port in 30_000..30_040 {
        let request = with(request(), |packet| packet.source.set_port(port));
        let response = Packet { source: request.destination, destination: request.source, ..request.clone() };
        kernel.beat();
        kernel.run_packet(TO_SERVER, &request.bytes(), 0, 1).unwrap();
        kernel.run_packet(TO_CLIENT, &response.bytes(), 0, 1).unwrap();
        let counts: Vec<usize> = sources
            .iter_mut()
            .map(|source| source.poll(Duration::ZERO, &mut |_| ()).unwrap().unwrap())
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), 2, "{counts:?}");
        let shard = counts.iter().position(|&count| count == 2).expect("both directions on one shard");
        used[shard] += 1;
    }
    assert!(used.iter().all(|&flows| flows > 0), "{used:?}");
}

#[test]
fn logging_in_the_kernel_changes_no_decision() {
    let mut bench = Bench::new(&Capture { kernel_log: true, ..capture() });
    let packet = request();
    let (result, captured) = bench.run(TO_SERVER, &packet.bytes(), 0);
    assert_eq!(result, PacketResult::Copied);
    assert_eq!(captured, whole(&packet, Some(Direction::ToServer)));
    bench.kernel.beat();
}
