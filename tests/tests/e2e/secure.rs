//! Targets over TLS, and targets with credentials of their own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::process::wait_until;
use shadow_tests::servers::{Nginx, Shop};
use shadow_tests::service::Version;

/// The name that the candidate's certificate is for; nobody can look it up.
const NAME: &str = "candidate.shadow.test";

/// What is known of a request once nginx has ended TLS: protocol, client certificate, Host.
const SEEN: &str =
    "log_format seen '$request_method $request_uri $server_protocol $ssl_client_verify $host';";

/// An authority made for this test, and the files with what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(bed: &Bed) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        // Not the name that certificates have by default: one that is signed by its own name counts as signed by itself.
        params.distinguished_name.push(DnType::CommonName, "shadow test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let folder = bed.folder().to_owned();
        fs::write(folder.join("ca.pem"), issuer.pem())?;
        Ok(Authority { issuer, folder })
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.issuer)?;
        fs::write(self.folder.join(format!("{name}.pem")), certificate.pem())?;
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }
}

/// A candidate that serves a file over TLS with HTTP/2, to clients with a certificate only.
fn secure_candidate(bed: &Bed) -> Result<Nginx> {
    let folder = bed.folder().display();
    let http = format!(
        "{SEEN}\naccess_log {folder}/seen.log seen;\n\
         server {{ listen {CANDIDATE_PORT} ssl http2; root {folder}/public;\n\
         ssl_certificate {folder}/{NAME}.pem; ssl_certificate_key {folder}/{NAME}.key;\n\
         ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; }}"
    );
    Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &http)
}

fn production(bed: &Bed) -> Result<Nginx> {
    fs::create_dir_all(bed.folder().join("public"))?;
    fs::write(bed.folder().join("public/page"), "the same page\n")?;
    let http = format!("server {{ listen {PORT}; root {}/public; }}", bed.folder().display());
    Nginx::start(&bed.production, bed.folder(), "production", PORT, &http)
}

fn configured(bed: &Bed, tls: &str) -> Result<String> {
    let config = bed.folder().join("agent.yaml");
    let folder = bed.folder().display();
    let url = bed.candidate_url().replace("http://", "https://");
    fs::write(
        &config,
        format!(
            "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
             replay: {{ targets: [ {{ name: candidate, url: \"{url}\", \
             tls: {{ ca: {folder}/ca.pem, server_name: {NAME}{tls} }} }} ] }}\n"
        ),
    )?;
    Ok(config.to_string_lossy().into_owned())
}

fn ask(bed: &Bed, count: usize) -> Result<()> {
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for _ in 0..count {
            connection.exchange(&request("GET", "/page", &[("Accept", "*/*")], b""))?;
        }
        Ok(())
    })
}

#[test]
fn a_candidate_behind_tls_with_client_certificates_is_asked_by_http2_and_compared() -> Result<()> {
    const REQUESTS: usize = 20;
    let bed = Bed::new()?;
    let authority = Authority::new(&bed)?;
    authority.sign(NAME)?;
    authority.sign("agent")?;
    let (_production, candidate) = (production(&bed)?, secure_candidate(&bed)?);
    let folder = bed.folder().display();
    let config = configured(&bed, &format!(", cert: {folder}/agent.pem, key: {folder}/agent.key"))?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config])?;
    ask(&bed, REQUESTS)?;
    let metrics = agent.settle(REQUESTS as u64)?;
    let matches = metrics.count("shadow_comparisons_total", &[("target", "candidate"), ("result", "match")]);
    ensure!(
        matches == REQUESTS as u64,
        "{matches} matches of {REQUESTS}; the agent said:\n{}",
        agent.process.log()
    );
    // Its ends are written to the log when they are complete.
    candidate.access_log()?;
    let seen = fs::read_to_string(bed.folder().join("seen.log"))?;
    let seen: Vec<&str> = seen.lines().filter(|line| line.contains("/page")).collect();
    ensure!(seen.len() == REQUESTS, "nginx has seen {seen:?}");
    ensure!(seen.iter().all(|line| *line == "GET /page HTTP/2.0 SUCCESS shop.example"), "{seen:?}");
    agent.finish().map(drop)
}

#[test]
fn a_candidate_that_is_not_who_it_should_be_is_sent_nothing_and_named_once_in_the_log() -> Result<()> {
    const REQUESTS: usize = 5;
    let bed = Bed::new()?;
    let authority = Authority::new(&bed)?;
    authority.sign(NAME)?;
    let (_production, candidate) = (production(&bed)?, secure_candidate(&bed)?);
    let config = configured(&bed, "")?;
    // From now on another authority is trusted.
    Authority::new(&bed)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config])?;
    ask(&bed, REQUESTS)?;
    let metrics = agent.settle(REQUESTS as u64)?;
    let failed = metrics.count("shadow_replays_total", &[("outcome", "failed"), ("reason", "tls")]);
    ensure!(failed == REQUESTS as u64, "{failed} failures of TLS of {REQUESTS}");
    candidate.access_log()?;
    let seen = fs::read_to_string(bed.folder().join("seen.log"))?;
    ensure!(!seen.contains("/page"), "nginx has seen {seen}");
    let log = agent.process.log();
    let named = log.matches("cannot be spoken to over TLS").count();
    ensure!(named == 1, "it was said {named} times:\n{log}");
    agent.finish().map(drop)
}

#[test]
fn a_certificate_that_cannot_be_read_is_an_error_of_configuration() -> Result<()> {
    let bed = Bed::new()?;
    let config = configured(&bed, "")?;
    let output = agent::command(&bed, &["config", "check", &config])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{output:?}");
    ensure!(
        said.contains("ca.pem") && said.contains("cannot be read") && said.contains("replay.targets[0].tls"),
        "{said}"
    );
    Ok(())
}

#[test]
fn production_s_credentials_are_replaced_by_the_candidate_s_own_which_follow_their_file() -> Result<()> {
    const SECRETS: [&str; 3] = ["s3cr3t-production", "s3cr3t-own", "s3cr3t-newer"];
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let token = bed.folder().join("token");
    fs::write(&token, "Bearer s3cr3t-own\n")?;
    let config = bed.folder().join("agent.yaml");
    fs::write(
        &config,
        format!(
            "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
             replay:\n  credentials: replace\n  targets:\n  - name: candidate\n    url: \"{}\"\n    \
             credentials: {{ headers: {{ authorization: {{ file: {} }} }} }}\n",
            bed.candidate_url(),
            token.display()
        ),
    )?;
    let config = config.to_string_lossy().into_owned();
    let checked = agent::command(&bed, &["config", "show", "--config", &config])?.output()?;
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(shown.contains("token"), "{checked:?}");
    let mut agent = Agent::with_arguments(&bed, &["--config", &config])?;
    let ask = || {
        let headers = [("Authorization", "Bearer s3cr3t-production"), ("Cookie", "id=s3cr3t-production")];
        bed.client.run(|| {
            Connection::open(bed.production_address())?
                .exchange(&request("GET", "/catalog", &headers, b""))
                .map(drop)
        })
    };
    let received = |wanted: &str| {
        let all = candidate.requests()?;
        let last = all.last().and_then(|request| request.header("authorization")).map(str::to_owned);
        ensure!(last.as_deref() == Some(wanted), "the candidate was sent {last:?}");
        ensure!(all.iter().all(|request| request.header("cookie").is_none()), "{all:?}");
        Ok(())
    };
    ask()?;
    agent.settle(1)?;
    received("Bearer s3cr3t-own")?;
    fs::write(&token, "Bearer s3cr3t-newer\n")?;
    wait_until("the new credential", std::time::Duration::from_secs(20), || {
        ask()?;
        shadow_tests::process::pause(std::time::Duration::from_millis(300))?;
        received("Bearer s3cr3t-newer")
    })?;
    let metrics = agent.ask("GET", "/metrics", "")?.text();
    let log = agent.process.log();
    agent.finish()?;
    for (exit, text) in
        [("report", agent.report_text()), ("log", log), ("metrics", metrics), ("config", shown)]
    {
        for secret in SECRETS {
            ensure!(!text.contains(secret), "{secret} is in the {exit}:\n{text}");
        }
    }
    Ok(())
}
