//! Carries what the kernel programs log over to `tracing`. For debugging: it slows the kernel side down.

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::error::{self, KernelError};

/// The reading end of the kernel programs' log.
pub(super) struct Log(EbpfLogger<Bridge>);

impl Log {
    /// Takes the log's ring. It must stay alive until the programs are loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Log, KernelError> {
        EbpfLogger::init_with_logger(ebpf, Bridge)
            .map(Log)
            .map_err(|source| error::classify("reading the kernel programs' log", source))
    }

    /// Passes on everything that is there.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "shadow_agent::kernel", "{}", record.args());
    }

    fn flush(&self) {}
}
