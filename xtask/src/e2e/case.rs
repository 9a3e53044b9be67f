//! A case, what it is given, and the run of all of them.
//!
//! Knows how cases are chosen, timed, counted and cleaned up after; not what any of them does.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::daemon::{Daemon, Serve};
use super::servers::{Protocol, StoreKind};
use super::store::Store;
use super::{E2e, cases, in_ci, target};
use crate::numbers::Numbers;
use crate::shell::{self, Output};

/// What a client tool may take, unless its case says otherwise: generous, because cores are shared.
pub(super) const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// SeaweedFS answers some seconds before it has made its bucket.
const BUCKET_LIMIT: Duration = Duration::from_secs(60);

/// What a case needs of the world; where it lacks it, the case is skipped, and fails in CI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// A store, any.
    Store,
    /// A server whose process can be stopped, and goes on where it was.
    Process,
    /// A server that can be killed, and keeps its objects.
    ServerProcess,
    /// An S3 server of ours, for what only S3 has: credentials, buckets, clocks.
    S3,
    /// A server of ours that speaks Azure's protocol.
    Azure,
    /// The lab store, which misbehaves on demand.
    Lab,
    /// The lab store by S3's protocol.
    LabS3,
    /// A server that is known to break a promise.
    Broken,
    /// A directory, whose objects can be damaged by hand.
    Directory,
    /// FUSE, loop devices and mounts.
    Mounts,
    /// Virtual machines: only with --vm.
    Vm,
    /// The same for minutes: only with --long, or when the case is asked for by its name.
    VmLong,
}

/// One thing that is shown end to end.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What it shows, with the numbers of the rules.
    pub(super) shows: &'static str,
    pub(super) needs: Needs,
    pub(super) run: fn(&World) -> Result<()>,
}

/// What a case is given: a directory of its own, volumes of its own on the shared store, and the daemon.
#[derive(Debug)]
pub(super) struct World<'a> {
    /// The store that all cases share.
    pub(super) store: &'a RefCell<Store>,
    /// The case's own directory.
    pub(super) dir: PathBuf,
    /// How often the take-over case takes over.
    pub(super) takeovers: u32,
    /// How many rounds were asked for, if any were.
    rounds: Option<u32>,
    /// Whether to look at as much as there is to see.
    pub(super) long: bool,
    /// Seed of the case's content.
    pub(super) seed: u64,
    name: &'static str,
    lsvd: &'a Path,
}

impl World<'_> {
    /// The URL of the volume `name` of this case.
    pub(super) fn url(&self, name: &str) -> String {
        self.store.borrow().url(&format!("{}/{name}", self.name))
    }

    /// How many rounds a case that kills has, all its modes together: what was asked for, or else `usual`, and `long` where
    /// all is to be seen.
    pub(super) fn rounds(&self, usual: u32, long: u32) -> u32 {
        self.rounds.unwrap_or(if self.long { long } else { usual })
    }

    /// The case's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Takes the volume `name` out of the store, where that is quick: it is not needed any more.
    pub(super) fn discard(&self, name: &str) -> Result<()> {
        let store = self.store.borrow();
        if store.is_lab() {
            return store.lab()?.empty();
        }
        if store.is_directory() {
            std::fs::remove_dir_all(store.path(&format!("{}/{name}", self.name)))?;
        }
        Ok(())
    }

    /// Bytes of all that the volume `name` has in the store, by the store's own listing.
    pub(super) fn stored_bytes(&self, name: &str) -> Result<u64> {
        let store = self.store.borrow();
        if store.is_directory() {
            return bytes_below(&store.path(&format!("{}/{name}", self.name)));
        }
        let listed = shell::output_ok(store.objects().arg("bytes").arg(self.url(name)), TOOL_LIMIT)?;
        listed.stdout.trim().parse().context("objects.py prints a number")
    }

    /// `lsvd` with the environment that the store needs and no other, in this case's directory.
    pub(super) fn lsvd(&self) -> Command {
        let mut command = Command::new(self.lsvd);
        command.env_clear().current_dir(&self.dir).env("HOME", self.dir.join("home"));
        // Daemons and who asks them meet in the case's own directory, and leave nothing in the host's.
        command.env("XDG_RUNTIME_DIR", self.dir.join("run"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_BACKTRACE", "1");
        command.envs(self.store.borrow().environment());
        command
    }

    /// The program itself.
    pub(super) fn lsvd_path(&self) -> &Path {
        self.lsvd
    }

    /// Runs `lsvd` with `arguments` to its end, whatever its exit code.
    pub(super) fn run_lsvd(&self, arguments: &[&str]) -> Result<Output> {
        shell::output(self.lsvd().args(arguments), TOOL_LIMIT)
    }

    /// Creates the volume `name`.
    pub(super) fn create(&self, name: &str, size: &str) -> Result<()> {
        let output = self.run_lsvd(&["create", &self.url(name), "--size", size])?;
        ensure!(output.code() == 0, "`lsvd create` ended with {}: {}", output.code(), output.stderr);
        Ok(())
    }

    /// Serves the volume `name` and waits until it can be attached.
    pub(super) fn serve(&self, name: &str) -> Result<Daemon> {
        self.serve_with(name, &[])
    }

    /// The same with more flags.
    pub(super) fn serve_with(&self, name: &str, flags: &[&str]) -> Result<Daemon> {
        Daemon::start(&Serve { command: &mut self.lsvd(), dir: &self.dir, urls: &[&self.url(name)], flags })
    }

    /// Creates the volume `name` and serves it.
    pub(super) fn create_and_serve(&self, name: &str, size: &str) -> Result<Daemon> {
        self.create(name, size)?;
        self.serve(name)
    }

    /// Runs a client tool that must succeed.
    pub(super) fn tool(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        shell::output_ok(self.client(program).args(arguments), TOOL_LIMIT)
    }

    /// A client tool in this case's directory.
    pub(super) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        // Debian's Python has the libnbd binding; another one first on PATH does not. e2fsck is not on a user's PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("/usr/bin:/bin:/usr/sbin:/sbin:{path}"));
        command
    }

    /// One of xtask/scripts, by Debian's Python.
    pub(super) fn script(&self, name: &str) -> Command {
        let mut command = self.client("/usr/bin/python3");
        command.arg("-u").arg(shell::root().join("xtask/scripts").join(name));
        command
    }

    /// `true` after printing why, if `have` is not: a part of a case that this machine can not show.
    pub(super) fn skip_part_unless(&self, have: bool, why: &str) -> Result<bool> {
        if !have {
            println!("  SKIPPED in {}: {why}", self.name);
            ensure!(!in_ci(), "{why}, and CI skips nothing");
        }
        Ok(!have)
    }

    /// Writes a file of `bytes` whose 64 KiB pieces are data or a hole by chance.
    pub(super) fn sparse_file(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        use std::os::unix::fs::FileExt;
        const PIECE: usize = 64 << 10;
        let path = self.dir.join(name);
        let file = std::fs::File::create(&path)?;
        file.set_len(bytes)?;
        let mut numbers = Numbers::new(self.seed);
        let mut piece = vec![0; PIECE];
        for offset in (0..bytes).step_by(PIECE) {
            if numbers.below(3) > 0 {
                numbers.fill(&mut piece);
                file.write_all_at(&piece, offset)?;
            }
        }
        Ok(path)
    }

    /// The size and the write cache of a loaded machine differ, a client's errors do not: `output` must have failed and
    /// said `words`.
    pub(super) fn failed_with(&self, output: &Output, code: i32, words: &[&str]) -> Result<()> {
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.code() == code, "ended with {} instead of {code}: {said}", output.code());
        for word in words {
            ensure!(
                said.to_lowercase().contains(&word.to_lowercase()),
                "said nothing of '{word}': {}",
                shell::tail(&said, 12)
            );
        }
        ensure!(!said.contains("panicked"), "panicked: {}", shell::tail(&said, 20));
        Ok(())
    }
}

/// Bytes of all files below `dir`, some of which go meanwhile.
fn bytes_below(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(bytes)
}

/// Runs the chosen cases, inside of the sandbox.
pub(super) fn run_all(args: &E2e) -> Result<()> {
    let lsvd = args.lsvd.as_deref().context("the outer half says where the daemon is")?;
    let store_kind = if args.vm { StoreKind::Directory } else { args.store };
    let place = if args.vm { "vm".into() } else { args.store.name() };
    let dir = target().join("e2e").join(place);
    let _only_one = lock(&dir)?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let started = Instant::now();
    let store = match (&args.endpoint, &args.bucket) {
        (Some(endpoint), Some(bucket)) => Store::running(endpoint, bucket)?,
        _ => {
            let store = Store::start(store_kind, &dir.join("store"))?;
            shell::wait_until("the store has its bucket", BUCKET_LIMIT, || {
                let mut command = Command::new(lsvd);
                command.env_clear().envs(store.environment()).args(["ls", &store.url("")]);
                shell::output(&mut command, TOOL_LIMIT).is_ok_and(|output| output.code() == 0)
            })?;
            store
        }
    };
    println!("{}: ready after {:.1} s", store.name(), started.elapsed().as_secs_f64());
    let store = RefCell::new(store);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in cases::all() {
        if !cases::chosen(&args.names, case.name) {
            continue;
        }
        if case.needs == Needs::VmLong && !args.long && args.names.is_empty() {
            continue;
        }
        if let Some(why) = lacking(case.needs, args.vm, &store.borrow()) {
            match why {
                Lack::Kind => {}
                Lack::Promise(why) => println!("{:<24} left out: {why}", case.name),
                Lack::Machine(why) => {
                    println!("{:<24} SKIPPED: {why}", case.name);
                    if in_ci() {
                        failed += 1;
                    } else {
                        skipped += 1;
                    }
                }
            }
            continue;
        }
        let world = World {
            store: &store,
            dir: dir.join(case.name),
            takeovers: args.takeovers,
            rounds: args.rounds,
            long: args.long,
            seed: args.seed,
            name: case.name,
            lsvd,
        };
        std::fs::create_dir_all(world.dir.join("home"))?;
        if store.borrow().is_lab() {
            // No case meets another's faults, and memory holds one case's objects.
            store.borrow().lab()?.reset()?;
        }
        let started = Instant::now();
        let result = (case.run)(&world).and_then(|()| no_secret_was_printed(&world));
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("{:<24} ok   {seconds:>6.1} s  {}", case.name, case.shows);
                if !args.keep {
                    let _ = std::fs::remove_dir_all(&world.dir);
                }
            }
            Err(error) => {
                failed += 1;
                println!("{:<24} FAIL {seconds:>6.1} s  {error:#}", case.name);
                print_logs(&world.dir);
            }
        }
    }
    println!("e2e on {}: {:.0} s", store.borrow().name(), started.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} cases failed; their state is in {}", dir.display());
    }
    if !args.keep {
        drop(store);
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok(())
}

/// Keeps a second run away from `dir`, which each run clears, for as long as the file is open.
fn lock(dir: &Path) -> Result<std::fs::File> {
    let path = dir.with_extension("lock");
    std::fs::create_dir_all(path.parent().context("it is below target/e2e")?)?;
    let file = std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another run uses {} already: wait for it, or give this one a CARGO_TARGET_DIR of its own",
            dir.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => Err(error).context("cannot lock this run's directory"),
    }
}

/// Why a case does not run here.
enum Lack {
    /// The store is of another kind: the case belongs to the run on that one.
    Kind,
    /// The store does not keep what the case takes for granted.
    Promise(&'static str),
    /// The machine lacks something that it could have.
    Machine(&'static str),
}

fn lacking(needs: Needs, vm: bool, store: &Store) -> Option<Lack> {
    let kind = |fits: bool| (!fits).then_some(Lack::Kind);
    let server = store.server();
    let is_broken = server.is_some_and(StoreKind::is_broken);
    if vm != matches!(needs, Needs::Vm | Needs::VmLong) || is_broken != (needs == Needs::Broken) {
        return Some(Lack::Kind);
    }
    match needs {
        Needs::Store | Needs::Broken => None,
        Needs::Process => kind(server.is_some()),
        Needs::ServerProcess if server == Some(StoreKind::Azurite) => {
            Some(Lack::Promise("a killed Azurite has lost what it acknowledged"))
        }
        Needs::ServerProcess => kind(server.is_some_and(StoreKind::keeps_when_killed)),
        Needs::S3 => {
            kind(server.is_some_and(|server| server.keeps_when_killed() && server.protocol() == Protocol::S3))
        }
        Needs::Azure => kind(server == Some(StoreKind::Azurite)),
        Needs::Lab => kind(store.is_lab()),
        Needs::LabS3 => kind(server == Some(StoreKind::Lab)),
        Needs::Directory => kind(store.is_directory()),
        Needs::Mounts => super::mount::lacking().map(Lack::Machine),
        Needs::Vm | Needs::VmLong => super::vm::lacking().map(Lack::Machine),
    }
}

/// Rule 11, in every case: the store's secret is in nothing that was printed.
fn no_secret_was_printed(world: &World) -> Result<()> {
    let Some(secret) = world.store.borrow().secret().map(str::to_owned) else { return Ok(()) };
    for log in logs(&world.dir) {
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        ensure!(!text.contains(&secret), "the secret key is in {}", log.display());
        ensure!(!text.contains("panicked at"), "a panic is in {}", log.display());
    }
    Ok(())
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut logs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    logs
}

fn print_logs(dir: &Path) {
    // The last daemons are the ones that the failure is about.
    let logs = logs(dir);
    for log in logs.iter().skip(logs.len().saturating_sub(2)) {
        let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        let telling: Vec<&str> = text.lines().filter(|line| !line.contains(r#""message":"stats""#)).collect();
        println!("--- {}\n{}", log.display(), shell::tail(&telling.join("\n"), 25));
    }
    println!("--- state kept in {}", dir.display());
}
