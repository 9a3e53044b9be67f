//! What was written is read: through flush, drop and reopening, at any alignment, within bounds.

use bytes::Bytes;
use lsvd_volume::{Error, ExtentStatus, Volume};

use crate::common::{BLOCK, MIB, Verb, World, blocks, fill_of, read, settle, write_block};

/// Rule 1: what was flushed survives the loss of the process; a new opening finds it.
#[tokio::test(start_paused = true)]
async fn what_was_flushed_is_there_after_a_crash() {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(5 * BLOCK, blocks(3, 7), false).await.unwrap();
    assert_eq!(fill_of(&volume, 6).await.unwrap(), 7, "an accepted write is read at once");
    volume.flush().await.unwrap();
    volume.write(20 * BLOCK, blocks(1, 9), false).await.unwrap();
    drop(volume);

    let volume = world.open().await;
    assert_eq!(fill_of(&volume, 5).await.unwrap(), 7);
    assert_eq!(fill_of(&volume, 7).await.unwrap(), 7);
    assert_eq!(fill_of(&volume, 8).await.unwrap(), 0);
    assert_eq!(fill_of(&volume, 20).await.unwrap(), 0, "it was not flushed, and its process is gone");
    assert_eq!(volume.description().recovery.objects_processed, 3, "fence, data, own fence");
}

/// Rule 1: a completed FUA request of each kind survives a crash, without a flush.
#[tokio::test(start_paused = true)]
async fn what_completed_with_fua_is_there_after_a_crash() {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(0, blocks(4, 1), true).await.unwrap();
    volume.trim(BLOCK, BLOCK, true).await.unwrap();
    volume.write_zeroes(2 * BLOCK, BLOCK, true, true).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    assert_eq!(
        read(&volume, 0, 4 * BLOCK).await.unwrap(),
        [blocks(1, 1), blocks(2, 0), blocks(1, 1)].concat()
    );
    let status = |length_bytes, hole, zero| ExtentStatus { length_bytes, hole, zero };
    let expected = [
        status(BLOCK, false, false),
        status(BLOCK, true, true),
        status(BLOCK, false, true),
        status(BLOCK, false, false),
        status(BLOCK, true, true),
    ];
    assert_eq!(volume.block_status(0, 5 * BLOCK).await.unwrap(), expected);
}

/// The engine's promise on partial blocks, over a base that only the store has.
#[tokio::test(start_paused = true)]
async fn unaligned_writes_merge_over_what_is_stored() {
    let world = World::new().await;
    let volume = world.open().await;
    let mut model: Vec<u8> = (0..8 * BLOCK).map(|at| (at % 251) as u8).collect();
    volume.write(0, Bytes::from(model.clone()), true).await.unwrap();
    drop(volume);
    // Nothing is cached in a new opening: bases are fetched.
    let volume = world.open().await;
    for (offset, length, fill) in [(100, 10, 1u8), (4000, 200, 2), (8192, 4096, 3), (12_000, 9_000, 4)] {
        volume.write(offset as u64, Bytes::from(vec![fill; length]), false).await.unwrap();
        model[offset..offset + length].fill(fill);
    }
    volume.write_zeroes(30_000, 500, false, false).await.unwrap();
    model[30_000..30_500].fill(0);
    // A trim rounds inward: the parts of blocks at its ends stay.
    volume.trim(4_097, 2 * 4096, false).await.unwrap();
    model[8192..12_288].fill(0);
    assert_eq!(read(&volume, 0, 8 * BLOCK).await.unwrap(), model);
    assert_eq!(read(&volume, 4_001, 10_001).await.unwrap(), model[4_001..14_002]);
    volume.flush().await.unwrap();
    drop(volume);
    let volume = world.open().await;
    assert_eq!(read(&volume, 0, 8 * BLOCK).await.unwrap(), model);
}

/// Writes of parts of one block, submitted at once over a stored base, all take effect.
#[tokio::test(start_paused = true)]
async fn parts_of_one_block_written_at_once_are_all_there() {
    let world = World::new().await;
    write_block(&world.open().await, 3, 0xff).await.unwrap();
    let volume = world.open().await;
    let writes = (0..8u8).map(|nth| {
        let part = Bytes::from(vec![nth; 512]);
        volume.write(3 * BLOCK + u64::from(nth) * 512, part, false)
    });
    futures::future::try_join_all(writes).await.unwrap();
    let expected: Vec<u8> = (0..8u8).flat_map(|nth| [nth; 512]).collect();
    assert_eq!(read(&volume, 3 * BLOCK, BLOCK).await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_whole_device_trim_and_zeroing_work() {
    let world = World::new().await;
    let volume = world.open().await;
    volume.write(MIB, blocks(10, 5), true).await.unwrap();
    volume.trim(0, 64 * MIB, true).await.unwrap();
    assert_eq!(read(&volume, MIB, 10 * BLOCK).await.unwrap(), blocks(10, 0));
    volume.write_zeroes(0, 64 * MIB, true, true).await.unwrap();
    drop(volume);
    let volume = world.open().await;
    let all = [ExtentStatus { length_bytes: 64 * MIB, hole: false, zero: true }];
    assert_eq!(volume.block_status(0, 64 * MIB).await.unwrap(), all);
}

#[tokio::test(start_paused = true)]
async fn nothing_reaches_beyond_the_volume() {
    let world = World::new().await;
    let volume = world.open().await;
    let end = 64 * MIB;
    volume.write(end - 1, "x".into(), true).await.unwrap();
    assert_eq!(read(&volume, end - 2, 2).await.unwrap(), b"\0x");
    for (offset, length) in [(end, 1), (end - 1, 2), (u64::MAX, 2), (0, u64::MAX), (end + BLOCK, 0)] {
        let errors = [
            volume.read(offset, length).await.err(),
            volume.trim(offset, length, false).await.err(),
            volume.write_zeroes(offset, length, false, false).await.err(),
            volume.block_status(offset, length).await.err(),
        ];
        for error in errors {
            assert!(matches!(error, Some(Error::BeyondEnd { .. })), "{length} at {offset}: {error:?}");
        }
    }
    let error = volume.write(end - 1, "xy".into(), false).await.unwrap_err();
    assert!(error.to_string().contains("67108864"), "it says where the end is: {error}");
    assert_eq!(volume.read(end, 0).await.unwrap(), []);
    volume.write(end, Bytes::new(), true).await.unwrap();
}

/// Rule 3: opening read-only, reading and closing make no request that changes anything, not even on a volume with
/// stragglers, and the store is afterwards what it was before.
#[tokio::test(start_paused = true)]
async fn read_only_changes_nothing() {
    let world = World::new().await;
    let writer = world.open().await;
    write_block(&writer, 1, 11).await.unwrap();
    world.put_old_object(&writer, 2, 12, 1, 99);
    drop(writer);
    let before = world.store.image();
    world.store.forget();

    let volume = world.open_read_only().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 11);
    for error in [
        volume.write(0, blocks(1, 1), false).await.err(),
        volume.trim(0, BLOCK, true).await.err(),
        volume.write_zeroes(0, BLOCK, false, false).await.err(),
    ] {
        assert!(matches!(error, Some(Error::ReadOnly { .. })), "{error:?}");
    }
    volume.flush().await.unwrap();
    volume.close().await.unwrap();
    assert!(!world.store.made().iter().any(|made| made.verb.mutates()), "{:?}", world.store.made());
    assert_eq!(world.store.image(), before);
}

/// A reader beside a writer sees what was durable when it opened, and does not fence the writer.
#[tokio::test(start_paused = true)]
async fn a_reader_does_not_disturb_a_writer() {
    let world = World::new().await;
    let writer = world.open().await;
    write_block(&writer, 1, 11).await.unwrap();
    let reader = world.open_read_only().await;
    write_block(&writer, 1, 12).await.unwrap();
    assert_eq!(fill_of(&reader, 1).await.unwrap(), 11);
    assert_eq!(fill_of(&writer, 1).await.unwrap(), 12);
    let description = reader.description();
    assert!(description.read_only && description.epoch == writer.description().epoch);
    assert_eq!((description.recovery.durable_number.0, reader.stats().durable_number), (9, 9));
}

/// Reads are answered while a flush is on its way, with what was accepted.
#[tokio::test(start_paused = true)]
async fn reads_do_not_wait_for_a_flush() {
    let world = World::new().await;
    let volume = world.open().await;
    write_block(&volume, 1, 1).await.unwrap();
    world.store.always(Verb::Put, "log/", crate::common::Fate::Hangs);
    volume.write(2 * BLOCK, blocks(1, 2), false).await.unwrap();
    let flush = tokio::spawn(flush(volume.clone()));
    settle().await;
    assert_eq!(fill_of(&volume, 1).await.unwrap(), 1);
    assert_eq!(fill_of(&volume, 2).await.unwrap(), 2);
    volume.write(2 * BLOCK, blocks(1, 3), false).await.unwrap();
    assert!(!flush.is_finished());
    world.store.release();
    flush.await.unwrap().unwrap();
    assert_eq!(fill_of(&volume, 2).await.unwrap(), 3, "the flushed content does not hide the newer one");
    assert_eq!(volume.stats().durable_number, 10);
}

async fn flush(volume: Volume) -> Result<(), Error> {
    volume.flush().await
}
