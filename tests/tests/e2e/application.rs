//! An application server of another language behind nginx as a proxy.

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::servers::{Gunicorn, Nginx};

/// Where the application listens behind nginx.
const BEHIND: u16 = 9000;

/// A WSGI application; `RATE` is what the new version changes.
const APPLICATION: &str = r#"
import json

RATE = 1.10

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/convert/"):
        amount = int(path.rsplit("/", 1)[1])
        body = json.dumps({"amount": amount, "converted": {"value": amount * RATE, "currency": "USD"}})
        kind = "application/json"
    elif path == "/rows":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"row %d\n" % number for number in range(50))
    else:
        body, kind = "hello\n" * 400, "text/plain"
    data = body.encode()
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(data)))])
    return [data]
"#;

#[test]
fn nginx_as_a_proxy_of_a_python_application_is_compared_with_the_next_version() -> Result<()> {
    let bed = Bed::new()?;
    let _old = Gunicorn::start(&bed.production, bed.folder(), "old", BEHIND, APPLICATION)?;
    let proxy = format!(
        "gzip on; gzip_types text/plain application/json; gzip_min_length 100;\n\
         upstream application {{ server 127.0.0.1:{BEHIND}; keepalive 8; }}\n\
         server {{ listen {PORT}; location / {{ proxy_pass http://application; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}"
    );
    let nginx = Nginx::start(&bed.production, bed.folder(), "proxy", PORT, &proxy)?;
    let new = APPLICATION.replace("RATE = 1.10", "RATE = 1.11");
    let _new = Gunicorn::start(&bed.shadow, bed.folder(), "new", CANDIDATE_PORT, &new)?;
    let mut agent = Agent::start(&bed, &[])?;
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for number in 1..=20 {
            for target in [format!("/convert/{number}"), "/rows".to_owned(), "/hello".to_owned()] {
                let reply =
                    connection.exchange(&request("GET", &target, &[("Accept-Encoding", "gzip")], b""))?;
                ensure!(reply.status == 200, "{target}: {}", reply.status);
            }
        }
        Ok(())
    })?;
    ensure!(nginx.access_log()?.len() == 60);
    agent.settle(60)?;
    let report = agent.finish()?;
    for (path, mismatches) in [("/convert/{id}", "body:$.converted.value"), ("/rows", ""), ("/hello", "")] {
        let endpoint = report.endpoint(path);
        let Some(endpoint) = endpoint else {
            anyhow::bail!("no endpoint {path}; there are {:?}", report.endpoints());
        };
        let places: Vec<&str> = endpoint.mismatches.iter().map(String::as_str).collect();
        ensure!(places.join(" ") == mismatches, "{path}: {places:?} instead of {mismatches:?}");
        ensure!(endpoint.requests == 20, "{path}: {} requests", endpoint.requests);
    }
    Ok(())
}
