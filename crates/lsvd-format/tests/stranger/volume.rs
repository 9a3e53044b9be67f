//! A volume in a directory, object by object, with the image that it should give.
//!
//! Keeps a map of its own, block by block, so that a checkpoint of it can be made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lsvd_format::checkpoint::{RootObject, SkippedRange, Slot};
use lsvd_format::log_object::{Entry, Header, Source, encode_frames};
use lsvd_format::superblock::{self, Moments, Superblock};
use lsvd_format::{
    BLOCK_LEN, BlockOrdinal, Epoch, Extent, ObjectFormat, ObjectIdentity, SequenceNumber, SuperblockNumber,
    VolumeId, WriterId, names,
};

pub(crate) const VOLUME: VolumeId = VolumeId([0xa1; 16]);
const WINDOW: u64 = 4;

/// What a block is in the map: zeroes, or the object's block of this ordinal.
pub(crate) type Place = Option<(SequenceNumber, u32)>;

pub(crate) struct Volume {
    directory: PathBuf,
    image: Vec<u8>,
    pub(crate) map: BTreeMap<u64, Place>,
    /// Objects that count, by number, with their live blocks; the slot is the number's.
    pub(crate) objects: BTreeMap<u64, RootObject>,
    pub(crate) skipped: Vec<SkippedRange>,
}

impl Volume {
    /// Two openings, each with its fence, and a straggler of the first one beyond the second one's fence.
    pub(crate) fn new(test: &str) -> Self {
        let mut volume = Self::empty(test, 64);
        volume.first_opening(&[]);
        volume.second_opening();
        volume.put_end(Vec::new());
        volume
    }

    pub(crate) fn empty(test: &str, blocks: usize) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stranger").join(test);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        let image = vec![0; blocks * BLOCK_LEN];
        Self { directory, image, map: BTreeMap::new(), objects: BTreeMap::new(), skipped: Vec::new() }
    }

    /// Objects 1 to 9; object 6 has these entries, too.
    pub(crate) fn first_opening(&mut self, more: &[Entry]) {
        self.put_superblock(1, 1, |superblock| superblock);
        self.put_log(1, 1, vec![Entry::Fence { next: SequenceNumber(5) }], true);
        self.put_log(1, 5, vec![data(0, 8), data(20, 4)], true);
        self.put_log(1, 6, [&[data(2, 2), zero(21, 1), trim(6, 1), data(6, 1)], more].concat(), true);
        // Blocks 0 to 3 are moved; 2 and 3 have been written since, and keep what they have.
        self.put_relocation(1, 7, Extent::new(0, 4), 5, 5);
        // What was moved is moved on. Block 0 lies in object 8 then, so that a move from object 5 does not apply:
        // other data than the source's would show if it did.
        self.put_relocation(1, 8, Extent::new(0, 2), 7, 5);
        self.put_relocation(1, 9, Extent::new(0, 1), 5, 77);
    }

    /// Objects 10 to 14, and what does not count.
    pub(crate) fn second_opening(&mut self) {
        self.put_superblock(2, 2, |superblock| superblock);
        self.put_log(2, 10, vec![Entry::Fence { next: SequenceNumber(14) }], true);
        self.put_log(1, 11, vec![data(0, 64)], false);
        self.put_log(2, 14, vec![trim(22, 40), data(63, 1)], true);
    }

    /// Object 15, the last one, and one beyond a gap.
    pub(crate) fn put_end(&mut self, entries: Vec<Entry>) {
        self.put_log(2, 15, entries, true);
        self.put_log(2, 17, vec![data(0, 64)], false);
        self.put_superblock(3, 2, |superblock| Superblock {
            log_reached: Some(SequenceNumber(15)),
            ..superblock
        });
        std::fs::write(self.directory.join("log/not-a-number"), b"somebody else's").expect("writable");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("names have folders")).expect("writable");
        std::fs::write(path, bytes).expect("writable");
    }

    /// A version of the superblock, with this change.
    pub(crate) fn put_superblock(
        &self,
        number: u64,
        epoch: u64,
        change: impl FnOnce(Superblock) -> Superblock,
    ) {
        let superblock = Superblock {
            volume_id: VOLUME,
            epoch: Epoch(epoch),
            writer_id: writer(epoch),
            size_bytes: self.image.len() as u64,
            window: WINDOW,
            log_first_number: SequenceNumber(1),
            log_layout: None,
            unsafe_single_writer: false,
            closed_at: None,
            log_reached: None,
            log_begun_epoch: None,
            journal: None,
            handover: None,
            unbroken_since: None,
            checkpoints: Vec::new(),
            condemned: Vec::new(),
            moments: Moments::default(),
            log_follows: None,
            parents: Vec::new(),
            removal: None,
            written_unix_ms: 0,
            written_by: "a test".to_owned(),
            features_to_read: Vec::new(),
            features_to_write: Vec::new(),
            unknown: serde_json::Map::new(),
        };
        let (number, superblock) = (SuperblockNumber(number), change(superblock));
        self.put(&names::superblock(number), &superblock::encode(number, &superblock));
    }

    /// An object whose data are a pattern of number, ordinal and offset; one that `counts` changes the image.
    pub(crate) fn put_log(&mut self, epoch: u64, number: u64, entries: Vec<Entry>, counts: bool) {
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
        self.put_object(epoch, number, entries, &payload, counts);
    }

    /// Moves `extent` from the first blocks of `source`, with the data that object `written` was made with. The image
    /// does not change: that is the point of it.
    fn put_relocation(&mut self, epoch: u64, number: u64, extent: Extent, source: u64, written: u64) {
        let payload: Vec<u8> = (0..extent.count.0)
            .flat_map(|index| pattern(written, usize::try_from(index).expect("few blocks")))
            .collect();
        let source = Source { volume: VOLUME, number: SequenceNumber(source), ordinal: BlockOrdinal(0) };
        self.put_object(epoch, number, vec![Entry::Relocation { extent, source }], &payload, true);
    }

    fn put_object(&mut self, epoch: u64, number: u64, entries: Vec<Entry>, payload: &[u8], counts: bool) {
        let identity = ObjectIdentity {
            volume: VOLUME,
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
        if counts {
            self.apply(&header);
        }
    }

    /// Brings the map and the objects' live blocks to behind this object.
    fn apply(&mut self, header: &Header) {
        let number = header.identity.number;
        let mut ordinal = 0;
        for entry in &header.entries {
            if let Entry::Fence { next } = *entry {
                self.skipped.push(SkippedRange { fence: number, next });
            }
            for block in entry.extent().map_or(0..0, |extent| extent.start.0..extent.end().0) {
                let index = block - entry.extent().expect("it has blocks").start.0;
                match *entry {
                    Entry::Data { .. } => drop(self.map.insert(block, Some((number, ordinal)))),
                    Entry::Relocation { source, .. } => {
                        let moved = source.ordinal.0 + u32::try_from(index).expect("few blocks");
                        if self.map.get(&block) == Some(&Some((source.number, moved))) {
                            self.map.insert(block, Some((number, ordinal)));
                        }
                    }
                    Entry::Zero { .. } => drop(self.map.insert(block, None)),
                    _ => drop(self.map.remove(&block)),
                }
                ordinal += u32::from(entry.payload_blocks() > 0);
            }
        }
        let object = RootObject {
            slot: Slot(u32::try_from(number.0).expect("few objects")),
            identity: header.identity,
            format: ObjectFormat::V2,
            header_bytes: header.header_bytes(),
            payload_blocks: header.payload_blocks(),
            live_blocks: 0,
            died_at: None,
            object_bytes: header.object_bytes(),
        };
        self.objects.insert(number.0, object);
        for (own, object) in &mut self.objects {
            let lives = |place: &&Place| place.is_some_and(|(number, _)| number.0 == *own);
            object.live_blocks = self.map.values().filter(lives).count() as u64;
            object.died_at = object.died_at.or((object.live_blocks == 0).then_some(number));
        }
    }

    fn image_of(&mut self, extent: Extent) -> &mut [u8] {
        let range = extent.start.offset_bytes()..extent.end().offset_bytes();
        &mut self.image
            [usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")]
    }

    /// Changes the stored bytes of a log object.
    pub(crate) fn damage(&self, number: u64, change: impl FnOnce(&mut Vec<u8>)) {
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
    pub(crate) fn refused(&self, words: &str) {
        let Some(output) = self.read() else { return };
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{error}");
        assert!(!error.contains("Traceback"), "{error}");
    }

    /// The reader gives the image, and these words on standard error.
    pub(crate) fn reads(&self, warning: &str) {
        let Some(output) = self.read() else { return };
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert_eq!(error.is_empty(), warning.is_empty(), "{error}");
        assert!(error.contains(warning), "{error}");
        let image = std::fs::read(self.path("image")).expect("the image is there");
        assert!(image == self.image, "the image differs");
    }
}

pub(crate) fn data(start: u64, count: u64) -> Entry {
    Entry::Data { extent: Extent::new(start, count) }
}

pub(crate) fn zero(start: u64, count: u64) -> Entry {
    Entry::Zero { extent: Extent::new(start, count) }
}

pub(crate) fn trim(start: u64, count: u64) -> Entry {
    Entry::Trim { extent: Extent::new(start, count) }
}

pub(crate) fn writer(epoch: u64) -> WriterId {
    WriterId([u8::try_from(epoch).expect("few epochs"); 16])
}

fn pattern(number: u64, ordinal: usize) -> impl Iterator<Item = u8> {
    let salt = number * 37 + ordinal as u64 * 11 + 1;
    (0..BLOCK_LEN as u64).map(move |index| u8::try_from((index * 3 + salt) % 251).expect("below 251"))
}
