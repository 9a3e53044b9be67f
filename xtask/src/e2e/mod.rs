//! `cargo xtask e2e`: the daemon on a real store, driven by clients that are not ours.
//!
//! Outside, this builds the daemon and starts itself again in a sandbox: namespaces for processes and mounts, and a
//! network that has only loopback, so that nothing can leave the machine and nothing outlives the run. Inside, it starts
//! the store, runs the cases one after another and counts them.
//!
//! Invariants: 1. every wait has a limit; 2. all state is below target/e2e; 3. a case that can not run is said loudly
//! and fails where CI is set; 4. no secret of the store is in anything that a daemon printed (rule 11).

mod case;
mod cases;
mod daemon;
mod document;
mod lab;
mod mount;
mod rounds;
mod servers;
mod store;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use crate::{setup, shell};

pub(crate) use daemon::{Daemon, Serve};
pub(crate) use lab::{Lab, LabServer};
pub(crate) use mount::{Attached, lacking as lacking_mounts};
pub(crate) use servers::StoreKind;

/// The whole run: a run that takes longer has hung somewhere.
const RUN_LIMIT: Duration = Duration::from_secs(45 * 60);
/// The same with --long.
const LONG_RUN_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// `cargo xtask e2e`
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct E2e {
    /// What the volumes live on
    #[arg(long, value_enum, default_value_t = StoreKind::Seaweedfs)]
    store: StoreKind,
    /// A server that runs already, with --bucket and credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the
    /// network is then not taken away
    #[arg(long, value_name = "URL", requires = "bucket")]
    endpoint: Option<String>,
    /// The bucket on that server; the cases write below a prefix of their own
    #[arg(long)]
    bucket: Option<String>,
    /// Only cases whose names contain one of these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The cases that need a real kernel, in virtual machines, on a directory
    #[arg(long, conflicts_with_all = ["store", "endpoint"])]
    vm: bool,
    /// As much as there is to see, where the usual run looks at a part
    #[arg(long)]
    long: bool,
    /// How often two daemons take one volume over from each other
    #[arg(long, value_name = "N", default_value_t = 20)]
    takeovers: u32,
    /// How many rounds each case that kills has, in all its modes together: few show that nothing broke, hundreds look for
    /// what is rare. If it is not given each case has its own number, and a larger one with --long
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Seed of what cases choose by chance; a crash case's round R goes by seed S + R
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Drive the optimised daemon
    #[arg(long)]
    release: bool,
    /// Drive this daemon instead of building one
    #[arg(long, value_name = "PATH")]
    lsvd: Option<PathBuf>,
    /// Keep the state of cases that passed, too
    #[arg(long)]
    keep: bool,
    /// Print the names of the cases
    #[arg(long)]
    list: bool,
    /// Already in the sandbox, as root of it
    #[arg(long, hide = true)]
    inside: bool,
}

impl E2e {
    fn on(store: StoreKind) -> Self {
        Self {
            store,
            endpoint: None,
            bucket: None,
            names: Vec::new(),
            vm: false,
            long: false,
            takeovers: match store {
                // A directory is quick enough for many; the promise's hundred is for `--takeovers 100`.
                StoreKind::Directory => 50,
                _ => 10,
            },
            rounds: None,
            seed: 1,
            release: false,
            lsvd: None,
            keep: false,
            list: false,
            inside: false,
        }
    }
}

/// Whether continuous integration runs this: nothing may then be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Names of the cases with what they show.
pub(crate) fn cases() -> Vec<(&'static str, &'static str)> {
    cases::all().into_iter().map(|case| (case.name, case.shows)).collect()
}

/// Runs all cases on one kind of store with the defaults.
pub(crate) fn run_on(store: StoreKind) -> Result<()> {
    run(&E2e::on(store))
}

/// Runs the cases of the lab store that no other store has, and those that its faults make harder.
pub(crate) fn run_lab_cases() -> Result<()> {
    let harder = |case: &case::Case| case.needs == case::Needs::Lab || case.name.starts_with("crash-");
    let names = cases::all().into_iter().filter(harder);
    run(&E2e { names: names.map(|case| case.name.to_owned()).collect(), ..E2e::on(StoreKind::Lab) })
}

/// Runs a part of the cases by the protocols that no other step speaks: Azure's on Azurite, Google's on the lab store.
pub(crate) fn run_other_protocols() -> Result<()> {
    const CASES: [&str; 5] = [cases::CONFORMANCE, "libnbd", "take-over", "adopt", "azure-refusals"];
    let some = |store| run(&E2e { names: CASES.map(str::to_owned).to_vec(), takeovers: 3, ..E2e::on(store) });
    let azure = some(StoreKind::Azurite);
    some(StoreKind::LabGoogle).and(azure)
}

/// Runs the cases that need virtual machines.
pub(crate) fn run_in_machines() -> Result<()> {
    run(&E2e { vm: true, ..E2e::on(StoreKind::Directory) })
}

/// Runs the cases.
pub(crate) fn run(args: &E2e) -> Result<()> {
    if args.list {
        for case in cases::all() {
            println!("{:<24} {}", case.name, case.shows);
        }
        return Ok(());
    }
    if args.inside {
        return case::run_all(args);
    }
    let mut args = args.clone();
    if args.vm {
        args.store = StoreKind::Directory;
    }
    let args = &args;
    setup::install(args.store == StoreKind::Azurite)?;
    let lsvd = match &args.lsvd {
        Some(path) => path.canonicalize().with_context(|| format!("no daemon at {}", path.display()))?,
        None => build_lsvd(args.release)?,
    };
    if args.store.is_lab() && args.endpoint.is_none() {
        build("lsvd-labstore", false)?;
    }
    if !args.vm && cases::chosen(&args.names, cases::CONFORMANCE) {
        build_suite()?;
    }
    enter_sandbox(args, &lsvd)
}

/// Builds the daemon and says where it is.
///
/// The default is the profile of the tests: its assertions and overflow checks are on, and CI has built most of it.
pub(crate) fn build_lsvd(release: bool) -> Result<PathBuf> {
    build("lsvd", release)
}

/// Builds the program of the package of its name.
pub(crate) fn build(name: &str, release: bool) -> Result<PathBuf> {
    let mut command = shell::cargo();
    command.args(["build", "--quiet", "--locked", "--package", name, "--bin", name]);
    if release {
        command.arg("--release");
    }
    shell::run(&mut command)?;
    let path = target().join(if release { "release" } else { "debug" }).join(name);
    path.canonicalize().with_context(|| format!("cargo built no {}", path.display()))
}

/// Builds the conformance suite as a program; with the features of the whole workspace, which are those of its tests, so
/// that there is nothing but the suite to build after them.
fn build_suite() -> Result<()> {
    let mut command = shell::cargo();
    command.args(["build", "--quiet", "--locked", "--workspace", "--example", "conformance"]);
    shell::run(command.args(["--features", "lsvd-backend/conformance"]))
}

/// Where [`build_suite`] leaves it.
fn suite() -> PathBuf {
    target().join("debug/examples/conformance")
}

/// Cargo's target directory, where all that is made goes.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| shell::root().join("target"), |dir| shell::root().join(dir))
}

/// Starts this command again with nothing but loopback, in namespaces that end with it.
fn enter_sandbox(args: &E2e, lsvd: &Path) -> Result<()> {
    let own = std::env::current_exe().context("our own program has a path")?;
    let namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"];
    let network: &[&str] = if args.endpoint.is_none() { &["--net"] } else { &[] };
    let can = geteuid().is_root() && {
        let mut probe = Command::new("unshare");
        probe.args(namespaces).args(network).arg("true");
        shell::output(&mut probe, Duration::from_secs(10)).is_ok_and(|output| output.status.success())
    };
    let mut command = if can {
        // The shell is the first process of its namespace: it reaps what daemons leave behind.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]).args(namespaces).args(network);
        command.args(["--", "sh", "-c", "ip link set lo up 2>/dev/null; \"$@\"; exit $?", "sh"]).arg(own);
        command
    } else {
        println!("SKIPPED: no sandbox: namespaces need root; what needs mounts is skipped too");
        if in_ci() {
            bail!("CI needs the sandbox: run as root");
        }
        Command::new(own)
    };
    command.args(["e2e", "--inside"]).arg("--lsvd").arg(lsvd);
    if args.vm {
        command.arg("--vm");
    } else {
        command.args(["--store", &args.store.name()]);
    }
    command.args(["--takeovers", &args.takeovers.to_string()]);
    command.args(["--seed", &args.seed.to_string()]);
    if let Some(rounds) = args.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    if let (Some(endpoint), Some(bucket)) = (&args.endpoint, &args.bucket) {
        command.args(["--endpoint", endpoint, "--bucket", bucket]);
    }
    for (flag, given) in [("--keep", args.keep), ("--long", args.long)] {
        command.args(given.then_some(flag));
    }
    command.args(&args.names).stdin(Stdio::null());
    let mut child = command.spawn().context("cannot start the sandbox")?;
    let limit = if args.long { LONG_RUN_LIMIT } else { RUN_LIMIT };
    match shell::wait(&mut child, limit)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("e2e on {} ended with {}", args.store.name(), shell::exit_code(status)),
        None => {
            shell::kill_group(&child);
            let _ = child.wait();
            bail!("e2e on {} was still running after {} s", args.store.name(), limit.as_secs());
        }
    }
}
