//! Programs of somebody else on the server's end: they count packets, and one of them drops all of IPv6.

use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};

use crate::netns::{DEVICE, Pair};

pub(crate) const NAME: &str = "other";

/// What the program says about IPv6; it leaves everything else to the next.
#[derive(Clone, Copy)]
pub(crate) enum Ipv6 {
    Next = -1,
    Drop = 2,
}

/// Where it stands.
#[derive(Clone, Copy)]
pub(crate) enum At {
    TcxFirst,
    TcxLast,
    Clsact { priority: u16 },
}

/// One program, at both hooks.
pub(crate) struct Other {
    ebpf: Ebpf,
    _stats: OwnedFd,
}

impl Other {
    pub(crate) fn attach(pair: &Pair, at: At, ipv6: Ipv6) -> Other {
        let stats = enable_stats(Stats::RunTime).unwrap();
        let mut ebpf = Ebpf::load(&object("classifier", &code(ipv6))).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut(NAME).unwrap().try_into().unwrap();
        program.load().unwrap();
        pair.on_server(|| {
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                let options = match at {
                    At::TcxFirst => TcAttachOptions::TcxOrder(LinkOrder::first()),
                    At::TcxLast => TcAttachOptions::TcxOrder(LinkOrder::last()),
                    At::Clsact { priority } => {
                        let handle = TcHandle::new(0, 1);
                        TcAttachOptions::Netlink(NlOptions { priority, handle, ..NlOptions::default() })
                    }
                };
                program.attach_with_options(DEVICE, hook, options).unwrap();
            }
        });
        Other { ebpf, _stats: stats }
    }

    /// How many packets it has seen, at both hooks together.
    pub(crate) fn seen(&self) -> u64 {
        let program: &SchedClassifier = self.ebpf.program(NAME).unwrap().try_into().unwrap();
        program.info().unwrap().run_count()
    }
}

/// Looks at `protocol` of `struct __sk_buff`.
fn code(ipv6: Ipv6) -> Vec<u8> {
    let instruction = |operation: u8, registers: u8, offset: i16, immediate: i32| {
        [&[operation, registers][..], &offset.to_le_bytes(), &immediate.to_le_bytes()].concat()
    };
    [
        instruction(0x61, 0x12, 16, 0),                            // r2 = r1->protocol
        instruction(0xB7, 0x00, 0, -1),                            // r0 = next
        instruction(0x55, 0x02, 1, i32::from(0x86DD_u16.to_be())), // unless r2 is IPv6, skip
        instruction(0xB7, 0x00, 0, ipv6 as i32),                   // r0 = the verdict
        instruction(0x95, 0x00, 0, 0),                             // return r0
    ]
    .concat()
}

/// An object file with one function, [`NAME`], in the section given.
pub(crate) fn object(kind: &str, code: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    let strings = format!("\0{NAME}\0{kind}\0.symtab\0.strtab\0").into_bytes();
    let named = |name: &str| strings.windows(name.len()).position(|part| part == name.as_bytes()).unwrap();
    let name = |name: &str| (named(name) as u32).to_le_bytes();
    // A global function in section 1, after the null symbol.
    let symbols =
        [&[0; 24][..], &name(NAME), &[0x12, 0, 1, 0], &[0; 8], &(code.len() as u64).to_le_bytes()].concat();
    let parts = [code, &symbols, &strings];
    let offset = |index: usize| HEADER + parts[..index].iter().map(|part| part.len()).sum::<usize>();
    let sections = offset(parts.len()).next_multiple_of(8);
    // Kind, flags, linked section, number of the first global symbol, alignment, size of an entry.
    let section = |label: &str, index: usize, about: [u64; 6]| {
        let [kind, flags, link, info, align, entry] = about;
        [
            &name(label)[..],
            &(kind as u32).to_le_bytes(),
            &flags.to_le_bytes(),
            &[0; 8],
            &(offset(index) as u64).to_le_bytes(),
            &(parts[index].len() as u64).to_le_bytes(),
            &(link as u32).to_le_bytes(),
            &(info as u32).to_le_bytes(),
            &align.to_le_bytes(),
            &entry.to_le_bytes(),
        ]
        .concat()
    };
    let half = |value: u16| value.to_le_bytes();
    let mut object = [
        // 64 bits, little-endian, version 1; relocatable, for BPF.
        &[0x7F, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &half(1),
        &half(247),
        &1_u32.to_le_bytes(),
        &[0; 16],
        &(sections as u64).to_le_bytes(),
        &[0; 4],
        &[half(HEADER as u16), half(0), half(0), half(64), half(4), half(3)].concat(),
        code,
        &symbols,
        &strings,
    ]
    .concat();
    object.resize(sections, 0);
    object.extend([0; 64]);
    object.extend(section(kind, 0, [1, 6, 0, 0, 8, 0]));
    object.extend(section(".symtab", 1, [2, 0, 3, 1, 8, 24]));
    object.extend(section(".strtab", 2, [3, 0, 0, 0, 1, 0]));
    object
}
