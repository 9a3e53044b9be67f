//! Clients that others wrote, doing what people do with them: libnbd's tools, QEMU's, fio, the `nbd` crate.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nbd::client::{NbdClient, handshake};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::Entry;
use crate::numbers::Numbers;
use crate::shell;

pub(super) const CASES: &[Entry] = &[
    ("nbdinfo", "what an export says of itself", Needs::Store, nbdinfo),
    ("exports", "several volumes of one daemon, unix and tcp, ls and info", Needs::Store, exports),
    ("nbdcopy", "256 MiB of data and holes in and out, and again after a clean close", Needs::Store, nbdcopy),
    (
        "libnbd",
        "every request, all refusals, a model; all of it there after a kill (rule 1)",
        Needs::Store,
        libnbd,
    ),
    ("qemu-img", "info, convert, compare", Needs::Store, qemu_img),
    ("qemu-io", "patterns, zeroes and discards verified", Needs::Store, qemu_io),
    ("fio", "random writes verified by checksum, also after a kill (rule 1)", Needs::Store, fio),
    ("nbd-crate", "a second client library, one that knows EXPORT_NAME only", Needs::Store, nbd_crate),
];

fn nbdinfo(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "1T")?;
    let info = |arguments: &[&str]| -> Result<serde_json::Value> {
        let output = world.tool("nbdinfo", &[arguments, &["--json"]].concat())?;
        serde_json::from_str(&output.stdout).context("nbdinfo prints JSON")
    };
    let found = info(&[daemon.uri()])?;
    let export = &found["exports"][0];
    ensure!(export["export-size"] == 1_u64 << 40, "size: {export}");
    for flag in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df", "can_cache"] {
        ensure!(export[flag] == true, "{flag}: {export}");
    }
    ensure!(export["is_read_only"] == false, "read only: {export}");
    ensure!(
        export["block_size_preferred"] == 4096 && export["block_size_minimum"] == 1,
        "block sizes: {export}"
    );
    let contexts = export["contexts"].to_string();
    ensure!(contexts.contains("base:allocation"), "contexts: {contexts}");
    let listed = info(&["--list", daemon.uri()])?;
    ensure!(listed["exports"].as_array().is_some_and(|exports| !exports.is_empty()), "LIST: {listed}");
    let map = info(&["--map", daemon.uri()])?;
    ensure!(map.as_array().is_some_and(|map| map.iter().all(|extent| extent["type"] != 0)), "map: {map}");
    // A volume that is served alone is the default export too.
    let default = format!("nbd+unix:///?socket={}", daemon.socket().display());
    ensure!(info(&[&default])?["exports"][0]["export-size"] == 1_u64 << 40, "no default export");
    let other = format!("nbd+unix:///other?socket={}", daemon.socket().display());
    let refused = shell::output(world.client("nbdinfo").arg(&other), TOOL_LIMIT)?;
    ensure!(refused.code() != 0, "an export that is not there was given");
    daemon.close()
}

fn exports(world: &World) -> Result<()> {
    use super::super::daemon::{Daemon, Serve};
    for (name, size) in [("a", "64M"), ("b", "128M"), ("c", "1G")] {
        world.create(name, size)?;
    }
    let urls = [world.url("a"), world.url("b")];
    let urls = [urls[0].as_str(), urls[1].as_str()];
    let socket = format!("unix:{}", world.dir.join("two.sock").display());
    let flags = ["--listen", &socket, "--listen", "tcp:127.0.0.1:10909"];
    let mut daemon =
        Daemon::start(&Serve { command: &world.lsvd(), dir: &world.dir, urls: &urls, flags: &flags })?;
    ensure!(daemon.runs(), "it said that it serves, and ended");
    for (name, bytes) in [("a", 64_u64 << 20), ("b", 128 << 20)] {
        for uri in [
            format!("nbd+unix:///{name}?socket={}", world.dir.join("two.sock").display()),
            format!("nbd://127.0.0.1:10909/{name}"),
        ] {
            let size = world.tool("nbdinfo", &["--size", &uri])?.stdout;
            ensure!(size.trim() == bytes.to_string(), "{uri}: {size}");
        }
    }
    ensure!(daemon.uris().iter().all(|uri| uri.starts_with("nbd")), "URIs: {:?}", daemon.uris());
    world.tool(
        "nbdsh",
        &["-u", "nbd://127.0.0.1:10909/b", "-c", "h.pwrite(b'b' * 5000, 1)", "-c", "h.flush()"],
    )?;
    daemon.close()?;
    let listed = world.run_lsvd(&["ls", world.url("").trim_end_matches('/'), "--json"])?;
    ensure!(listed.code() == 0, "`lsvd ls`: {}", listed.stderr);
    for name in ["a", "b", "c"] {
        ensure!(
            listed.stdout.contains(&format!("\"{name}\"")),
            "`lsvd ls` does not list {name}: {}",
            listed.stdout
        );
    }
    let info = world.run_lsvd(&["info", &world.url("b"), "--json"])?;
    ensure!(info.code() == 0, "`lsvd info`: {}", info.stderr);
    let info: serde_json::Value =
        serde_json::from_str(&info.stdout).context("`lsvd info --json` prints JSON")?;
    ensure!(info["size_bytes"] == 128 << 20, "`lsvd info`: {info}");
    Ok(())
}

fn nbdcopy(world: &World) -> Result<()> {
    const BYTES: u64 = 256 << 20;
    let source = world.sparse_file("source", BYTES)?;
    let source = source.to_str().context("the tree's path is text")?;
    let daemon = world.create_and_serve("db1", "256M")?;
    world.tool("nbdcopy", &["--flush", source, daemon.uri()])?;
    world.tool("nbdcopy", &[daemon.uri(), "first"])?;
    world.tool("cmp", &[source, "first"])?;
    let map = world.tool("nbdinfo", &["--map", "--totals", daemon.uri()])?.stdout;
    ensure!(map.contains("hole"), "the source's holes are no holes of the volume: {map}");
    daemon.close()?;
    let daemon = world.serve("db1")?;
    world.tool("nbdcopy", &["--connections=4", "--requests=64", daemon.uri(), "second"])?;
    world.tool("cmp", &[source, "second"])?;
    daemon.close()
}

fn libnbd(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "1T")?;
    shell::output_ok(world.script("protocol.py").args(["exercise", daemon.uri(), "model"]), TOOL_LIMIT * 2)?;
    daemon.kill();
    let daemon = world.serve("db1")?;
    shell::output_ok(world.script("protocol.py").args(["verify", daemon.uri(), "model"]), TOOL_LIMIT)?;
    daemon.close()
}

fn qemu_img(world: &World) -> Result<()> {
    const BYTES: u64 = 128 << 20;
    let source = world.sparse_file("source.raw", BYTES)?;
    let source = source.to_str().context("the tree's path is text")?;
    let daemon = world.create_and_serve("db1", "128M")?;
    let info = world.tool("qemu-img", &["info", "--output=json", daemon.uri()])?.stdout;
    let info: serde_json::Value = serde_json::from_str(&info).context("qemu-img prints JSON")?;
    ensure!(info["virtual-size"] == BYTES, "size: {info}");
    world.tool("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", source, daemon.uri()])?;
    world.tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", source, daemon.uri()])?;
    world.tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", daemon.uri(), "out.qcow2"])?;
    world.tool("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", source, "out.qcow2"])?;
    let map = world.tool("qemu-img", &["map", "--output=json", "-f", "raw", daemon.uri()])?.stdout;
    ensure!(map.contains("\"zero\": true") && map.contains("\"data\": true"), "map: {map}");
    daemon.close()
}

fn qemu_io(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "1G")?;
    let run = |commands: &[&str]| -> Result<()> {
        let mut arguments = vec!["-f", "raw", daemon.uri()];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        let output = world.tool("qemu-io", &arguments)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        // qemu-io says a failed verification and ends with 0 all the same in some versions.
        ensure!(!said.contains("verification failed") && !said.contains("error"), "{said}");
        Ok(())
    };
    run(&[
        "write -P 0xa5 0 1M",
        "write -P 0x5a 512k 4k",
        "write -P 0x11 1000 3000",
        "read -P 0x11 1000 3000",
        "read -P 0xa5 4000 1000",
        "write -z 64k 64k",
        "discard 128k 64k",
        "aio_write -P 0x77 2M 1M",
        "aio_write -P 0x78 3M 1M",
        "aio_flush",
        "flush",
    ])?;
    run(&[
        "read -P 0xa5 4k 60k",
        "read -P 0 64k 128k",
        "read -P 0x5a 512k 4k",
        "read -P 0x77 2M 1M",
        "read -P 0x78 3M 1M",
        "read -P 0 1023M 1M",
    ])?;
    daemon.close()
}

fn fio(world: &World) -> Result<()> {
    let daemon = world.create_and_serve("db1", "512M")?;
    let job = |name: &str, uri: &str, more: &[&str]| {
        let mut command = world.client("fio");
        command.args([&format!("--name={name}"), "--ioengine=nbd", &format!("--uri={uri}")]);
        command.args([
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=32",
            "--size=64m",
            "--verify=crc32c",
            "--randseed=7",
        ]);
        command.args(["--verify_fatal=1", "--group_reporting"]).args(more);
        command
    };
    shell::output_ok(&mut job("kept", daemon.uri(), &["--do_verify=1", "--end_fsync=1"]), TOOL_LIMIT)?;
    // Writes elsewhere are in flight when the daemon dies.
    let mut lost =
        job("lost", daemon.uri(), &["--do_verify=0", "--offset=256m", "--time_based", "--runtime=60"]);
    let mut lost = lost
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(1500));
    daemon.kill();
    if shell::wait(&mut lost, Duration::from_secs(20))?.is_none() {
        shell::kill_group(&lost);
        let _ = lost.wait();
    }
    let daemon = world.serve("db1")?;
    shell::output_ok(&mut job("kept", daemon.uri(), &["--verify_only"]), TOOL_LIMIT)?;
    daemon.close()
}

fn nbd_crate(world: &World) -> Result<()> {
    const BYTES: usize = 1 << 20;
    let daemon = world.create_and_serve("db1", "64M")?;
    let connect = || -> Result<NbdClient<UnixStream>> {
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(TOOL_LIMIT))?;
        stream.set_write_timeout(Some(TOOL_LIMIT))?;
        let export = handshake(&mut stream, b"db1").context("the handshake of the nbd crate")?;
        ensure!(export.size == 64 << 20 && !export.readonly && export.send_flush, "{export:?}");
        Ok(NbdClient::new(stream, &export))
    };
    let mut data = vec![0; BYTES];
    Numbers::new(world.seed).fill(&mut data);
    let mut client = connect()?;
    for (index, piece) in data.chunks(64 << 10).enumerate() {
        client.seek(SeekFrom::Start((index as u64) * (128 << 10)))?;
        client.write_all(piece)?;
    }
    client.flush()?;
    let mut client = connect()?;
    for (index, piece) in data.chunks(64 << 10).enumerate() {
        let mut found = vec![0; piece.len()];
        client.seek(SeekFrom::Start((index as u64) * (128 << 10)))?;
        client.read_exact(&mut found)?;
        ensure!(found == piece, "piece {index} came back differently");
    }
    drop(client);
    daemon.close()
}
