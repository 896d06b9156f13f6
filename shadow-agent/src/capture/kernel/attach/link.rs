//! BPF links between a program and a device, at TCX and at XDP: the kernel drops one with the process that holds it, and
//! refuses what would take another's place.
//!
//! Made and asked about by the system call itself: aya falls back to attaching by netlink, which outlives the process,
//! when a driver refuses a link, and does not say whether a link still holds.
#![expect(unsafe_code, reason = "system calls that aya does not make by themselves")]

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// `BPF_OBJ_GET_INFO_BY_FD` of `enum bpf_cmd`.
const GET_INFO: libc::c_long = 15;
/// `BPF_LINK_CREATE` of `enum bpf_cmd`.
const LINK_CREATE: libc::c_long = 28;

/// Where a link attaches a program: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// `BPF_XDP`.
    Xdp = 37,
    /// `BPF_TCX_INGRESS`.
    TcxIngress = 46,
    /// `BPF_TCX_EGRESS`.
    TcxEgress = 47,
}

/// The part of `union bpf_attr` that creates a link to a device.
#[repr(C)]
struct Create {
    program: u32,
    device: u32,
    kind: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that asks about an object.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info` of a link to a device.
#[derive(Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// 0 once the link holds no device any more.
    device: u32,
    attach_type: u32,
}

/// A link, which is let go by dropping it.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Attaches a program to the device with this index.
    pub(super) fn create(
        program: BorrowedFd<'_>,
        device: u32,
        kind: Kind,
        flags: u32,
    ) -> Result<Link, Errno> {
        let program = number(program.as_raw_fd())?;
        let attributes = Create { program, device, kind: kind as u32, flags };
        // SAFETY: the kernel reads as many bytes as it is told, all of them initialised.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const attributes, size_of::<Create>()) };
        let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel just opened it for us, and nobody else knows it.
        Ok(Link(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether it still holds the device: an administrator may have detached it (`bpftool link detach`).
    pub(super) fn holds(&self) -> Result<bool, Errno> {
        let mut info = Info::default();
        let length = u32::try_from(size_of::<Info>()).unwrap_or_default();
        let attributes = GetInfo {
            fd: number(self.0.as_raw_fd())?,
            length,
            info: (&raw mut info).expose_provenance() as u64,
        };
        // SAFETY: the kernel reads as many bytes as it is told, all of them initialised, and writes at most `length` bytes
        // to `info`, which is ours alone, and of plain numbers.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, GET_INFO, &raw const attributes, size_of::<GetInfo>()) };
        Errno::result(result)?;
        Ok(info.device != 0)
    }
}

fn number(fd: i32) -> Result<u32, Errno> {
    u32::try_from(fd).map_err(|_| Errno::EBADF)
}
