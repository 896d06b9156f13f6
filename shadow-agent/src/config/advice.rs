//! What is allowed and probably not meant: said when a file is checked and when the agent starts, and never an error.
//!
//! Pure, but for [`here`]: the number of CPUs is an argument.

use std::num::NonZero;
use std::thread;

use thiserror::Error;

use super::units::write_size;
use super::{Capture, Config, Credentials};

mod overlap;

/// Pairs of paths that are named; more say nothing new.
const MAX_OVERLAPS: usize = 16;

/// Something that an operator may want to write in another way.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Advice {
    /// Rings are powers of two, so some of the memory given is not used.
    #[error(
        "capture.rings.size: {} (rings: {shards}) is rounded down to {} each, {} together, because a ring is a power of \
         two; write {} to use that, or {} for more",
        write_size(*size), write_size(*each), write_size(each * u64::from(*shards)), write_size(each * u64::from(*shards)),
        write_size(2 * each * u64::from(*shards))
    )]
    RingSize {
        /// What was configured, in bytes.
        size: u64,
        /// The number of rings.
        shards: u16,
        /// What one ring gets, in bytes.
        each: u64,
    },
    /// More threads than can run at once.
    #[error(
        "capture.rings.shards: {shards} shards share {cpus} CPUs, which costs switches between threads and gains nothing; \
         write {cpus} or `auto`"
    )]
    Shards {
        /// What was configured.
        shards: u16,
        /// CPUs that the agent may run on.
        cpus: usize,
    },
    /// Anybody on the way can be the target.
    #[error(
        "replay.targets ({target}): tls.verify is off, so whoever is on the way gets every request with what it carries, \
         and can answer it; give the target's authority with tls.ca instead"
    )]
    Unverified {
        /// The target's name.
        target: String,
    },
    /// Credentials are removed, and a target has none of its own.
    #[error(
        "replay.targets ({target}): replay.credentials is `replace` and this target has no `credentials`, so requests that \
         carried some are sent without; give it its own"
    )]
    NoCredentials {
        /// The target's name.
        target: String,
    },
    /// What is masked is not compared either, so that nobody would ever see that it changed.
    #[error(
        "compare.ignore: `{ignored}` touches `{masked}`, which {section}.fields hides, so a difference there is neither compared \
         nor shown; leave one of them out, or write a narrower path, unless that is meant"
    )]
    MaskedIgnored {
        /// The path that is not compared.
        ignored: String,
        /// Who hides the other one: `mask.keep` or `mask.send`.
        section: &'static str,
        /// The path that is hidden.
        masked: String,
    },
}

/// Ignored places that touch masked ones, for both exits.
fn masked_and_ignored(config: &Config) -> impl Iterator<Item = Advice> {
    let exits = [("mask.keep", &config.mask.keep), ("mask.send", &config.mask.send)];
    config.compare.ignore.iter().flat_map(move |ignored| {
        exits.into_iter().flat_map(move |(section, rules)| {
            let touched = rules.fields.iter().filter(|rule| overlap::touch(ignored, &rule.name));
            touched.map(move |rule| Advice::MaskedIgnored {
                ignored: ignored.clone(),
                section,
                masked: rule.name.clone(),
            })
        })
    })
}

/// Everything worth saying about a checked configuration on a host with so many CPUs for the agent.
#[must_use]
pub fn advice(config: &Config, cpus: usize) -> Vec<Advice> {
    let Capture { ring_size: size, shards, .. } = config.capture;
    let mut advice = Vec::new();
    // What nobody chose, nobody needs to choose better.
    let chosen = shards.is_some() || size != Capture::default().ring_size;
    let rings = shards.unwrap_or_else(|| Capture::auto_shards(cpus));
    let share = size / u64::from(rings.max(1));
    let each = share.checked_ilog2().map_or(0, |bits| 1 << bits);
    if chosen && each != 0 && each * u64::from(rings) != size {
        advice.push(Advice::RingSize { size, shards: rings, each });
    }
    for target in config.replay.targets.iter().chain(&config.replay.baseline) {
        if target.is_tls() && !target.tls.verify {
            advice.push(Advice::Unverified { target: target.name.clone() });
        }
        if config.replay.credentials == Credentials::Replace && target.credentials.is_empty() {
            advice.push(Advice::NoCredentials { target: target.name.clone() });
        }
    }
    if let Some(shards) = shards.filter(|&shards| usize::from(shards) > cpus) {
        advice.push(Advice::Shards { shards, cpus });
    }
    advice.extend(masked_and_ignored(config).take(MAX_OVERLAPS));
    advice
}

/// As [`advice`], on this host.
#[must_use]
pub fn here(config: &Config) -> Vec<Advice> {
    advice(config, thread::available_parallelism().map_or(1, NonZero::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_are_not_checked_or_get_no_credentials_are_named() {
        use super::super::{OwnCredentials, Secret, Target, Tls};
        let target = |name: &str, url: &str| {
            let tls = Tls { verify: false, ..Tls::default() };
            Target { name: name.to_owned(), url: url.parse().unwrap(), tls, ..Target::default() }
        };
        let mut config = Config::default();
        config.replay.targets = vec![target("plain", "http://h"), target("secure", "https://h")];
        config.replay.targets[1].credentials = OwnCredentials {
            headers: vec![("cookie".to_owned(), Secret::Env("X".to_owned()))],
            query: vec![],
        };
        assert_eq!(advice(&config, 4), [Advice::Unverified { target: "secure".to_owned() }]);
        config.replay.targets[1].tls.verify = true;
        config.replay.credentials = Credentials::Replace;
        assert_eq!(advice(&config, 4), [Advice::NoCredentials { target: "plain".to_owned() }]);
    }

    #[test]
    fn what_is_masked_and_ignored_is_said_for_both_exits_and_so_many_times() {
        let mut config = Config::default();
        config.compare.ignore = vec!["$.user".to_owned(), "$.items[*].id".to_owned()];
        config.mask.keep.fields = vec!["$.user.email".into(), "$.order".into()];
        config.mask.send.fields = vec!["$..id".into()];
        let said: Vec<String> = advice(&config, 4).iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0]
                .starts_with("compare.ignore: `$.user` touches `$.user.email`, which mask.keep.fields hides")
        );
        assert!(
            said[1]
                .starts_with("compare.ignore: `$.items[*].id` touches `$..id`, which mask.send.fields hides")
        );
        for (count, expected) in [(MAX_OVERLAPS, MAX_OVERLAPS), (MAX_OVERLAPS + 1, MAX_OVERLAPS)] {
            config.compare.ignore = vec!["$.a".to_owned()];
            config.mask.keep.fields = (0..count).map(|n| (&*format!("$.a.b{n}")).into()).collect();
            config.mask.send.fields.clear();
            assert_eq!(advice(&config, 4).len(), expected);
        }
    }

    #[test]
    fn what_is_rounded_or_crowded_is_said_with_the_numbers() {
        const MIB: u64 = 1 << 20;
        let cases: [(u64, Option<u16>, usize, &[&str]); 8] = [
            (8 * MIB, None, 4, &[]),
            (8 * MIB, None, 3, &[]),
            (16 * MIB, Some(4), 4, &[]),
            (
                10 * MIB,
                Some(2),
                4,
                &[
                    "10MiB (rings: 2) is rounded down to 4MiB each, 8MiB together, because a ring is a power of two; \
                   write 8MiB to use that, or 16MiB for more",
                ],
            ),
            (9 * MIB, None, 1, &["9MiB (rings: 1) is rounded down to 8MiB each"]),
            (8 * MIB, Some(3), 4, &["8MiB (rings: 3) is rounded down to 2MiB each, 6MiB together"]),
            (8 * MIB, Some(8), 2, &["8 shards share 2 CPUs", "write 2 or `auto`"]),
            (9 * MIB, Some(8), 2, &["1MiB each, 8MiB together", "8 shards share 2 CPUs"]),
        ];
        for (size, shards, cpus, expected) in cases {
            let mut config = Config::default();
            (config.capture.ring_size, config.capture.shards) = (size, shards);
            let said: Vec<String> = advice(&config, cpus).iter().map(ToString::to_string).collect();
            let said = said.join("\n");
            assert_eq!(said.is_empty(), expected.is_empty(), "{size} {shards:?} {cpus}: {said}");
            for part in expected {
                assert!(said.contains(part), "{part} in {said}");
            }
        }
    }
}
