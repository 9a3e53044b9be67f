//! The suite against memory, a directory, and real S3 servers.
//!
//! SeaweedFS is started here where its `weed` is on PATH; any other server is given by `LSVD_TEST_S3_ENDPOINT`,
//! `LSVD_TEST_S3_BUCKET` and the usual `AWS_…` variables. `LSVD_REQUIRE_S3=1` makes a missing server a failure.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::environment::Environment;
use crate::open::StoreOptions;
use crate::retry::RetryPolicy;

fn open(url: &str, options: &StoreOptions) -> Bucket {
    Bucket::open(&url.parse().unwrap(), options).unwrap()
}

fn nonce() -> String {
    format!("{:016x}", getrandom::u64().unwrap())
}

#[tokio::test]
async fn memory_conforms() {
    let url = format!("memory://conformance-{}/prefix/db1", nonce());
    let bucket = open(&url, &StoreOptions::default());
    run(bucket).await;
    let again = open(&url, &StoreOptions::default());
    assert!(again.list("", None).await.unwrap().len() > 1_000, "a memory's name stands for one store");
}

#[tokio::test]
async fn a_store_without_prefix_conforms() {
    run(Bucket::from_store(std::sync::Arc::new(object_store::memory::InMemory::new()), "", "embedded")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_conforms() {
    let temp = TempDir::new().unwrap();
    let url = format!("file://{}/db1", temp.path().display());
    run(open(&url, &StoreOptions { create_root: true, ..StoreOptions::default() })).await;
}

/// A SeaweedFS of our own on free loopback ports, killed when dropped.
struct Weed {
    child: Child,
    s3_port: u16,
    home: TempDir,
}

const KEY: &str = "conformancekey";
const SECRET: &str = "conformancesecretdonotlog";

impl Drop for Weed {
    fn drop(&mut self) {
        // The group: what is on PATH may be a script that runs the server.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// A free port whose sibling ten thousand above, which weed takes for gRPC, is free too.
fn free_port() -> u16 {
    loop {
        let port = 20_000 + u16::try_from(getrandom::u32().unwrap() % 12_000).unwrap();
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

impl Weed {
    /// `None` where there is no `weed`.
    fn start() -> Option<Weed> {
        let home = TempDir::new().unwrap();
        let config = format!(
            r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],
               "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        fs::write(home.path().join("s3.json"), config).unwrap();
        fs::create_dir(home.path().join("data")).unwrap();
        let s3_port = free_port();
        let mut command = Command::new("weed");
        command.arg("mini").current_dir(home.path());
        command.args([
            "-dir=data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-admin.ui=false",
            "-webdav=false",
        ]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-bucket=probe"]);
        command.args(["-s3.config=s3.json", "-filer.maxMB=1", &format!("-s3.port={s3_port}")]);
        for name in ["master.port", "volume.port", "filer.port"] {
            command.arg(format!("-{name}={}", free_port()));
        }
        let log = fs::File::create(home.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).process_group(0);
        let child = command.spawn().ok()?;
        Some(Weed { child, s3_port, home })
    }

    fn options(&self, secret: &str) -> StoreOptions {
        StoreOptions {
            endpoint: Some(format!("http://127.0.0.1:{}", self.s3_port)),
            allow_http: true,
            environment: Environment::from_pairs([
                ("AWS_ACCESS_KEY_ID", KEY),
                ("AWS_SECRET_ACCESS_KEY", secret),
            ]),
            ..StoreOptions::default()
        }
    }

    /// Waits until a PUT goes through: the port is open long before that.
    async fn ready(&mut self) {
        let patient = RetryPolicy {
            attempt_timeout: Duration::from_secs(2),
            total_limit: Duration::from_secs(1),
            ..RetryPolicy::default()
        };
        let bucket = open("s3://probe/ready", &self.options(SECRET)).with_retry(patient);
        let started = Instant::now();
        loop {
            match bucket.overwrite("ready", "x".into()).await {
                Ok(()) => return,
                Err(error) if started.elapsed() > Duration::from_secs(60) => {
                    let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
                    panic!("weed is not ready after a minute: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

fn no_server() {
    assert!(
        std::env::var_os("LSVD_REQUIRE_S3").is_none(),
        "LSVD_REQUIRE_S3 is set, and no S3 server can be started"
    );
    eprintln!("SKIPPED: no 'weed' (SeaweedFS) on PATH, so no real S3 server was tried");
}

/// A real server: the whole suite, then what only a real one shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_conforms() {
    let Some(mut weed) = Weed::start() else { return no_server() };
    weed.ready().await;
    let url = format!("s3://probe/{}/db1", nonce());
    let started = Instant::now();
    run(open(&url, &weed.options(SECRET))).await;
    eprintln!("the suite took {:.1} s on SeaweedFS", started.elapsed().as_secs_f64());
    let started = Instant::now();
    probes_leave_nothing(&open(&format!("{url}-again"), &weed.options(SECRET))).await;
    eprintln!("a probe took {:.2} s on SeaweedFS", started.elapsed().as_secs_f64() / 2.0);
    run_small_with_region_auto(&weed).await;
    wrong_credentials_and_bucket(&weed).await;
}

/// Region `auto`, as Cloudflare R2 wants it, signs well too.
async fn run_small_with_region_auto(weed: &Weed) {
    let options = StoreOptions { region: Some("auto".into()), ..weed.options(SECRET) };
    let bucket = open(&format!("s3://probe/{}", nonce()), &options);
    create_is_create_only(&bucket).await;
}

/// Wrong credentials and a missing bucket are told apart, at once, without a secret (rules 4 and 11).
async fn wrong_credentials_and_bucket(weed: &Weed) {
    let bucket = open("s3://probe/db1", &weed.options("wrongsecretwrongsecret"));
    for (verb, error) in [
        ("LIST", bucket.list("log", None).await.expect_err("wrong secret")),
        ("PUT", bucket.create("log/1", "x".into()).await.expect_err("wrong secret")),
        ("GET", bucket.read_head("log/1", 10).await.expect_err("rule 4: not an absence")),
        ("DELETE", bucket.delete("log/1").await.expect_err("wrong secret")),
    ] {
        assert!(matches!(error, Error::Denied { .. }), "{verb}: {error}");
        let text = error.to_string();
        assert!(text.contains(verb) && text.contains("403") && text.contains("AWS_"), "{text}");
        assert!(!text.contains("wrongsecret"), "rule 11: {text}");
    }
    let bucket = open("s3://nosuchbucket/db1", &weed.options(SECRET));
    for error in [
        bucket.list("log", None).await.expect_err("no bucket"),
        bucket.read_head("log/1", 10).await.map(|_| ()).expect_err("rule 4: no bucket is not an absence"),
    ] {
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}

/// Any other server, given by its address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_s3_server_conforms() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(endpoint), Some(bucket)) = (variable("LSVD_TEST_S3_ENDPOINT"), variable("LSVD_TEST_S3_BUCKET"))
    else {
        eprintln!("SKIPPED: LSVD_TEST_S3_ENDPOINT and LSVD_TEST_S3_BUCKET name no server");
        return;
    };
    let options = StoreOptions { endpoint: Some(endpoint), allow_http: true, ..StoreOptions::default() };
    run(open(&format!("s3://{bucket}/conformance-{}", nonce()), &options)).await;
}

/// Azurite, or a real account: the second protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_azure_container_conforms() {
    let Ok(container) = std::env::var("LSVD_TEST_AZURE_CONTAINER") else {
        eprintln!("SKIPPED: LSVD_TEST_AZURE_CONTAINER names no container");
        return;
    };
    let soon = RetryPolicy { total_limit: Duration::from_secs(10), ..RetryPolicy::default() };
    run(open(&format!("az://{container}/conformance-{}", nonce()), &StoreOptions::default()).with_retry(soon)).await;
}
