//! What keeps a device from taking our XDP program, and what an operator can do about it.

use std::fmt;

use aya::programs::ProgramError;
use nix::errno::Errno;

use super::KernelError;
use crate::privileges::KernelVersion;

/// Why a device does not take our XDP program. Nothing on it was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XdpObstacle {
    /// Another one is attached.
    #[error("{0} is attached there, and there can be only one")]
    Program(XdpProgram),
    /// Another one is attached to a device that this one is part of, such as a bond.
    #[error("an XDP program is attached to a device that it belongs to")]
    Upper,
    /// The driver has no native XDP.
    #[error("its driver has no native XDP")]
    NotNative,
    /// The driver has native XDP, and not for this device as it is set up.
    #[error(
        "its driver refuses native XDP as the device is set up ({0}; it may be for its MTU, its queues, or a veth's peer)"
    )]
    Driver(Errno),
}

impl XdpObstacle {
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            XdpObstacle::Program(_) | XdpObstacle::Upper => {
                "set capture.mode to tc, which goes with other programs, or have its owner take it off"
            }
            XdpObstacle::NotNative | XdpObstacle::Driver(_) => {
                "set capture.xdp to generic, or capture.mode to tc"
            }
        }
    }
}

/// An XDP program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// The number that the kernel gave it.
    pub id: u32,
    /// Its name, when it has one and we may ask.
    pub name: Option<String>,
}

impl fmt::Display for XdpProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "XDP program `{name}` (id {})", self.id),
            None => write!(f, "an XDP program (id {})", self.id),
        }
    }
}

/// An XDP program was not accepted: for want of a newer kernel, if this one is older than the kernel that has all that it
/// needs. Older ones are not refused unasked, because some have it from their distributor.
pub(in crate::capture::kernel) fn program(
    name: &str,
    source: ProgramError,
    running: Option<KernelVersion>,
) -> KernelError {
    match (super::program(name, source), running) {
        (error @ (KernelError::Privilege { .. } | KernelError::Memory { .. }), _) => error,
        (error, Some(running)) if running < KernelVersion::XDP => {
            KernelError::XdpKernel { running, source: error.into() }
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_an_old_kernel_is_blamed_for_its_age() {
        let check = |number: Errno, minor: u32, start: &str| {
            let source = ProgramError::IOError(io::Error::from_raw_os_error(number as i32));
            let text = program("p", source, Some(KernelVersion { major: 5, minor })).to_string();
            assert!(text.starts_with(start), "{text:?} should start with {start:?}");
        };
        check(Errno::EINVAL, 17, "capture.mode xdp needs Linux 5.18, and this is 5.17: set it to tc");
        check(Errno::EINVAL, 18, "the kernel refuses loading program p");
        check(Errno::EPERM, 17, "the kernel does not permit loading program p");
    }

    #[test]
    fn obstacles_name_what_is_there_and_the_remedy() {
        let check = |obstacle: XdpObstacle, expected: &str| {
            let error = KernelError::Xdp { device: "eth0".into(), obstacle, source: Errno::EBUSY.into() };
            assert_eq!(error.to_string(), format!("capture.mode xdp cannot be had on eth0: {expected}"));
        };
        let other =
            |name: Option<&str>| XdpObstacle::Program(XdpProgram { id: 7, name: name.map(str::to_owned) });
        check(
            other(Some("guard")),
            "XDP program `guard` (id 7) is attached there, and there can be only one: set capture.mode to tc, which goes \
             with other programs, or have its owner take it off",
        );
        check(
            other(None),
            "an XDP program (id 7) is attached there, and there can be only one: set capture.mode to tc, which goes with \
             other programs, or have its owner take it off",
        );
        check(
            XdpObstacle::NotNative,
            "its driver has no native XDP: set capture.xdp to generic, or capture.mode to tc",
        );
    }
}
