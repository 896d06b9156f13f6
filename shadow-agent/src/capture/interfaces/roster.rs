//! Which devices are attached to, which could not be, and when those are tried again. Attaches nothing by itself.

use std::time::{Duration, Instant};

use super::Device;

/// How long after the first failure a device is tried again; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// What the wait grows to.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Failed {
    device: Device,
    wait: Duration,
    again: Instant,
}

/// The devices that are meant, by how attaching to them went. Holds no device that was not found last.
#[derive(Debug, Default)]
pub struct Roster {
    attached: Vec<Device>,
    failed: Vec<Failed>,
}

impl Roster {
    /// Nothing is attached yet.
    #[must_use]
    pub fn new() -> Roster {
        Roster::default()
    }

    /// The devices that are attached to.
    #[must_use]
    pub fn attached(&self) -> &[Device] {
        &self.attached
    }

    /// Forgets the devices that are not among `found`, and those whose index is among `gone` although there is such a
    /// device again. Returns those of them that were attached to.
    pub fn keep(&mut self, found: &[Device], gone: &[u32]) -> Vec<Device> {
        let stays = |device: &Device| found.contains(device) && !gone.contains(&device.index);
        self.failed.retain(|failed| stays(&failed.device));
        self.attached.extract_if(.., |device| !stays(device)).collect()
    }

    /// The devices among `found` that should be attached to now.
    #[must_use]
    pub fn due(&self, found: &[Device], now: Instant) -> Vec<Device> {
        let waits =
            |device: &Device| self.failed.iter().any(|failed| failed.device == *device && failed.again > now);
        let due = found.iter().filter(|device| !self.attached.contains(device) && !waits(device));
        due.cloned().collect()
    }

    /// Attaching to a device went well. Says whether it had failed before.
    pub fn succeeded(&mut self, device: Device) -> bool {
        let before = self.failed.len();
        self.failed.retain(|failed| failed.device != device);
        self.attached.push(device);
        self.failed.len() < before
    }

    /// Attaching to a device failed. Says whether that is the first time, and worth telling.
    pub fn failed(&mut self, device: Device, now: Instant) -> bool {
        if let Some(failed) = self.failed.iter_mut().find(|failed| failed.device == device) {
            failed.wait = (failed.wait * 2).min(LONGEST_WAIT);
            failed.again = now + failed.wait;
            return false;
        }
        self.failed.push(Failed { device, wait: FIRST_WAIT, again: now + FIRST_WAIT });
        true
    }

    /// When the next device is to be tried again.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.failed.iter().map(|failed| failed.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, Toward};
    use super::*;

    fn device(name: &str, index: u32) -> Device {
        Device { name: name.to_owned(), index, layer: Layer::Ethernet, toward_server: Toward::Egress }
    }

    #[test]
    fn what_comes_is_due_and_what_goes_is_forgotten() {
        let (now, mut roster) = (Instant::now(), Roster::new());
        let found = [device("veth1", 5), device("veth2", 6)];
        assert_eq!(roster.due(&found, now), found);
        for device in found.clone() {
            assert!(!roster.succeeded(device));
        }
        assert_eq!(roster.due(&found, now), []);
        assert_eq!(roster.keep(&found, &[]), []);
        let again = [device("veth1", 7), device("veth2", 6)];
        assert_eq!(roster.keep(&again, &[]), [device("veth1", 5)], "its name came back under another index");
        assert_eq!(roster.due(&again, now), [device("veth1", 7)]);
        assert_eq!(roster.keep(&again, &[6]), [device("veth2", 6)], "it went, and came back as it was");
        assert_eq!(roster.attached(), []);
    }

    #[test]
    fn what_fails_is_told_once_and_tried_again_ever_more_rarely() {
        let (start, mut roster) = (Instant::now(), Roster::new());
        let found = [device("veth1", 5)];
        let mut now = start;
        let mut waits = Vec::new();
        for attempt in 0..12 {
            assert_eq!(roster.due(&found, now), found);
            assert_eq!(roster.failed(device("veth1", 5), now), attempt == 0);
            assert_eq!(roster.due(&found, now), [], "at once");
            let next = roster.next().unwrap();
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits.first(), Some(&FIRST_WAIT));
        assert_eq!(waits.get(1), Some(&(FIRST_WAIT * 2)));
        assert_eq!(waits.last(), Some(&LONGEST_WAIT));
        assert!(roster.succeeded(device("veth1", 5)));
        assert_eq!(roster.next(), None);
        roster.keep(&[], &[]);
        roster.failed(device("veth1", 5), now);
        assert_eq!(roster.keep(&[], &[]), [], "it was not attached to");
        assert_eq!(roster.next(), None);
    }
}
