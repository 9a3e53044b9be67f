//! `lsvd resize`, and what clients see of a size.

use serde_json::Value;

use crate::nbd_client::Request;
use crate::rig::{Rig, block, lsvd, read, write};

fn resize(rig: &Rig, size: &str, more: &[&str]) -> Value {
    let url = rig.url("db1");
    let mut arguments = vec!["resize", &url, "--size", size, "--json"];
    arguments.extend(more);
    let ended = lsvd(&arguments);
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_volume_that_nobody_serves_is_resized() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let told = resize(&rig, "96M", &[]);
    assert_eq!(told["size_bytes_before"], 64 << 20);
    assert_eq!(told["size_bytes"], 96 << 20);
    let fields: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(told["through"], "store");
    assert_eq!(fields.len(), 6, "docs/json.md has them: {fields:?}");
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    assert_eq!(client.size_bytes(), 96 << 20);
    client.call(write((96 << 20) - 4096, block(7))).unwrap();
    client.call(write(0, block(1))).unwrap();
    client.call(Request::Flush).unwrap();
    drop(client);
    // A daemon is not fenced by somebody who meant well.
    let url = rig.url("db1");
    lsvd(&["resize", &url, "--size", "128M", "--no-control"]).expect(8, &["seems to be served"]);
    daemon.stop().expect(0, &[]);

    let refused = lsvd(&["resize", &url, "--size", "64M"]);
    refused.expect(1, &["4096 bytes beyond that hold data", "at byte 100659200", "--discard"]);
    lsvd(&["resize", &url, "--size", "4097"]).expect(2, &["4096"]);
    let text = lsvd(&["resize", &url, "--size", "64M", "--discard"]);
    text.expect(0, &[]);
    assert!(text.stdout.contains("size before\t96M (100,663,296 bytes)\n"), "{}", text.stdout);
    assert!(text.stdout.contains("size\t64M (67,108,864 bytes)\n"), "{}", text.stdout);
    resize(&rig, "96M", &[]);
    let daemon = rig.serve("db1", "s", &[]);
    let mut client = daemon.client("db1");
    assert_eq!(client.call(read((96 << 20) - 4096, 4096)).unwrap(), block(0));
    assert_eq!(client.call(read(0, 4096)).unwrap(), block(1));
    drop(client);
    daemon.stop().expect(0, &[]);
}
