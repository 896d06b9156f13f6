//! The kernel side of shadow-agent and what it shares with userspace.
#![cfg_attr(target_arch = "bpf", no_std)]
