//! The recipes for systemd, by systemd's own tools: its check of the units in deploy/, and a socket that it hands over.
//!
//! No service manager runs here: what it would do is done by systemd-socket-activate.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "systemd",
    "deploy's units by systemd-analyze; a client that comes before the daemon is served",
    Needs::Store,
    systemd,
)];

const LIMIT: Duration = Duration::from_secs(90);

fn systemd(world: &World) -> Result<()> {
    let have = ["systemd-analyze", "systemd-socket-activate"].into_iter().all(shell::on_path);
    if world.skip_part_unless(have, "no systemd-analyze and systemd-socket-activate")? {
        return Ok(());
    }
    units(world)?;
    world.create("db1", "64M")?;
    let socket = world.dir.join("handed.sock");
    for (code, name) in [
        ("h.pwrite(b's' * 5000, 4096)\nh.flush()", "first.log"),
        ("assert h.pread(5000, 4096) == b's' * 5000", "second.log"),
    ] {
        let mut daemon = Activated::start(world, &socket, name)?;
        // It is this client that the daemon is started for.
        let uri = format!("nbd+unix:///db1?socket={}", socket.display());
        world.tool("nbdsh", &["-u", &uri, "-c", code])?;
        daemon.close()?;
        ensure!(socket.exists(), "the daemon removed a socket that is not its own");
    }
    Ok(())
}

/// The units as they are, but for the program's place: systemd has nothing to say of them, and does of a wrong one.
fn units(world: &World) -> Result<()> {
    let deploy = shell::root().join("deploy");
    let program = world.lsvd_path().display().to_string();
    let service = std::fs::read_to_string(deploy.join("lsvd@.service"))?.replace("/usr/bin/lsvd", &program);
    std::fs::copy(deploy.join("lsvd@.socket"), world.dir.join("lsvd@.socket"))?;
    let said = |service: &str| -> Result<String> {
        std::fs::write(world.dir.join("lsvd@.service"), service)?;
        let mut command = Command::new("systemd-analyze");
        command.current_dir(&world.dir).args(["verify", "--man=no", "./lsvd@.service", "./lsvd@.socket"]);
        let output = shell::output(&mut command, TOOL_LIMIT)?;
        ensure!(output.code() == 0, "systemd-analyze ended with {}: {}", output.code(), output.stderr);
        Ok(format!("{}{}", output.stdout, output.stderr))
    };
    let wrong = said(&service.replace("PrivateTmp=", "PrivateTemp="))?;
    ensure!(wrong.contains("PrivateTemp"), "systemd-analyze takes anything: {wrong}");
    let of_ours = said(&service)?;
    ensure!(!of_ours.contains("lsvd@"), "systemd says of deploy/: {of_ours}");
    Ok(())
}

/// A daemon that is started by the first client of a socket that was there before it.
struct Activated {
    process: Child,
    log: std::path::PathBuf,
}

impl Activated {
    fn start(world: &World, socket: &Path, name: &str) -> Result<Self> {
        let _ = std::fs::remove_file(socket);
        let lsvd = world.lsvd();
        let mut command = Command::new("systemd-socket-activate");
        command.arg("--listen").arg(socket);
        // It hands on nothing by itself; values come from its own environment, so that none is in its arguments.
        for (variable, value) in lsvd.get_envs() {
            command.arg("--setenv").arg(variable);
            command.envs(value.map(|value| (variable, value)));
        }
        command.current_dir(&world.dir).arg(world.lsvd_path()).args(["serve", &world.url("db1")]);
        let log = world.dir.join(name);
        let file = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().context("cannot start systemd-socket-activate")?;
        let activated = Self { process, log };
        shell::wait_until("the socket is there", LIMIT, || socket.exists())?;
        // Between its name and its first client it has to listen, which can not be seen without being that client.
        std::thread::sleep(Duration::from_millis(200));
        Ok(activated)
    }

    fn close(&mut self) -> Result<()> {
        shell::signal(&self.process, Signal::TERM);
        let status = shell::wait(&mut self.process, LIMIT)?.context("the daemon did not close")?;
        let said = std::fs::read_to_string(&self.log)?;
        ensure!(
            status.success() && said.contains("closed cleanly"),
            "it ended with {}: {}",
            shell::exit_code(status),
            shell::tail(&said, 6)
        );
        Ok(())
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
