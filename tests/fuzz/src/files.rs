//! Readers of captures and recordings: they end, with an error perhaps, and the books balance.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use shadow_agent::capture::SegmentSource as _;
use shadow_agent::capture::file::FileSource;
use shadow_agent::shard::Pipeline;
use shadow_agent::tcp::Ending;

/// The bytes of a file of any kind.
pub fn check(bytes: &[u8]) {
    let input = Box::new(Cursor::new(bytes.to_vec()));
    let Ok(mut source) = FileSource::new(Path::new("fuzz"), input, Some(bytes.len() as u64)) else { return };
    let mut pipeline = Pipeline::new(&crate::settings(&crate::limits()));
    let mut events = Vec::new();
    while let Ok(Some(_)) = source.poll(Duration::ZERO, &mut |segment| {
        pipeline.segment(segment, &mut |event| events.push(event));
    }) {}
    assert!(matches!(source.poll(Duration::ZERO, &mut |_| panic!("a segment behind the end")), Ok(None)));
    assert!(source.progress().read() <= bytes.len() as u64);
    pipeline.finish(Ending::Shutdown, &mut |event| events.push(event));
    crate::balanced(&pipeline, &events);
}

/// One of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let packet = crate::packet::seeds().swap_remove(0).split_off(1);
    let length = (packet.len() as u32).to_le_bytes();
    let header = |magic: u32| {
        let mut header = magic.to_le_bytes().to_vec();
        header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
        header
    };
    let record = [&[1, 0, 0, 0, 2, 0, 0, 0][..], &length, &length, &packet].concat();
    let block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let total = (padded as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes(), &total, body, &vec![0; padded - body.len()], &total].concat()
    };
    let section =
        block(0x0A0D_0D0A, &[&0x1A2B_3C4D_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xFF; 8]].concat());
    let interface = block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0]);
    let enhanced = block(6, &[&[0; 12][..], &length, &length, &packet].concat());
    let gor = "1 a 5 0\nGET / HTTP/1.1\r\n\r\n\n🐵🙈🙉\n2 a 6 0\nHTTP/1.1 204 N\r\n\r\n\n🐵🙈🙉\n";
    let har = r#"{"log":{"entries":[{"startedDateTime":"2026-01-01T00:00:00Z","time":5,"request":{"method":"GET",
        "url":"http://h/a","headers":[{"name":"A","value":"b"}]},"response":{"status":200,"headers":[],
        "content":{"text":"eA==","encoding":"base64"}}}]}}"#;
    vec![
        [header(0xA1B2_C3D4), record.clone(), record.clone()].concat(),
        [header(0xA1B2_3C4D), record].concat(),
        [section, interface, enhanced, block(3, &[&length[..], &packet].concat())].concat(),
        gor.as_bytes().to_vec(),
        har.as_bytes().to_vec(),
    ]
}
