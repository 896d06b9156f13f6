//! What is expected of the kernel that runs the tests. A difference is asserted and said, never skipped.

use nix::sys::utsname::uname;
use shadow_agent::capture::kernel::Attachment;

/// Whether the running kernel is of this version or a later one.
pub(crate) fn at_least(major: u32, minor: u32) -> bool {
    let name = uname().unwrap();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok()).unwrap();
    (next(), next()) >= (major, minor)
}

/// How programs end up attached when TCX is asked for: there is TCX since Linux 6.6.
pub(crate) fn expected_attachment() -> Attachment {
    if at_least(6, 6) {
        return Attachment::Tcx;
    }
    differs("no TCX below 6.6: programs are attached by clsact");
    Attachment::Clsact
}

/// Says that a test asserts something else on this kernel than on the newest; the matrix shows it.
#[expect(clippy::print_stdout, reason = "the harness shows what a test prints when it is asked to")]
pub(crate) fn differs(how: &str) {
    println!("expected difference: {how}");
}
