//! What each subcommand does, and the exit code that each error becomes.
//!
//! Holds no logic of a stage: it loads the configuration, calls one module, and shows what that gave.

use std::env;
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use http::StatusCode;

use crate::admin::client::{Client, ClientError};
use crate::admin::switch::SwitchError;
use crate::admin::{AdminError, SwitchFile};
use crate::app::{self, Options, Pacing};
use crate::audit::{self, Audit, AuditError};
use crate::capture::file::{FileError, FileSource};
use crate::capture::interfaces::netns::NetNsError;
use crate::capture::interfaces::{self, InterfaceError};
use crate::capture::kernel::{KernelError, XdpObstacle};
use crate::cli::{
    Command, ConfigCommand, CtlArgs, CtlCommand, DoctorArgs, EndingArgs, Exit, InspectArgs, RecordArgs,
    ReplayArgs, RunArgs, RunCommand, UsageError,
};
use crate::compare::CompareError;
use crate::config::check::{LoopError, check_loop};
use crate::config::{self, AuditPlace, Config, ConfigError, Credentials, Needs, Order};
use crate::doctor;
use crate::inspect::{self, InspectError};
use crate::policy::PolicyError;
use crate::policy::mask::Masker;
use crate::privileges::{self, PrivilegeError};
use crate::record::{self, RecordError, Recorder};
use crate::replay::ReplayError;
use crate::shard::PipelineSettings;
use crate::terminal;

/// Runs a subcommand.
///
/// # Errors
/// One sentence that names the value, where it came from and the remedy; [`exit_of`] gives its exit code.
pub fn execute(command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(arguments) => run(arguments),
        Command::Inspect(arguments) => inspect(arguments),
        Command::Replay(arguments) => replay(arguments),
        Command::Record(arguments) => record(arguments),
        Command::Ctl(arguments) => ctl(arguments),
        Command::Doctor(arguments) => doctor(arguments),
        Command::Config(arguments) => match &arguments.command {
            ConfigCommand::Check { file } => check(file),
            ConfigCommand::Show(arguments) => show(arguments),
        },
    }
}

fn run(arguments: &RunArgs) -> anyhow::Result<Exit> {
    let config = config::load(Needs::RUN, arguments.config.as_deref(), env::vars(), arguments)?;
    for advice in config::advice::here(&config) {
        tracing::warn!("{advice}");
    }
    privileges::check(config.capture.netns.as_ref())?;
    let own = interfaces::own_addresses(config.capture.netns.as_ref())?;
    check_loop(&config, &own)?;
    let EndingArgs { report, gate, label } = arguments.ending.clone();
    let options = Options {
        duration: arguments.duration,
        report,
        gate,
        label,
        switch: arguments.state.as_deref().map(SwitchFile::in_directory),
        audit: audit_log(&config, arguments.state.as_deref()),
    };
    let arguments = arguments.clone();
    let loader = move || {
        let config = config::load(Needs::RUN, arguments.config.as_deref(), env::vars(), &arguments)?;
        // Another namespace cannot be entered any more; its addresses are those of the start.
        let now = match &config.capture.netns {
            None => interfaces::own_addresses(None)?,
            Some(_) => own.clone(),
        };
        check_loop(&config, &now)?;
        Ok(config)
    };
    app::run(&config, &options, Box::new(loader))
}

/// Where the audit log of an agent with that state directory is.
fn audit_log(config: &Config, state: Option<&Path>) -> Option<audit::Settings> {
    let path = match &config.audit.place {
        AuditPlace::Off => None,
        AuditPlace::File(path) => Some(path.clone()),
        AuditPlace::State => state.map(Audit::in_directory),
    };
    path.map(|path| audit::Settings { path, max_size: config.audit.max_size, keep: config.audit.keep })
}

fn inspect(arguments: &InspectArgs) -> anyhow::Result<Exit> {
    let (settings, masker) = offline(arguments.config.as_deref(), &arguments.as_run())?;
    let source = FileSource::open(&arguments.file)?;
    let mut output = BufWriter::new(io::stdout().lock());
    let watched = terminal::is_watched() && !io::stdout().is_terminal();
    match inspect::run(source, &settings, &masker, &mut output, watched) {
        // Whoever took the lines had enough of them.
        Err(InspectError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        ended => Ok(ended.map(|()| Exit::Success)?),
    }
}

fn replay(arguments: &ReplayArgs) -> anyhow::Result<Exit> {
    let mut config =
        config::load(Needs::REPLAY, arguments.config.as_deref(), env::vars(), &arguments.as_run())?;
    if arguments.keep_order {
        config.replay.order = Order::Connection;
    }
    let EndingArgs { report, gate, label } = arguments.ending.clone();
    let audit = audit_log(&config, None);
    let options = Options { report, gate, label, audit, ..Options::default() };
    let source = FileSource::open(&arguments.from)?;
    let pacing = Pacing { pace: arguments.speed };
    app::replay(&config, &options, source, pacing)
}

/// How a file is read, and masked.
fn offline(file: Option<&Path>, arguments: &RunArgs) -> anyhow::Result<(PipelineSettings, Masker)> {
    let config = config::load(Needs::INSPECT, file, env::vars(), arguments)?;
    let settings = PipelineSettings::new(&config.limits, &config.capture.ports, 1, fastrand::u64(..));
    Ok((settings, Masker::new(&config.mask, Credentials::Skip)?))
}

fn record(arguments: &RecordArgs) -> anyhow::Result<Exit> {
    let options = record::Options {
        out: arguments.out.clone(),
        rotate_size: arguments.rotate_size,
        rotate_every: arguments.rotate_every,
        keep: arguments.keep,
        force: arguments.force,
        from: arguments.from.clone(),
    };
    record::Kind::of(&options.out)?;
    if let (Some(keep), None, None) = (options.keep, options.rotate_size, options.rotate_every) {
        return Err(UsageError::Keep(keep).into());
    }
    let config = arguments.config.as_deref();
    let Some(from) = &arguments.from else {
        let config = config::load(Needs::RECORD, config, env::vars(), &arguments.as_run())?;
        privileges::check(config.capture.netns.as_ref())?;
        let switch = arguments.state.as_deref().map(SwitchFile::in_directory);
        let audit = audit_log(&config, arguments.state.as_deref());
        let live = Options { duration: arguments.duration, switch, audit, ..Options::default() };
        return app::record(&config, &live, &options);
    };
    let (settings, masker) = offline(config, &arguments.as_run())?;
    let source = FileSource::open(from)?;
    let recorder = Recorder::new(&options, Arc::new(masker))?;
    app::record_file(source, settings, recorder)
}

fn ctl(arguments: &CtlArgs) -> anyhow::Result<Exit> {
    let token = match &arguments.token_file {
        Some(path) => Some(
            fs::read_to_string(path)
                .map_err(|source| UsageError::TokenFile { path: path.clone(), source })?,
        ),
        None => None,
    };
    let base = format!("http://{}", arguments.admin.trim_start_matches("http://"));
    let base = base.parse().map_err(|_| UsageError::Admin(arguments.admin.clone()))?;
    let client = Client::new(base, token.as_deref().map(str::trim))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = match &arguments.command {
        CtlCommand::Status => runtime.block_on(client.status())?.to_string(),
        CtlCommand::Enable => runtime.block_on(client.set_enabled(true))?.to_string(),
        CtlCommand::Disable => runtime.block_on(client.set_enabled(false))?.to_string(),
        CtlCommand::Sample { share } => runtime.block_on(client.set_sample(share))?.to_string(),
        CtlCommand::Reload => runtime.block_on(client.reload())?.to_string(),
        CtlCommand::Run { command: RunCommand::Start { label } } => {
            runtime.block_on(client.start_run(label))?.to_string()
        }
    };
    print(&said)?;
    Ok(Exit::Success)
}

fn doctor(arguments: &DoctorArgs) -> anyhow::Result<Exit> {
    let config = match &arguments.config {
        Some(path) => Some(config::load(Needs::RUN, Some(path), env::vars(), &RunArgs::default())?),
        None => None,
    };
    let report = doctor::run(config.as_ref());
    print(&report.to_string())?;
    Ok(report.exit())
}

fn check(file: &Path) -> anyhow::Result<Exit> {
    let config = config::load(Needs::RUN, Some(file), std::iter::empty(), &RunArgs::default())?;
    for advice in config::advice::here(&config) {
        writeln!(io::stderr(), "warning: {advice}").context("standard error cannot be written")?;
    }
    let writes: Vec<_> =
        config::writes::in_words(&config).iter().map(|line| format!("writes: {line}")).collect();
    print(&format!("{}\n{}: no mistakes found", writes.join("\n"), file.display()))?;
    Ok(Exit::Success)
}

fn show(arguments: &RunArgs) -> anyhow::Result<Exit> {
    let config = config::load(Needs::RUN, arguments.config.as_deref(), env::vars(), arguments)?;
    print(&config::show::yaml(&config)?)?;
    Ok(Exit::Success)
}

/// The exit code that an error of [`execute`] becomes.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<KernelError>() {
            return match error {
                KernelError::Xdp { obstacle: XdpObstacle::Program(_) | XdpObstacle::Upper, .. } => {
                    Exit::Failure
                }
                KernelError::EmptyObject
                | KernelError::XdpKernel { .. }
                | KernelError::Xdp { .. }
                | KernelError::Privilege { .. }
                | KernelError::Unsupported { .. }
                | KernelError::Verifier { .. } => Exit::Unsupported,
                KernelError::Networks { .. } | KernelError::Shards { .. } | KernelError::RingSize { .. } => {
                    Exit::Usage
                }
                _ => Exit::Failure,
            };
        }
        if let Some(error) = cause.downcast_ref::<AdminError>() {
            return match error {
                AdminError::TokenRequired { .. }
                | AdminError::TokenFile { .. }
                | AdminError::Token { .. } => Exit::Usage,
                _ => Exit::Failure,
            };
        }
        if let Some(SwitchError::Directory { .. } | SwitchError::Read { .. }) = cause.downcast_ref() {
            return Exit::Usage;
        }
        if let Some(AuditError::Open { .. }) = cause.downcast_ref() {
            return Exit::Usage;
        }
        if let Some(ClientError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) =
            cause.downcast_ref()
        {
            return Exit::Usage;
        }
        if let Some(FileError::Open { .. } | FileError::Unknown { .. } | FileError::Link { .. }) =
            cause.downcast_ref()
        {
            return Exit::Usage;
        }
        if let Some(RecordError::Kind { .. } | RecordError::Exists { .. } | RecordError::Itself { .. }) =
            cause.downcast_ref()
        {
            return Exit::Usage;
        }
        if cause.is::<PrivilegeError>() {
            return Exit::Unsupported;
        }
        if let Some(InterfaceError::NetNs(NetNsError::Privilege { .. })) = cause.downcast_ref() {
            return Exit::Unsupported;
        }
        let usage = cause.is::<ConfigError>()
            || cause.is::<LoopError>()
            || cause.is::<InterfaceError>()
            || cause.is::<PolicyError>()
            || cause.is::<CompareError>()
            || cause.is::<ReplayError>()
            || cause.is::<UsageError>();
        if usage {
            return Exit::Usage;
        }
    }
    Exit::Failure
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end()).context("standard output cannot be written")
}
