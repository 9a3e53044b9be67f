//! Clients that somebody else wrote: the `nbd` crate, libnbd by its tools and by Python.

// A failing test may panic wherever it stands, in its helpers too.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Output};

use common::*;
use lsvd_nbd::{ExportInfo, Limits, ListenAddress, Listener, Server};

fn disk() -> MemoryExport {
    let description = "a disk for tests".to_owned();
    MemoryExport::new(ExportInfo { can_multi_conn: true, description, ..ExportInfo::new(64 << 20) })
}

fn uri(running: &Running) -> String {
    ListenAddress::Unix(running.socket.clone()).uri("disk")
}

async fn output(mut command: Command) -> String {
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Names the export by EXPORT_NAME, wants the 124 zeroes, speaks simple replies, over TCP.
#[tokio::test]
async fn the_nbd_crates_client() {
    let export = std::sync::Arc::new(disk());
    let server = Server::new(vec![("disk".into(), export.clone())], None, Limits::default()).unwrap();
    let listener = Listener::bind_tcp("localhost", 0).await.unwrap();
    let ListenAddress::Tcp { host, port } = listener.address().clone() else { panic!("not a port") };
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect((host.as_str(), port)).unwrap();
        let told = nbd::client::handshake(&mut stream, b"disk").unwrap();
        assert_eq!(told.size, 64 << 20);
        assert!(told.send_flush && told.send_trim && !told.readonly && !told.rotational);
        let mut client = nbd::client::NbdClient::new(&mut stream, &told);
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        client.seek(SeekFrom::Start(12345)).unwrap();
        client.write_all(&data).unwrap();
        client.flush().unwrap();
        client.seek(SeekFrom::Start(12345)).unwrap();
        let mut read = vec![0; data.len()];
        client.read_exact(&mut read).unwrap();
        assert!(read == data);
        client.seek(SeekFrom::Start(12345)).unwrap();
        nbd::client::NbdExt::trim(&mut client, 4096).unwrap();
        client.seek(SeekFrom::Start(12345)).unwrap();
        client.read_exact(&mut read[..4096]).unwrap();
        assert!(read[..4096].iter().all(|byte| *byte == 0));
        // The stream outlives a request that fails.
        client.seek(SeekFrom::Start((64 << 20) - 512)).unwrap();
        client.write_all(&[1; 512]).unwrap();
        data
    });
    let data = client.await.unwrap();
    assert!(export.bytes(12345 + 4096, 10_000) == data[4096..14_096]);
}

#[tokio::test]
async fn nbdinfo_shows_what_is_served() {
    if !is_installed("/usr/bin/nbdinfo") {
        return;
    }
    let running = Running::start(disk(), Limits::default()).await;
    let mut client = running.client().await;
    client.write(1 << 20, &[7; 8192]).await.unwrap();

    let nbdinfo = |arguments: &[&str]| {
        let mut command = Command::new("/usr/bin/nbdinfo");
        command.args(arguments).arg(uri(&running));
        output(command)
    };
    let text = nbdinfo(&["--json", "--no-content"]).await;
    for line in [
        r#""protocol": "newstyle-fixed""#,
        r#""structured": true"#,
        r#""export-name": "disk""#,
        r#""description": "a disk for tests""#,
        r#""export-size": 67108864"#,
        r#""base:allocation""#,
        r#""is_read_only": false"#,
        r#""is_rotational": false"#,
        r#""can_multi_conn": true"#,
        r#""can_fua": true"#,
        r#""can_trim": true"#,
        r#""can_zero": true"#,
        r#""can_fast_zero": false"#,
        r#""can_cache": true"#,
        r#""can_df": true"#,
        r#""block_size_minimum": 1"#,
        r#""block_size_preferred": 4096"#,
        r#""block_size_maximum": 33554432"#,
    ] {
        let found = text.contains(line);
        assert!(found, "{line} is not in {text}");
    }
    assert!(nbdinfo(&["--list"]).await.contains("export=\"disk\""));
    let map = nbdinfo(&["--map"]).await;
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        lines,
        [["0", "1048576", "3"], ["1048576", "8192", "0"], ["1056768", "66052096", "3"]],
        "{map}"
    );
}

/// Everything that libnbd can ask for, checked by a client that knows what to expect.
const SCRIPT: &str = r#"
import nbd, sys, errno
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_strict_mode(0)          # so that wrong requests reach the server
h.set_opt_mode(True)
h.set_full_info(True)
h.connect_uri(sys.argv[1])
names = []
h.opt_list(lambda name, description: names.append((name, description)))
assert names == [("disk", "a disk for tests")], names
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.opt_info()
assert h.get_size() == 64 << 20
h.opt_go()
assert h.get_canonical_export_name() == "disk"
assert h.get_export_description() == "a disk for tests"
assert h.get_structured_replies_negotiated()
assert h.can_meta_context("base:allocation")
assert h.can_multi_conn() and h.can_df() and not h.can_fast_zero()

def fails(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except nbd.Error as error:
        assert error.errnum == code, (error.errnum, code)
    else:
        raise AssertionError("it did not fail")

data = bytes(range(256)) * 4096
h.pwrite(data, 777, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 777) == data
assert h.pread(len(data), 777, nbd.CMD_FLAG_DF) == data
chunks = []
h.pread_structured(8192, (1 << 20), lambda buf, at, kind, error: chunks.append((at, len(buf), kind)))
h.zero(1 << 20, 0, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(1 << 20, 0) == bytes(1 << 20)
h.pwrite(data[:5000], 10000)
h.trim(4096, 8192, nbd.CMD_FLAG_FUA)
h.cache(1 << 20, 0)
h.flush()
extents = []
h.block_status(64 << 20, 0, lambda context, at, entries, error: extents.extend(entries))
assert sum(extents[0::2]) == 64 << 20 and 0 in extents[1::2] and 3 in extents[1::2], extents
one = []
h.block_status(64 << 20, 0, lambda context, at, entries, error: one.extend(entries), nbd.CMD_FLAG_REQ_ONE)
assert len(one) == 2, one

fails(errno.EINVAL, h.pread, 512, 64 << 20)
fails(errno.ENOSPC, h.pwrite, bytes(512), 64 << 20)
fails(errno.ENOSPC, h.zero, 512, 64 << 20)
fails(errno.EINVAL, h.trim, 512, 64 << 20)
fails(errno.EINVAL, h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
fails(errno.EINVAL, h.block_status, 0, 0, lambda *a: 0)
fails(errno.EINVAL, h.flush, 1 << 3)

# Hundreds of requests in flight, and then goodbye.
waiting = []
for i in range(500):
    buffer = nbd.Buffer.from_bytearray(bytearray([i % 256]) * 4096)
    waiting.append(h.aio_pwrite(buffer, i * 4096))
while waiting:
    waiting = [cookie for cookie in waiting if not h.aio_command_completed(cookie)]
    if waiting:
        h.poll(-1)
for i in range(500):
    assert h.pread(4096, i * 4096) == bytes([i % 256]) * 4096
h.shutdown()
print("done")
"#;

#[tokio::test]
async fn libnbd_by_python() {
    if !is_installed("/usr/lib/python3/dist-packages/nbd.py") {
        return;
    }
    let running = Running::start(disk(), Limits::default()).await;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", SCRIPT]).arg(uri(&running));
    assert_eq!(output(command).await, "done\n");
}

/// An export's own metadata contexts: listed, selected beside `base:allocation` and alone, and failing.
const CONTEXTS: &str = r#"
import nbd, sys, errno
def connected(*names):
    h = nbd.NBD()
    for name in names:
        h.add_meta_context(name)
    h.connect_uri(sys.argv[1])
    return h
def status(h, length, offset):
    told = {}
    h.block_status(length, offset, lambda context, at, entries, error: told.update({context: list(entries)}))
    return told
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
def listed(*queries):
    h.clear_meta_contexts()
    for query in queries:
        h.add_meta_context(query)
    names = []
    h.opt_list_meta_context(lambda name: names.append(name))
    return names
own = ["test:odd", "test:silent", "test:failing"]
assert listed() == ["base:allocation"] + own, listed()
assert listed("test:") == own and listed("test:odd", "other:odd") == ["test:odd"]
h.opt_abort()

h = connected("base:allocation", "test:odd", "test:none", "other:odd")
assert h.can_meta_context("test:odd") and not h.can_meta_context("test:none")
told = status(h, 63 << 20, 1 << 20)
assert told["base:allocation"] == [63 << 20, 3], told
assert told["test:odd"] == [4096, 0, 4096, 1] * 4, told
assert status(h, 4096, 4096 + 10)["test:odd"] == [4086, 1, 10, 0]
assert status(connected("test:odd"), 4096, 0) == {"test:odd": [4096, 0]}
# No answer is no answer: never one without flags.
for name in own[1:]:
    h = connected("base:allocation", name)
    try:
        status(h, 4096, 0)
    except nbd.Error as error:
        assert error.errnum == errno.EIO
    else:
        raise AssertionError(name)
    assert h.pread(512, 0) == bytes(512)
print("done")
"#;

#[tokio::test]
async fn contexts_by_python() {
    if !is_installed("/usr/lib/python3/dist-packages/nbd.py") {
        return;
    }
    let info = ExportInfo { context_namespace: Some("test:"), ..ExportInfo::new(64 << 20) };
    let running = Running::start(MemoryExport::new(info), Limits::default()).await;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", CONTEXTS]).arg(uri(&running));
    assert_eq!(output(command).await, "done\n");
}

#[tokio::test]
async fn nbdcopy_over_several_connections() {
    if !is_installed("/usr/bin/nbdcopy") {
        return;
    }
    let running = Running::start(disk(), Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let (image, copy) = (directory.path().join("image"), directory.path().join("copy"));
    let mut data: Vec<u8> =
        (0..16_u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    data[3 << 20..7 << 20].fill(0);
    data.resize(64 << 20, 0);
    std::fs::write(&image, &data).unwrap();
    let mut command = Command::new("/usr/bin/nbdcopy");
    command.args(["--connections=4", "--flush"]).arg(&image).arg(uri(&running));
    output(command).await;
    assert!(running.export.bytes(0, 64 << 20) == data);
    let mut command = Command::new("/usr/bin/nbdcopy");
    command.args(["--connections=4"]).arg(uri(&running)).arg(&copy);
    output(command).await;
    assert!(std::fs::read(&copy).unwrap() == data);
}
