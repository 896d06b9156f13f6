//! Checks privileges, and rehearses a start: the verifier's word on every program, and what works once privileges are
//! dropped.

use caps::Capability;

use super::Check;
use crate::capture::kernel::{self, KernelError, Rehearsal};
use crate::cli::Exit;
use crate::config::{self, Config, NetNs};
use crate::privileges::{self, Names, PrivilegeError};

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let missing = privileges::missing(config.capture.netns.as_ref());
    let may_load =
        missing.as_ref().is_ok_and(|missing| !privileges::NEEDED.iter().any(|one| missing.contains(one)));
    let mut checks = vec![held(missing, config.capture.netns.as_ref())];
    if may_load {
        checks.extend(rehearsed(&config.capture));
    } else {
        let finding = "not tried, for want of privileges";
        checks.push(Check::warning("verifier", finding, "run doctor with the privileges of the agent"));
    }
    checks
}

fn held(missing: Result<Vec<Capability>, PrivilegeError>, netns: Option<&NetNs>) -> Check {
    let name = "privileges";
    let user = nix::unistd::geteuid();
    let needed = privileges::needed(netns);
    match missing {
        Ok(missing) if missing.is_empty() => {
            Check::ok(name, format!("user {user} with all that is needed: {}", Names(&needed)))
        }
        Ok(missing) => {
            let mut finding = format!("user {user} without {}", Names(&missing));
            if let Some(netns) = netns.filter(|_| !missing.iter().all(|one| privileges::NEEDED.contains(one)))
            {
                finding.push_str(&format!(" (capture.netns {netns} needs more than capturing here)"));
            }
            Check::problem(name, Exit::Unsupported, finding, privileges::remedy(netns))
        }
        Err(error) => Check::warning(name, error.to_string(), "mount /proc"),
    }
}

fn rehearsed(config: &config::Capture) -> Vec<Check> {
    match kernel::rehearse(config) {
        Some(Ok(rehearsal)) => vec![verifier(rehearsal.programs), least(&rehearsal)],
        Some(Err(error)) => vec![refused(&error)],
        None => {
            vec![Check::warning(
                "verifier",
                "not tried: there is no thread for it",
                "raise the limit on tasks",
            )]
        }
    }
}

fn verifier(programs: usize) -> Check {
    Check::ok("verifier", format!("tried, accepts all {programs} programs"))
}

fn refused(error: &KernelError) -> Check {
    let (exit, remedy) = match error {
        KernelError::Networks { .. } | KernelError::Shards { .. } | KernelError::RingSize { .. } => {
            (Exit::Usage, "change the configuration")
        }
        KernelError::Verifier { .. } | KernelError::Unsupported { .. } => {
            (Exit::Unsupported, "another kernel may accept it; 6.6 or later is best")
        }
        _ => (Exit::Unsupported, "do as it says, and run doctor again"),
    };
    Check::problem("verifier", exit, error.to_string(), remedy)
}

/// What is left after loading, and whether it does.
fn least(rehearsal: &Rehearsal) -> Check {
    let name = "least privilege";
    let Rehearsal { reduction, maps, mark, .. } = rehearsal;
    let reduction = match reduction {
        Ok(reduction) => reduction,
        Err(error) => {
            return Check::problem(name, Exit::Unsupported, error.to_string(), "change the seccomp profile");
        }
    };
    let said = format!("after loading: {reduction}");
    match (maps, mark) {
        (Err(error), _) => {
            Check::problem(name, Exit::Unsupported, format!("{said}; then {error}"), privileges::remedy(None))
        }
        (_, Err(error)) => Check::warning(
            name,
            format!("{said}; then sockets cannot be marked ({error})"),
            "grant CAP_NET_ADMIN, or set capture.mark to 0",
        ),
        _ => Check::ok(name, format!("{said}; tried, maps and marks still work")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Level;
    use super::*;
    use crate::privileges::Reduction;

    const PROBLEM: Level = Level::Problem(Exit::Unsupported);

    #[test]
    fn what_is_missing_is_named_and_more_is_asked_for_with_a_namespace_only() {
        let name = NetNs::Name("blue".to_owned());
        let check = |missing: &[Capability], netns: Option<&NetNs>, level: Level, words: &str| {
            let check = held(Ok(missing.to_vec()), netns);
            assert!(check.level == level && check.finding.contains(words), "{check:?}");
        };
        check(&[], None, Level::Ok, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
        check(&[], Some(&name), Level::Ok, "CAP_PERFMON, CAP_SYS_ADMIN");
        check(&[Capability::CAP_PERFMON], Some(&name), PROBLEM, "without CAP_PERFMON");
        check(&[Capability::CAP_SYS_ADMIN], Some(&name), PROBLEM, "capture.netns blue needs more");
        let remedy = held(Ok(vec![Capability::CAP_SYS_ADMIN]), Some(&name)).remedy.unwrap();
        assert!(remedy.contains("cap_sys_admin=ep`"), "{remedy}");
        assert!(!held(Ok(vec![]), None).finding.contains("SYS_ADMIN"));
    }

    #[test]
    fn what_is_left_after_loading_is_judged_by_what_still_works() {
        let refusal = || io::Error::from_raw_os_error(nix::libc::EPERM);
        let check = |maps: Result<(), KernelError>, mark: io::Result<()>, level: Level, words: &str| {
            let check = least(&Rehearsal { programs: 6, reduction: Ok(Reduction::default()), maps, mark });
            assert!(check.level == level && check.finding.contains(words), "{check:?}");
        };
        let no_maps = || Err(KernelError::Privilege { what: "map PORTS".into(), source: refusal().into() });
        check(Ok(()), Ok(()), Level::Ok, "still work");
        check(no_maps(), Ok(()), PROBLEM, "then the kernel does not permit map PORTS");
        check(Ok(()), Err(refusal()), Level::Warning, "then sockets cannot be marked");
        let reduction = Err(PrivilegeError::NoNewPrivileges(nix::errno::Errno::EPERM));
        let refused = least(&Rehearsal { programs: 6, reduction, maps: Ok(()), mark: Ok(()) });
        assert_eq!(refused.level, PROBLEM);
    }

    #[test]
    fn a_configuration_that_cannot_be_is_the_operator_s_to_change() {
        let error = kernel::rehearse(&config::Capture { shards: Some(0), ..config::Capture::default() });
        let check = refused(&error.unwrap().unwrap_err());
        assert_eq!(check.level, Level::Problem(Exit::Usage));
    }
}
