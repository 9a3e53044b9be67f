//! PostgreSQL as Debian installs it: a server on a data directory of ours, and its programs as its own user.
//!
//! Knows how it is made, started, asked and stopped; not what is below its data directory, nor what it is to show.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// From its start to its first answer: its own recovery on a loaded machine.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(120);

const PORT: &str = "15432";

/// A PostgreSQL server's programs and its data directory.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    log: PathBuf,
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// With its data in `data` and what it logs in `log`.
    pub(crate) fn new(data: &Path, log: &Path) -> Result<Self> {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .context("PostgreSQL's server is not installed: `cargo xtask setup`")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|programs| programs.join("initdb").exists())
            .collect();
        versions.sort();
        let programs = versions.pop().context("PostgreSQL's server is not installed: `cargo xtask setup`")?;
        let id = |flag: &str| -> Result<u32> {
            let output = shell::output_ok(Command::new("id").args([flag, "postgres"]), READY_LIMIT)?;
            Ok(output.stdout.trim().parse()?)
        };
        let (data, log) = (data.to_owned(), log.to_owned());
        Ok(Self { programs, data, log, uid: id("-u")?, gid: id("-g")? })
    }

    /// One of its programs, as its user: as root it refuses to run.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir("/").uid(self.uid).gid(self.gid);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", PORT).env("PGUSER", "postgres").env("LC_ALL", "C");
        command
    }

    /// Makes a directory that its user may write to.
    pub(crate) fn own_dir(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::os::unix::fs::chown(dir, Some(self.uid), Some(self.gid))?;
        Ok(())
    }

    /// Makes the data directory, with checksums.
    pub(crate) fn initialise(&self) -> Result<()> {
        self.own_dir(&self.data)?;
        let mut initdb = self.program("initdb");
        initdb.args(["--data-checksums", "--auth=trust", "--username=postgres", "--pgdata"]).arg(&self.data);
        shell::output_ok(&mut initdb, READY_LIMIT)?;
        Ok(())
    }

    /// Starts the server and waits until it has recovered.
    pub(crate) fn start(&self, settings: &[&str]) -> Result<Server> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(&self.data).args(["-p", PORT, "-h", "127.0.0.1", "-k", ""]);
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let server = Server(postgres.spawn().context("cannot start postgres")?);
        let ready = || {
            let mut asks = self.program("pg_isready");
            shell::output(&mut asks, READY_LIMIT).is_ok_and(|output| output.code() == 0)
        };
        shell::wait_until("PostgreSQL answers", READY_LIMIT, ready)?;
        Ok(server)
    }

    /// What the statements in `text` answer.
    pub(crate) fn sql(&self, text: &str) -> Result<String> {
        let mut psql = self.program("psql");
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            text,
        ]);
        Ok(shell::output_ok(&mut psql, READY_LIMIT)?.stdout.trim().to_owned())
    }

    /// Compares each index with its table, and each page that this reads with its checksum.
    pub(crate) fn amcheck(&self) -> Result<()> {
        let mut amcheck = self.program("pg_amcheck");
        amcheck.args(["--database=postgres", "--heapallindexed"]);
        shell::output_ok(&mut amcheck, READY_LIMIT)?;
        Ok(())
    }

    /// Verifies the checksum of each page of a server that has stopped in order.
    pub(crate) fn checksums(&self) -> Result<()> {
        let mut checksums = self.program("pg_checksums");
        shell::output_ok(checksums.arg("--check").arg("-D").arg(&self.data), READY_LIMIT)?;
        Ok(())
    }
}

/// A server that dies with this value.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// An orderly end: SIGINT is PostgreSQL's "fast".
    pub(crate) fn stop(mut self) -> Result<()> {
        shell::signal(&self.0, rustix::process::Signal::INT);
        let status = shell::wait(&mut self.0, READY_LIMIT)?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "PostgreSQL did not stop in order: {status:?}"
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        shell::kill_group(&self.0);
        let _ = self.0.wait();
    }
}
