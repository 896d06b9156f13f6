//! Gives up, for good, what only starting needed. Acquires nothing.
//!
//! Capabilities belong to a thread, and a new thread has those of the one that made it. So this is called before other
//! threads are made, and by each that was made earlier.

use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_no_new_privs;

use super::{Names, PrivilegeError};
use crate::config::NetNs;

/// What stays in use: attaching to interfaces that come later and `SO_MARK` need CAP_NET_ADMIN; operations on maps need
/// CAP_BPF where `kernel.unprivileged_bpf_disabled` is set below Linux 5.19.
pub const KEPT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// What a thread keeps of its capabilities, and what it gives up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Permitted and effective from now on, in the kernel's order.
    pub kept: Vec<Capability>,
    /// Gone, in the kernel's order.
    pub dropped: Vec<Capability>,
}

impl Reduction {
    /// Keeps what is in use later, and `also`.
    fn of(permitted: &CapsHashSet, also: &[Capability]) -> Reduction {
        // Before CAP_BPF existed it was part of CAP_SYS_ADMIN, and that is how some runtimes still grant it.
        let instead = !permitted.contains(&Capability::CAP_BPF);
        let keeps = |one: &Capability| {
            KEPT.contains(one) || also.contains(one) || (instead && *one == Capability::CAP_SYS_ADMIN)
        };
        let mut all: Vec<_> = permitted.iter().copied().collect();
        all.sort_unstable_by_key(Capability::index);
        let (kept, dropped) = all.into_iter().partition(keeps);
        Reduction { kept, dropped }
    }

    fn set(&self) -> CapsHashSet {
        self.kept.iter().copied().collect()
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let perfmon = self.dropped.contains(&Capability::CAP_PERFMON);
        write!(f, "{} kept", Names(&self.kept))?;
        match (perfmon, self.dropped.len()) {
            (_, 0) => write!(f, ", nothing else held"),
            (true, 1) => write!(f, ", CAP_PERFMON dropped"),
            (true, all) => write!(f, ", CAP_PERFMON and {} more dropped", all - 1),
            (false, all) => write!(f, ", {all} dropped"),
        }
    }
}

/// What [`drop_after_loading`] would do to the calling thread.
///
/// # Errors
/// When the kernel does not say what the thread has.
pub fn reduction() -> Result<Reduction, PrivilegeError> {
    reduction_but(&[])
}

fn reduction_but(also: &[Capability]) -> Result<Reduction, PrivilegeError> {
    Ok(Reduction::of(&caps::read(None, CapSet::Permitted)?, also))
}

/// Takes from the calling thread, and from those that it makes from now on, every capability that only loading the
/// programs needed, and the way to regain any: the inheritable and ambient sets are emptied and `no_new_privs` is set.
///
/// For UID 0 as well, which from now on passes over no file permissions. Namespaces are to be entered before.
///
/// # Errors
/// When the system refuses; some may be gone then.
pub fn drop_after_loading() -> Result<Reduction, PrivilegeError> {
    drop_but(&[])
}

/// As [`drop_after_loading`], for the thread that has to do with devices: with a network namespace that has a name, it
/// keeps CAP_SYS_ADMIN, because one that ended may come back and then has to be entered again.
///
/// # Errors
/// As [`drop_after_loading`].
pub fn drop_after_entering(netns: Option<&NetNs>) -> Result<Reduction, PrivilegeError> {
    match netns {
        Some(NetNs::Name(_)) => drop_but(&[Capability::CAP_SYS_ADMIN]),
        Some(NetNs::Pid(_)) | None => drop_but(&[]),
    }
}

fn drop_but(also: &[Capability]) -> Result<Reduction, PrivilegeError> {
    let reduction = reduction_but(also)?;
    let kept = reduction.set();
    set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    let dropped = caps::clear(None, CapSet::Ambient)
        .and_then(|()| caps::clear(None, CapSet::Inheritable))
        .and_then(|()| caps::set(None, CapSet::Effective, &kept))
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept));
    dropped.map_err(PrivilegeError::Drop)?;
    Ok(reduction)
}

/// Does something with the rights that [`drop_after_loading`] will leave to the calling thread, and gives the rest back
/// to it afterwards: so that what fails later fails now.
///
/// # Errors
/// When the system refuses.
pub fn with_kept_rights<T>(work: impl FnOnce() -> T) -> Result<T, PrivilegeError> {
    let effective = caps::read(None, CapSet::Effective)?;
    caps::set(None, CapSet::Effective, &reduction()?.set()).map_err(PrivilegeError::Drop)?;
    let result = work();
    caps::set(None, CapSet::Effective, &effective).map_err(PrivilegeError::Drop)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use Capability::{CAP_BPF, CAP_CHOWN, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};

    use super::*;

    #[test]
    fn what_is_in_use_later_is_kept_and_nothing_else() {
        let check = |permitted: &[Capability], kept: &[Capability], said: &str| {
            let reduction = Reduction::of(&permitted.iter().copied().collect(), &[]);
            assert_eq!(reduction.kept, kept, "{permitted:?}");
            assert_eq!(reduction.kept.len() + reduction.dropped.len(), permitted.len());
            assert_eq!(reduction.to_string(), said);
        };
        let both = [CAP_NET_ADMIN, CAP_BPF];
        let kept = "CAP_NET_ADMIN, CAP_BPF kept";
        check(&[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON], &both, &format!("{kept}, CAP_PERFMON dropped"));
        check(&[CAP_BPF, CAP_NET_ADMIN], &both, &format!("{kept}, nothing else held"));
        check(&[CAP_BPF, CAP_NET_ADMIN, CAP_CHOWN], &both, &format!("{kept}, 1 dropped"));
        let root = [CAP_CHOWN, CAP_SYS_ADMIN, CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON];
        check(&root, &both, &format!("{kept}, CAP_PERFMON and 2 more dropped"));
        let old = [CAP_NET_ADMIN, CAP_SYS_ADMIN];
        check(&old, &old, "CAP_NET_ADMIN, CAP_SYS_ADMIN kept, nothing else held");
    }

    #[test]
    fn a_thread_that_gave_up_can_regain_nothing_and_others_keep_theirs() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        let on_thread = std::thread::spawn(|| {
            let reduction = drop_after_loading().unwrap();
            assert_eq!(drop_after_loading().unwrap().dropped, []);
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert_eq!(caps::read(None, set).unwrap(), reduction.set(), "{set:?}");
            }
            for set in [CapSet::Inheritable, CapSet::Ambient] {
                assert_eq!(caps::read(None, set).unwrap(), CapsHashSet::new(), "{set:?}");
            }
            assert!(nix::sys::prctl::get_no_new_privs().unwrap());
            let inherited = std::thread::spawn(|| caps::read(None, CapSet::Permitted).unwrap());
            assert_eq!(inherited.join().unwrap(), reduction.set());
        });
        on_thread.join().unwrap();
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before);
    }

    #[test]
    fn a_trial_gives_the_rights_back() {
        let before = caps::read(None, CapSet::Effective).unwrap();
        let during = with_kept_rights(|| caps::read(None, CapSet::Effective).unwrap()).unwrap();
        assert_eq!(during, reduction().unwrap().set());
        assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before);
    }
}
