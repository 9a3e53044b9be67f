//! The head of a part: what every object of `checkpoint/` begins with.
//!
//! Knows not what follows it. It says whose the object is, so that a create whose answer was lost is resolved by
//! reading it (rule 2): my writer id, it is done.

#[cfg(test)]
mod tests;

use super::PartId;
use crate::wire::{array, len_bytes, put, u16_at, u32_at, u64_at};
use crate::{DecodeError, Epoch, SequenceNumber, VolumeId, WriterId};

/// Bytes of a part's head: where its first region begins.
pub const PART_HEAD_BYTES: usize = 96;
/// Bytes of a part at most.
pub const PART_BYTES_MAX: u64 = 1 << 40;
/// The first bytes of every part, and of no other object.
pub const PART_MAGIC: [u8; 12] = *b"lsvd-part-1\n";

const VERSION: u16 = 1;

/// Offsets of the head's fields, in bytes from its start.
mod at {
    pub(super) const CHECKSUM: usize = 12;
    pub(super) const VERSION: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const RESERVED_A: usize = 20;
    pub(super) const VOLUME: usize = 24;
    pub(super) const AS_OF: usize = 40;
    pub(super) const EPOCH: usize = 48;
    pub(super) const SERIAL: usize = 56;
    pub(super) const RESERVED_B: usize = 60;
    pub(super) const WRITER: usize = 64;
    pub(super) const RESERVED_C: usize = 80;
}

/// What a part says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The volume.
    pub volume: VolumeId,
    /// Which part it is.
    pub part: PartId,
    /// The process that wrote it.
    pub writer: WriterId,
}

/// The first bytes of a part.
///
/// # Panics
/// If number or epoch is out of range.
pub fn encode_part_head(volume: VolumeId, part: PartId, writer: WriterId) -> [u8; PART_HEAD_BYTES] {
    if let Err(reason) = part.check() {
        panic!("a part that no reader would take: {reason}");
    }
    let mut head = [0; PART_HEAD_BYTES];
    put(&mut head, 0, &PART_MAGIC);
    put(&mut head, at::VERSION, &VERSION.to_le_bytes());
    put(&mut head, at::VOLUME, &volume.0);
    put(&mut head, at::AS_OF, &part.as_of.0.to_le_bytes());
    put(&mut head, at::EPOCH, &part.epoch.0.to_le_bytes());
    put(&mut head, at::SERIAL, &part.serial.to_le_bytes());
    put(&mut head, at::WRITER, &writer.0);
    let checksum = crc32c::crc32c(&head[at::VERSION..]);
    put(&mut head, at::CHECKSUM, &checksum.to_le_bytes());
    debug_assert_eq!(
        decode_part_head(&head),
        Ok(PartHead { volume, part, writer }),
        "what is written can be read"
    );
    head
}

/// Reads a part's head from its first bytes. Bytes after the head are not looked at. Whoever reads compares volume and
/// part with those that it asked for.
///
/// # Errors
/// [`DecodeError::Short`] says how many bytes to read and try again with; what is corrupt or newer is so.
pub fn decode_part_head(bytes: &[u8]) -> Result<PartHead, DecodeError> {
    let magic_len = bytes.len().min(PART_MAGIC.len());
    if bytes[..magic_len] != PART_MAGIC[..magic_len] {
        return Err(DecodeError::corrupt(0, "this is no part of a checkpoint: its magic is missing"));
    }
    let Some(head) = bytes.get(..PART_HEAD_BYTES) else {
        return Err(DecodeError::Short { have_bytes: len_bytes(bytes), need_bytes: PART_HEAD_BYTES as u64 });
    };
    let (stored, computed) = (u32_at(head, at::CHECKSUM), crc32c::crc32c(&head[at::VERSION..]));
    if stored != computed {
        let reason = format!("the head of the part has checksum {computed:08x}, not {stored:08x}");
        return Err(DecodeError::corrupt(at::CHECKSUM as u64, reason));
    }
    check_version(head)?;
    let part = PartId {
        as_of: SequenceNumber(u64_at(head, at::AS_OF)),
        epoch: Epoch(u64_at(head, at::EPOCH)),
        serial: u32_at(head, at::SERIAL),
    };
    part.check().map_err(|reason| DecodeError::corrupt(at::AS_OF as u64, reason))?;
    Ok(PartHead {
        volume: VolumeId(array(head, at::VOLUME)),
        part,
        writer: WriterId(array(head, at::WRITER)),
    })
}

fn check_version(head: &[u8]) -> Result<(), DecodeError> {
    let newer = |what: String| Err(DecodeError::Newer { what });
    let version = u16_at(head, at::VERSION);
    if version != VERSION {
        return newer(format!("a part of a checkpoint of version {version}"));
    }
    if u16_at(head, at::FLAGS) != 0 {
        return newer("a part of a checkpoint with flags".to_owned());
    }
    let reserved = [
        &head[at::RESERVED_A..at::VOLUME],
        &head[at::RESERVED_B..at::WRITER],
        &head[at::RESERVED_C..PART_HEAD_BYTES],
    ];
    if reserved.into_iter().flatten().any(|byte| *byte != 0) {
        return newer("a part of a checkpoint that uses reserved bytes of its head".to_owned());
    }
    Ok(())
}
