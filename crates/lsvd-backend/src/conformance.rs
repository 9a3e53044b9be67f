//! What every store must do, as one suite that memory, directory and real servers pass alike.
//!
//! Behind the feature `conformance`, so that other crates run it against their own stores (a simulated one, say).
//! Each check has a folder of its own below the bucket's prefix and needs it empty. Panics with the promise that was
//! broken: this is test code, apart from that it is shipped.

use bytes::Bytes;
use futures::future::join_all;

use crate::bucket::{Bucket, Created};
use crate::error::Error;

/// Runs all checks on an empty prefix.
///
/// # Panics
/// With the promise that does not hold, or the error that the store answered with.
pub async fn run(bucket: Bucket) {
    create_is_create_only(&bucket.child("create")).await;
    one_racer_wins(&bucket.child("race")).await;
    heads_are_exact(&bucket.child("head")).await;
    ranges_are_exact(&bucket.child("range")).await;
    absence_is_definite(&bucket.child("absent")).await;
    lists_are_complete_and_sorted(&bucket.child("list")).await;
    folders_are_listed(&bucket.child("folders")).await;
    deletes_are_idempotent(&bucket.child("delete")).await;
    overwrites_replace(&bucket.child("overwrite")).await;
    large_objects_are_whole(&bucket.child("large")).await;
    probes_leave_nothing(&bucket.child("probe")).await;
}

fn good<T>(what: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

async fn put(bucket: &Bucket, name: &str, bytes: impl Into<Bytes>) {
    let created = good("create", bucket.create(name, bytes.into().into()).await);
    assert_eq!(created, Created::Done, "a new name '{name}' is free");
}

async fn names(bucket: &Bucket, folder: &str, after: Option<&str>) -> Vec<String> {
    good("list", bucket.list(folder, after).await).into_iter().map(|listed| listed.name).collect()
}

/// Rule 2: nothing is overwritten by a create, not even by the same bytes.
async fn create_is_create_only(bucket: &Bucket) {
    put(bucket, "log/1", "first").await;
    for again in ["first", "second, and longer"] {
        let created = good("create", bucket.create("log/1", again.into()).await);
        assert_eq!(created, Created::Exists, "rule 2: a name that is taken is refused");
    }
    let stored = good("read", bucket.read_range("log/1", 0..5).await);
    assert_eq!(stored.as_deref(), Some(&b"first"[..]), "rule 2: what is there stays");
    let head = good("read", bucket.read_head("log/1", 100).await).expect("it is there");
    assert_eq!(head.object_bytes, 5, "rule 2: what is there stays");
}

/// Rule 2, under a race: one creator wins, and its bytes are what is stored.
async fn one_racer_wins(bucket: &Bucket) {
    for race in 0..4 {
        let name = format!("log/{race}");
        let creators = (0..4_u8).map(|racer| {
            let name = &name;
            async move { (racer, bucket.create(name, vec![racer; 1000].into()).await) }
        });
        let outcomes = join_all(creators).await;
        let winners: Vec<u8> = outcomes
            .into_iter()
            .filter(|(_, outcome)| good("create", outcome.clone()) == Created::Done)
            .map(|(racer, _)| racer)
            .collect();
        assert_eq!(winners.len(), 1, "rule 2: exactly one of four creators wins");
        let stored = good("read", bucket.read_range(&name, 0..1000).await).expect("the winner's is there");
        assert!(stored.iter().all(|&byte| byte == winners[0]), "rule 2: the winner's bytes are stored");
    }
}

/// Rule 5: a head is the object's first bytes and its true length, for every length.
async fn heads_are_exact(bucket: &Bucket) {
    for (name, len) in [("empty", 0_usize), ("one", 1), ("some", 1000)] {
        put(bucket, name, vec![7; len]).await;
        for bytes_max in [1, 999, 1000, 1001, 1 << 20, u64::MAX] {
            let head = good("head", bucket.read_head(name, bytes_max).await).expect("it is there");
            assert_eq!(head.object_bytes, len as u64, "the length of '{name}'");
            assert_eq!(head.bytes.len() as u64, bytes_max.min(len as u64), "the head of '{name}'");
        }
    }
}

/// Rule 5: a range is exactly its bytes, and an object that ends too early is noticed at once.
async fn ranges_are_exact(bucket: &Bucket) {
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    put(bucket, "log/1", bytes.clone()).await;
    for range in [0..1, 0..70_000, 4096..8192, 69_999..70_000, 5..5] {
        let read = good("range", bucket.read_range("log/1", range.clone()).await).expect("it is there");
        let expected =
            usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small");
        assert_eq!(read, bytes[expected], "bytes {range:?}");
    }
    for range in [0..70_001, 69_999..70_001, 70_000..70_001, 1_000_000..1_000_001] {
        let read = bucket.read_range("log/1", range.clone()).await;
        assert!(matches!(read, Err(Error::Corrupt { .. })), "rule 5: {range:?} is truncated, got {read:?}");
    }
}

/// Rule 4: what is not there is definitely not there, whatever lies beside it.
async fn absence_is_definite(bucket: &Bucket) {
    for round in 0..2 {
        for name in ["log/1", "log", "lo", "nothing"] {
            assert_eq!(good("head", bucket.read_head(name, 10).await), None, "'{name}' in round {round}");
            assert_eq!(
                good("range", bucket.read_range(name, 0..10).await),
                None,
                "'{name}' in round {round}"
            );
        }
        assert_eq!(names(bucket, "nothing", None).await, [""; 0], "an empty folder lists as empty");
        if round == 0 {
            put(bucket, "log/10", "x").await;
        }
    }
}

/// Rule 4: a listing is complete and in order, beyond the thousand names that one answer of most servers holds.
async fn lists_are_complete_and_sorted(bucket: &Bucket) {
    let name = |n: usize| format!("log/{n:016x}");
    let all: Vec<String> = (0..1_100).map(name).collect();
    for chunk in all.chunks(50) {
        // In reverse, so that no store lists in order by chance.
        join_all(chunk.iter().rev().map(|name| put(bucket, name, "x"))).await;
    }
    put(bucket, "logs/1", "x").await;
    put(bucket, "lo", "xyz").await;

    assert_eq!(names(bucket, "log", None).await, all);
    assert_eq!(names(bucket, "log/", None).await, all, "a folder's slash does not matter");
    assert_eq!(names(bucket, "log", Some(&all[1_050])).await, all[1_051..], "strictly after a name");
    assert_eq!(names(bucket, "log", Some("log/0")).await, all, "after a name that is not there");
    assert_eq!(names(bucket, "log", Some(&all[1_099])).await, [""; 0], "after the last");
    let everything = good("list", bucket.list("", None).await);
    assert_eq!(everything.len(), 1_102, "the whole prefix");
    assert_eq!((everything[0].name.as_str(), everything[0].object_bytes), ("lo", 3));
    // 2020 to 2100: a unit that was mixed up is off by a thousand.
    let written = everything[0].last_modified_unix_ms;
    assert!((1_577_836_800_000..4_102_444_800_000).contains(&written), "milliseconds since 1970: {written}");
    assert_eq!(names(&bucket.child("log"), "", None).await.len(), 1_100, "a child sees its own");
}

/// `lsvd ls` finds volumes by their folders.
async fn folders_are_listed(bucket: &Bucket) {
    for name in ["db1/superblock/1", "db1/log/1", "db 2/superblock/1", "file"] {
        put(bucket, name, "x").await;
    }
    assert_eq!(good("folders", bucket.list_folders("").await), ["db 2", "db1"]);
    assert_eq!(good("folders", bucket.list_folders("db1").await), ["log", "superblock"]);
    assert_eq!(good("folders", bucket.list_folders("nothing").await), [""; 0]);
    assert_eq!(good("read", bucket.read_head("db 2/superblock/1", 9).await).map(|h| h.object_bytes), Some(1));
}

/// What is deleted is gone at once; deleting it again is no error; its name is free.
async fn deletes_are_idempotent(bucket: &Bucket) {
    put(bucket, "log/1", "x").await;
    put(bucket, "log/2", "x").await;
    for _ in 0..2 {
        good("delete", bucket.delete("log/1").await);
        assert_eq!(good("head", bucket.read_head("log/1", 10).await), None);
        assert_eq!(names(bucket, "log", None).await, ["log/2"]);
    }
    good("delete of what never was", bucket.delete("nothing/at/all").await);
    put(bucket, "log/1", "y").await;
}

/// For `--unsafe-single-writer` on stores without create-only PUT.
async fn overwrites_replace(bucket: &Bucket) {
    for text in ["one", "and another", "3"] {
        good("overwrite", bucket.overwrite("log/1", text.into()).await);
        let head = good("read", bucket.read_head("log/1", 100).await).expect("it is there");
        assert_eq!(head.bytes, text.as_bytes());
    }
}

/// Rule 5: an object of a batch's size comes back as it went, from a payload in pieces.
async fn large_objects_are_whole(bucket: &Bucket) {
    let piece: Bytes = (0..=250_u8).cycle().take(1 << 20).collect::<Vec<u8>>().into();
    let payload: object_store::PutPayload = (0..8).map(|_| piece.clone()).collect();
    assert_eq!(good("create", bucket.create("log/1", payload).await), Created::Done);
    let len = 8_u64 << 20;
    let read = good("read", bucket.read_range("log/1", 0..len).await).expect("it is there");
    assert!(read.chunks(piece.len()).all(|chunk| chunk == piece), "8 MiB come back as they went");
    let across = good("read", bucket.read_range("log/1", (1 << 20) - 10..(1 << 20) + 10).await);
    assert_eq!(across.expect("it is there")[10..], piece[..10]);
}

/// A probe finds a conforming store good, twice in one place, and takes away what it brought.
async fn probes_leave_nothing(bucket: &Bucket) {
    for nonce in ["one", "two"] {
        let report = good("probe", bucket.probe("probe", nonce).await);
        assert_eq!(report.verdict(), Ok(()), "{report:?}");
        assert_eq!(names(bucket, "", None).await, [""; 0], "the probe left something behind");
    }
}

#[cfg(test)]
mod tests;
