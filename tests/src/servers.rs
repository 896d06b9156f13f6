//! Real servers, each with configuration, logs and temporary files of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client;
use crate::netns::Namespace;
use crate::process::{Process, wait_until};
use crate::service::Version;

const START: Duration = Duration::from_secs(15);
/// How long a log must stay as it is before it counts as complete.
const SETTLE: Duration = Duration::from_millis(300);

/// Where cargo left a program of this workspace: beside the one that runs, or named by `SHADOW_TESTS_AGENT`.
///
/// # Errors
/// When it is not there; the error names the command that builds it.
pub fn program(name: &str) -> Result<PathBuf> {
    let named = std::env::var_os("SHADOW_TESTS_AGENT").map(PathBuf::from);
    if let Some(agent) = &named
        && name == "shadow-agent"
    {
        return agent.canonicalize().with_context(|| {
            format!(
                "SHADOW_TESTS_AGENT names {}, which is not there; run `cargo xtask test`",
                agent.display()
            )
        });
    }
    let own = std::env::current_exe()?;
    let folders =
        [named.as_deref().and_then(Path::parent), own.parent(), own.parent().and_then(Path::parent)];
    let found = folders.into_iter().flatten().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built; run the tests by `cargo xtask test`"))
}

/// Waits until something listens there.
///
/// # Errors
/// When nothing does in time, or the server ended.
pub fn wait_listening(namespace: &Namespace, address: SocketAddr, server: &mut Process) -> Result<()> {
    namespace.run(|| {
        wait_until(&format!("a server on {address}"), START, || {
            server.check_running()?;
            client::Connection::open(address).map(drop)
        })
    })
}

/// The demo service, in one version, with a log of its requests.
#[derive(Debug)]
pub struct Shop {
    /// The process.
    pub process: Process,
    log: PathBuf,
}

impl Shop {
    /// Starts one; `name` tells its files from others'.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(
        namespace: &Namespace,
        folder: &Path,
        name: &str,
        version: Version,
        port: u16,
    ) -> Result<Shop> {
        Shop::with_delay(namespace, folder, name, version, port, Duration::ZERO)
    }

    /// Starts one that waits before each response.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn with_delay(
        namespace: &Namespace,
        folder: &Path,
        name: &str,
        version: Version,
        port: u16,
        delay: Duration,
    ) -> Result<Shop> {
        let log = folder.join(format!("{name}.jsonl"));
        let version = match version {
            Version::Production => "production",
            Version::Candidate => "candidate",
        };
        let mut command = namespace.command(program("demo-service")?);
        command.args(["--version", version, "--port", &port.to_string()]);
        command.args(["--delay", &delay.as_millis().to_string()]).arg("--log").arg(&log);
        let mut process = Process::start(name, &mut command, &folder.join(format!("{name}.log")))?;
        wait_listening(namespace, SocketAddr::from(([127, 0, 0, 1], port)), &mut process)?;
        Ok(Shop { process, log })
    }

    /// Every request that it received, in order.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&self) -> Result<Vec<Received>> {
        let text = fs::read_to_string(&self.log)?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(Received).collect())
    }
}

/// A request as the demo service received it.
#[derive(Clone, Debug)]
pub struct Received(Value);

impl Received {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text("method")
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.text("target")
    }

    /// SHA-256 of the body, in hexadecimal digits.
    #[must_use]
    pub fn body_sha256(&self) -> &str {
        self.text("body_sha256")
    }

    /// The first value of a header field (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.0.get("headers")?.as_array()?;
        let field = fields.iter().find(|field| field.get(0).and_then(Value::as_str) == Some(name))?;
        field.get(1)?.as_str()
    }

    /// How many requests of the user whom it names (`x-user`) were under way then, with this one.
    #[must_use]
    pub fn under_way(&self) -> Option<u64> {
        self.0.get("under_way")?.as_u64()
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// nginx with one worker.
#[derive(Debug)]
pub struct Nginx {
    /// The master process.
    pub process: Process,
    access: PathBuf,
}

impl Nginx {
    /// Starts nginx with `http` as the content of its `http` block, which must hold a server on `port`.
    ///
    /// # Errors
    /// When it does not come up; its own message is in the error.
    pub fn start(namespace: &Namespace, folder: &Path, name: &str, port: u16, http: &str) -> Result<Nginx> {
        let home = folder.join(name);
        fs::create_dir_all(&home)?;
        let access = home.join("access.log");
        let mut text = String::new();
        let shown = home.display();
        // Whoever runs the tests owns the files: workers stay root rather than lose access to them.
        writeln!(text, "user root;\nworker_processes 1;\ndaemon off;\npid {shown}/pid;")?;
        writeln!(text, "error_log {shown}/error.log warn;\nevents {{ worker_connections 4096; }}\nhttp {{")?;
        writeln!(
            text,
            "log_format line '$request_method $request_uri $status $request_length $bytes_sent';"
        )?;
        writeln!(text, "access_log {shown}/access.log line;\nkeepalive_requests 1000000;\ntcp_nodelay on;")?;
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {shown}/{kind};")?;
        }
        writeln!(text, "client_max_body_size 64m;\n{http}\n}}")?;
        let file = home.join("nginx.conf");
        fs::write(&file, text)?;
        let mut command = namespace.command("nginx");
        command.arg("-e").arg(home.join("error.log")).arg("-p").arg(&home).arg("-c").arg(&file);
        let mut process = Process::start(name, &mut command, &home.join("output.log"))?;
        wait_listening(namespace, SocketAddr::from(([127, 0, 0, 1], port)), &mut process)?;
        Ok(Nginx { process, access })
    }

    /// The lines of the access log (`METHOD TARGET STATUS …`) once no more are added; a probe of ours leaves none.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn access_log(&self) -> Result<Vec<String>> {
        let mut text = fs::read_to_string(&self.access)?;
        loop {
            crate::process::pause(SETTLE)?;
            let later = fs::read_to_string(&self.access)?;
            if later == text {
                return Ok(text.lines().map(str::to_owned).collect());
            }
            text = later;
        }
    }

    /// The process ids of its workers.
    ///
    /// # Errors
    /// When the master is gone.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(children.split_whitespace().filter_map(|id| id.parse().ok()).collect())
    }

    /// Ends it gently, so that buffered logs are written.
    ///
    /// # Errors
    /// When it does not end.
    pub fn quit(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGQUIT)?;
        self.process.wait(START).map(drop)
    }
}

/// A WSGI application under gunicorn (Python).
#[derive(Debug)]
pub struct Gunicorn {
    /// The master process.
    pub process: Process,
}

impl Gunicorn {
    /// Starts the function `application` of the Python source given, with two threads.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(
        namespace: &Namespace,
        folder: &Path,
        name: &str,
        port: u16,
        source: &str,
    ) -> Result<Gunicorn> {
        let home = folder.join(name);
        fs::create_dir_all(&home)?;
        fs::write(home.join("application.py"), source)?;
        let mut command = namespace.command("/usr/bin/gunicorn");
        command.args(["--bind", &format!("[::]:{port}")]);
        command.args(["--threads", "2", "--keep-alive", "30", "--no-sendfile", "--chdir"]).arg(&home);
        command.arg("application:application");
        let mut process = Process::start(name, &mut command, &home.join("output.log"))?;
        wait_listening(namespace, SocketAddr::from(([127, 0, 0, 1], port)), &mut process)?;
        Ok(Gunicorn { process })
    }
}

/// A server of which nothing is asked but that it serves.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
}

impl Server {
    /// The program in `words`, with its arguments, in the folder `home`, once it listens on the port.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(
        namespace: &Namespace,
        home: &Path,
        name: &str,
        port: u16,
        words: &[&str],
    ) -> Result<Server> {
        let (program, arguments) = words.split_first().context("no program")?;
        let mut command = namespace.command(program);
        command.args(arguments).current_dir(home);
        let mut process = Process::start(name, &mut command, &home.join(format!("{name}.log")))?;
        wait_listening(namespace, SocketAddr::from(([127, 0, 0, 1], port)), &mut process)?;
        Ok(Server { process })
    }

    /// Apache with the files of a folder, compressed on the fly.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn apache(namespace: &Namespace, folder: &Path, port: u16) -> Result<Server> {
        let home = folder.join("apache");
        fs::create_dir_all(&home)?;
        let mut text = String::new();
        for module in ["mpm_event", "authz_core", "mime", "filter", "deflate", "alias", "http2"] {
            writeln!(text, "LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so")?;
        }
        let (shown, root) = (home.display(), folder.display());
        writeln!(text, "Listen {port}\nServerName production\nServerRoot {shown}\nPidFile {shown}/pid")?;
        writeln!(
            text,
            "Mutex file:{shown} default\nErrorLog {shown}/error.log\nUser www-data\nGroup www-data"
        )?;
        writeln!(
            text,
            "TypesConfig /dev/null\nForceType text/plain\nAddOutputFilterByType DEFLATE text/plain"
        )?;
        // HTTP/2 for those who ask for it.
        writeln!(text, "Protocols h2c http/1.1\nLogLevel warn")?;
        writeln!(text, "DocumentRoot {root}\nRedirect 302 /moved /small")?;
        writeln!(text, "<Directory {root}>\nRequire all granted\n</Directory>")?;
        let file = home.join("apache.conf");
        fs::write(&file, text)?;
        let words = ["apache2", "-D", "FOREGROUND", "-f", &file.display().to_string()];
        Server::start(namespace, &home, "apache", port, &words)
    }

    /// HAProxy before another server on this host.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn haproxy(namespace: &Namespace, folder: &Path, port: u16, behind: u16) -> Result<Server> {
        let file = folder.join("haproxy.cfg");
        let text = format!(
            "global\n    maxconn 1000\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 30s\n    \
             timeout server 30s\nfrontend front\n    bind :::{port} v4v6\n    default_backend all\nbackend all\n    \
             server one 127.0.0.1:{behind}\n"
        );
        fs::write(&file, text)?;
        Server::start(
            namespace,
            folder,
            "haproxy",
            port,
            &["haproxy", "-db", "-f", &file.display().to_string()],
        )
    }

    /// Python's own server, with the files of a folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn python(namespace: &Namespace, folder: &Path, port: u16) -> Result<Server> {
        let port_text = port.to_string();
        let words = ["/usr/bin/python3", "-m", "http.server", "--protocol", "HTTP/1.1", &port_text];
        Server::start(namespace, folder, "python", port, &words)
    }

    /// Node.js with a program that listens on the port in its first argument.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn node(namespace: &Namespace, folder: &Path, port: u16, source: &str) -> Result<Server> {
        let file = folder.join("server.js");
        fs::write(&file, source)?;
        let words = ["node", &file.display().to_string(), &port.to_string()];
        Server::start(namespace, folder, "node", port, &words)
    }
}
