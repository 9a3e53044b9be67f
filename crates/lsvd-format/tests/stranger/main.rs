//! A stranger's reader: `docs/examples/read_volume.py`, written from `docs/format.md`, reads what this crate writes.
//!
//! It shares no code with this crate, not even the checksum; so what both agree on is the document.

mod checkpoints;
mod volume;

use lsvd_format::log_object::HEADER_FIXED_BYTES;

use volume::Volume;

/// Rules 1, 3 and 6: what counts is the gapless run, a fence's stragglers never do, and a move never brings back
/// what has been written over.
#[test]
fn reads_a_volume() {
    Volume::new("whole").reads("");
}

/// Rule 6: what was moved is read from where it was moved to, each block of a run, and its source may go.
#[test]
fn reads_moved_blocks_from_where_they_are_now() {
    let volume = Volume::new("moved");
    for number in [5, 7] {
        volume.damage(number, |bytes| {
            let frames = bytes.len() - if number == 5 { 12 * 4104 } else { 4 * 4104 };
            bytes[frames..frames + 2 * 4104].fill(0);
        });
    }
    volume.reads("");
}

/// Rule 5: no unverified byte.
#[test]
fn refuses_a_damaged_block() {
    let volume = Volume::new("block");
    volume.damage(6, |bytes| *bytes.last_mut().expect("not empty") ^= 1);
    volume.refused("object 6: block 2 is damaged");
}

#[test]
fn refuses_a_damaged_header() {
    let volume = Volume::new("header");
    volume.damage(6, |bytes| bytes[100] ^= 1);
    volume.refused("checksum is wrong");
}

/// Rule 4: an error is not an absence; a cut object does not end the log.
#[test]
fn refuses_a_truncated_object() {
    let volume = Volume::new("truncated");
    volume.damage(14, |bytes| bytes.truncate(bytes.len() - 1));
    volume.refused("bytes, not");
    volume.damage(14, |bytes| bytes.truncate(usize::try_from(HEADER_FIXED_BYTES).expect("small") + 1));
    volume.refused("truncated in its header");
    volume.damage(14, Vec::clear);
    volume.refused("no log object of format 2");
}

#[test]
fn refuses_an_object_under_another_name() {
    let volume = Volume::new("misnamed");
    let bytes = std::fs::read(volume.path("log/0000000000000006")).expect("the object is there");
    volume.damage(7, |other| *other = bytes);
    volume.refused("under a wrong name");
}

#[test]
fn refuses_epochs_that_fall() {
    let mut volume = Volume::new("epochs");
    volume.put_log(1, 15, Vec::new(), true);
    volume.refused("comes after epoch 2");
}

/// Rule 4: a log that is known to have been longer is not taken for a shorter one.
#[test]
fn refuses_a_log_that_lost_its_end() {
    let volume = Volume::new("end");
    std::fs::remove_file(volume.path("log/000000000000000f")).expect("the object is there");
    volume.refused("had reached 15");
}

/// Rule 4: a hole with objects so far above it that no writer could have put them before is a loss, not the end.
#[test]
fn refuses_a_log_with_a_hole() {
    let volume = Volume::new("hole");
    volume.put_superblock(4, 2, |superblock| superblock);
    std::fs::remove_file(volume.path("log/0000000000000005")).expect("the object is there");
    volume.refused("object 5 is missing");
}

#[test]
fn passes_over_a_damaged_superblock() {
    let volume = Volume::new("superblock");
    volume.put("superblock/0000000000000004", b"lsvd superblock format=2 number=00");
    volume.reads("superblock 4 is damaged");
}

#[test]
fn refuses_a_newer_superblock() {
    let volume = Volume::new("newer");
    let bytes = std::fs::read_to_string(volume.path("superblock/0000000000000003")).expect("it is there");
    volume.put("superblock/0000000000000004", bytes.replacen("format=2", "format=3", 1).as_bytes());
    volume.refused("newer format");
}
