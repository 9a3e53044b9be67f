//! A stranger's reader: `docs/examples/read_volume.py`, written from `docs/format.md`, reads what this crate writes.
//!
//! It shares no code with this crate, not even the checksum; so what both agree on is the document.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lsvd_format::log_object::{Entry, HEADER_FIXED_BYTES, Header, Source, encode_frames};
use lsvd_format::superblock::{self, Superblock};
use lsvd_format::{
    BLOCK_LEN, BlockOrdinal, Epoch, Extent, ObjectIdentity, SequenceNumber, SuperblockNumber, VolumeId,
    WriterId, names,
};

const VOLUME_BLOCKS: usize = 64;
const WINDOW: u64 = 4;

/// A volume in a directory, with the image that it should give.
struct Volume {
    directory: PathBuf,
    image: Vec<u8>,
}

impl Volume {
    /// Two openings, each with its fence, and a straggler of the first one beyond the second one's fence.
    fn new(test: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stranger").join(test);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        let mut volume = Self { directory, image: vec![0; VOLUME_BLOCKS * BLOCK_LEN] };
        volume.put_superblock(1, 1, None);
        volume.put_log(1, 1, vec![Entry::Fence { next: SequenceNumber(5) }], true);
        volume.put_log(1, 5, vec![data(0, 8), data(20, 4)], true);
        volume.put_log(1, 6, vec![data(2, 2), zero(21, 1), trim(6, 1), data(6, 1)], true);
        // Blocks 0 to 3 are moved; 2 and 3 have been written since, and keep what they have.
        volume.put_relocation(1, 7, Extent::new(0, 4), 5, 5);
        // What was moved is moved on. Block 0 lies in object 8 then, so that a move from object 5 does not apply:
        // other data than the source's would show if it did.
        volume.put_relocation(1, 8, Extent::new(0, 2), 7, 5);
        volume.put_relocation(1, 9, Extent::new(0, 1), 5, 77);
        volume.put_superblock(2, 2, None);
        volume.put_log(2, 10, vec![Entry::Fence { next: SequenceNumber(14) }], true);
        volume.put_log(1, 11, vec![data(0, 64)], false);
        volume.put_log(2, 14, vec![trim(22, 40), data(63, 1)], true);
        volume.put_log(2, 15, Vec::new(), true);
        volume.put_log(2, 17, vec![data(0, 64)], false);
        volume.put_superblock(3, 2, Some(15));
        std::fs::write(volume.directory.join("log/not-a-number"), b"somebody else's").expect("writable");
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("names have folders")).expect("writable");
        std::fs::write(path, bytes).expect("writable");
    }

    fn put_superblock(&self, number: u64, epoch: u64, reached: Option<u64>) {
        let superblock = Superblock {
            volume_id: VolumeId([0xa1; 16]),
            epoch: Epoch(epoch),
            writer_id: writer(epoch),
            size_bytes: (VOLUME_BLOCKS * BLOCK_LEN) as u64,
            window: WINDOW,
            log_first_number: SequenceNumber(1),
            log_layout: None,
            unsafe_single_writer: false,
            closed_at: None,
            log_reached: reached.map(SequenceNumber),
            log_begun_epoch: None,
            journal: None,
            checkpoints: Vec::new(),
            condemned: Vec::new(),
            written_unix_ms: 0,
            written_by: "a test".to_owned(),
            features_to_read: Vec::new(),
            features_to_write: Vec::new(),
            unknown: serde_json::Map::new(),
        };
        let number = SuperblockNumber(number);
        self.put(&names::superblock(number), &superblock::encode(number, &superblock));
    }

    /// An object whose data are a pattern of number, ordinal and offset; one that `counts` changes the image.
    fn put_log(&mut self, epoch: u64, number: u64, entries: Vec<Entry>, counts: bool) {
        let mut payload = Vec::new();
        for entry in &entries {
            let from = payload.len();
            for _ in 0..entry.payload_blocks() {
                let ordinal = payload.len() / BLOCK_LEN;
                payload.extend(pattern(number, ordinal));
            }
            if let (Some(extent), true) = (entry.extent(), counts) {
                let image = self.image_of(extent);
                match entry.payload_blocks() {
                    0 => image.fill(0),
                    _ => image.copy_from_slice(&payload[from..]),
                }
            }
        }
        self.put_object(epoch, number, entries, &payload);
    }

    /// Moves `extent` from the first blocks of `source`, with the data that object `written` was made with. The image
    /// does not change: that is the point of it.
    fn put_relocation(&mut self, epoch: u64, number: u64, extent: Extent, source: u64, written: u64) {
        let payload: Vec<u8> = (0..extent.count.0)
            .flat_map(|index| pattern(written, usize::try_from(index).expect("few blocks")))
            .collect();
        let source =
            Source { volume: VolumeId([0xa1; 16]), number: SequenceNumber(source), ordinal: BlockOrdinal(0) };
        self.put_object(epoch, number, vec![Entry::Relocation { extent, source }], &payload);
    }

    fn put_object(&self, epoch: u64, number: u64, entries: Vec<Entry>, payload: &[u8]) {
        let identity = ObjectIdentity {
            volume: VolumeId([0xa1; 16]),
            epoch: Epoch(epoch),
            writer: writer(epoch),
            number: SequenceNumber(number),
        };
        let header = Header { identity, sealed_unix_ms: 0, journal: None, entries };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        encode_frames(&identity, BlockOrdinal(0), payload, &mut bytes);
        assert_eq!(bytes.len() as u64, header.object_bytes());
        self.put(&names::log_object(SequenceNumber(number)), &bytes);
    }

    fn image_of(&mut self, extent: Extent) -> &mut [u8] {
        let range = extent.start.offset_bytes()..extent.end().offset_bytes();
        &mut self.image
            [usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")]
    }

    /// Changes the stored bytes of a log object.
    fn damage(&self, number: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let name = names::log_object(SequenceNumber(number));
        let mut bytes = std::fs::read(self.path(&name)).expect("the object is there");
        change(&mut bytes);
        self.put(&name, &bytes);
    }

    /// What the reader answers; nothing if there is no Python here.
    fn read(&self) -> Option<Output> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/read_volume.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(script).arg(&self.directory).arg(self.path("image"));
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: there is no python3 here to run docs/examples/read_volume.py with");
                None
            }
            other => Some(other.expect("python3 runs")),
        }
    }

    /// The reader refuses, with an error that has these words.
    fn refused(&self, words: &str) {
        let Some(output) = self.read() else { return };
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{error}");
        assert!(!error.contains("Traceback"), "{error}");
    }

    /// The reader gives the image, and these words on standard error.
    fn reads(&self, warning: &str) {
        let Some(output) = self.read() else { return };
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert_eq!(error.is_empty(), warning.is_empty(), "{error}");
        assert!(error.contains(warning), "{error}");
        let image = std::fs::read(self.path("image")).expect("the image is there");
        assert!(image == self.image, "the image differs");
    }
}

fn data(start: u64, count: u64) -> Entry {
    Entry::Data { extent: Extent::new(start, count) }
}

fn zero(start: u64, count: u64) -> Entry {
    Entry::Zero { extent: Extent::new(start, count) }
}

fn trim(start: u64, count: u64) -> Entry {
    Entry::Trim { extent: Extent::new(start, count) }
}

fn writer(epoch: u64) -> WriterId {
    WriterId([u8::try_from(epoch).expect("few epochs"); 16])
}

fn pattern(number: u64, ordinal: usize) -> impl Iterator<Item = u8> {
    let salt = number * 37 + ordinal as u64 * 11 + 1;
    (0..BLOCK_LEN as u64).map(move |index| u8::try_from((index * 3 + salt) % 251).expect("below 251"))
}

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
    volume.put_superblock(4, 2, None);
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
