//! The bytes of a root: a head of fixed places, then numbers of as many bytes as they need.
//!
//! Knows the order of the fields; what they may be is the root's to check. A number that mostly lies near another is
//! stored as the difference.

use super::{
    ContainedRecord, LastDataRecord, RegionPlace, Root, RootObject, RootParent, RootPart, SkippedRange,
    object_bytes,
};
use crate::checkpoint::{CheckpointStamp, PART_BYTES_MAX, PART_HEAD_BYTES, PartId, RegionIndex, Slot};
use crate::log_object::HEADER_FIXED_BYTES;
use crate::varint::{Reader, put_step, put_varint};
use crate::wire::{len_bytes, put, u16_at, u32_at, u64_at};
use crate::{
    DecodeError, Epoch, JournalId, JournalPosition, ObjectFormat, ObjectIdentity, SequenceNumber, VolumeId,
    WriterId, v1,
};

/// Bytes of a root before its first number: no root is shorter.
pub const ROOT_HEAD_BYTES: usize = 32;
/// The first bytes of every root.
pub const ROOT_MAGIC: [u8; 12] = *b"lsvd-root-1\n";

const VERSION: u16 = 1;

/// Offsets of the head's fields, in bytes from the root's start.
mod at {
    pub(super) const CHECKSUM: usize = 12;
    pub(super) const VERSION: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const RESERVED: usize = 20;
    pub(super) const ROOT_BYTES: usize = 24;
}

/// Appends the bytes of a root.
///
/// # Panics
/// If the root breaks an invariant of [`Root`]: the engine never builds such a one.
pub fn encode_root(root: &Root, out: &mut Vec<u8>) {
    if let Err(reason) = root.check() {
        panic!("a root that no reader would take: {reason}");
    }
    let bytes = bytes_of(root);
    debug_assert_eq!(
        decode_root(root.volume, root.part, &bytes).as_ref(),
        Ok(root),
        "what is written can be read"
    );
    out.extend_from_slice(&bytes);
}

/// The bytes of a root, whatever it says.
pub(super) fn bytes_of(root: &Root) -> Vec<u8> {
    let mut bytes = vec![0; ROOT_HEAD_BYTES];
    put_log(root, &mut bytes);
    put_objects(root, &mut bytes);
    put_places(root, &mut bytes);
    put(&mut bytes, 0, &ROOT_MAGIC);
    put(&mut bytes, at::VERSION, &VERSION.to_le_bytes());
    let root_bytes = len_bytes(&bytes);
    put(&mut bytes, at::ROOT_BYTES, &root_bytes.to_le_bytes());
    let checksum = checksum(root.volume, root.part, &bytes);
    put(&mut bytes, at::CHECKSUM, &checksum.to_le_bytes());
    bytes
}

/// Reads the root of this volume that lies in this part from all of its bytes.
///
/// # Errors
/// [`DecodeError::Short`] if it is cut off; damage, another part's root or a newer one is said to be so. Offsets count
/// from the root's first byte.
pub fn decode_root(volume: VolumeId, part: PartId, bytes: &[u8]) -> Result<Root, DecodeError> {
    check_head(volume, part, bytes)?;
    let mut reader = Reader::new(bytes, ROOT_HEAD_BYTES);
    let parents = take_volumes(&mut reader, volume)?;
    let mut root = take_log(&mut reader, (volume, parents), part)?;
    root.objects = take_objects(&mut reader, &root)?;
    root.parts = take_parts(&mut reader, part, root.own_from())?;
    root.regions = take_regions(&mut reader, root.parts.len())?;
    if !reader.is_at_end() {
        return Err(reader.corrupt("the root goes on after its last region"));
    }
    root.check().map_err(|reason| DecodeError::corrupt(ROOT_HEAD_BYTES as u64, reason))?;
    Ok(root)
}

/// Length, checksum and version. What this looks at has its place in every later version.
fn check_head(volume: VolumeId, part: PartId, bytes: &[u8]) -> Result<(), DecodeError> {
    let magic_len = bytes.len().min(ROOT_MAGIC.len());
    if bytes[..magic_len] != ROOT_MAGIC[..magic_len] {
        return Err(DecodeError::corrupt(0, "this is no root of a checkpoint: its magic is missing"));
    }
    let short = |need_bytes| Err(DecodeError::Short { have_bytes: len_bytes(bytes), need_bytes });
    if bytes.len() < ROOT_HEAD_BYTES {
        return short(ROOT_HEAD_BYTES as u64);
    }
    let root_bytes = u64_at(bytes, at::ROOT_BYTES);
    if !(ROOT_HEAD_BYTES as u64..=PART_BYTES_MAX).contains(&root_bytes) {
        let reason = format!("a root of {root_bytes} bytes, which is no possible length");
        return Err(DecodeError::corrupt(at::ROOT_BYTES as u64, reason));
    }
    if len_bytes(bytes) < root_bytes {
        return short(root_bytes);
    }
    if len_bytes(bytes) > root_bytes {
        return Err(DecodeError::corrupt(
            root_bytes,
            format!("{} bytes too many", len_bytes(bytes) - root_bytes),
        ));
    }
    let (stored, computed) = (u32_at(bytes, at::CHECKSUM), checksum(volume, part, bytes));
    if stored != computed {
        let reason = format!("the root has checksum {computed:08x}, not {stored:08x}");
        return Err(DecodeError::corrupt(at::CHECKSUM as u64, reason));
    }
    let newer = |what: String| Err(DecodeError::Newer { what });
    let version = u16_at(bytes, at::VERSION);
    if version != VERSION {
        return newer(format!("a checkpoint of version {version}"));
    }
    if u16_at(bytes, at::FLAGS) != 0 || u32_at(bytes, at::RESERVED) != 0 {
        return newer("a checkpoint with flags".to_owned());
    }
    Ok(())
}

fn checksum(volume: VolumeId, part: PartId, root: &[u8]) -> u32 {
    crc32c::crc32c_append(part.seed(volume), &root[at::VERSION..])
}

/// The table of volumes: this one, then its parents, of which only a clone has some.
fn take_volumes(reader: &mut Reader<'_>, volume: VolumeId) -> Result<Vec<RootParent>, DecodeError> {
    let count = reader.count(16)?;
    if count == 0 || VolumeId(reader.array()?) != volume {
        return Err(reader.corrupt("a root of another volume, or of none"));
    }
    let mut parents = Vec::with_capacity(count - 1);
    let mut before = 0;
    for _ in 1..count {
        let volume = VolumeId(reader.array()?);
        before = reader.above(before)?;
        parents.push(RootParent { volume, until: SequenceNumber(before) });
    }
    Ok(parents)
}

/// Volumes, stamp, and what replay has to know to go on.
fn put_log(root: &Root, out: &mut Vec<u8>) {
    put_varint(out, 1 + root.parents.len() as u64);
    out.extend_from_slice(&root.volume.0);
    let mut before = 0;
    for RootParent { volume, until } in &root.parents {
        out.extend_from_slice(&volume.0);
        put_varint(out, until.0 - before);
        before = until.0;
    }
    put_varint(out, root.stamp.epoch.0);
    out.extend_from_slice(&root.stamp.writer.0);
    put_varint(out, root.volume_blocks);
    put_varint(out, root.next_number.0 - root.stamp.as_of.0);
    put_varint(out, root.last_format.map_or(0, |format| u64::from(u8::from(format))));
    put_last_data(root.last_data.as_ref(), out);
    put_varint(out, root.journals.len() as u64);
    for ContainedRecord { journal, epoch, record } in &root.journals {
        out.extend_from_slice(&journal.0);
        put_varint(out, epoch.0);
        put_varint(out, *record);
    }
    put_varint(out, root.skipped.len() as u64);
    let mut free = 0;
    for SkippedRange { fence, next } in &root.skipped {
        put_varint(out, fence.0 - free);
        put_varint(out, next.0 - fence.0);
        free = next.0;
    }
}

/// What [`put_log`] wrote behind the volumes; the tables are still empty.
fn take_log(
    reader: &mut Reader<'_>,
    (volume, parents): (VolumeId, Vec<RootParent>),
    part: PartId,
) -> Result<Root, DecodeError> {
    let epoch = Epoch(reader.varint()?);
    Ok(Root {
        volume,
        parents,
        stamp: CheckpointStamp { as_of: part.as_of, epoch, writer: WriterId(reader.array()?) },
        part,
        volume_blocks: reader.varint()?,
        next_number: SequenceNumber(reader.above(part.as_of.0)?),
        last_format: take_format(reader)?,
        last_data: take_last_data(reader)?,
        journals: take_journals(reader)?,
        skipped: take_skipped(reader)?,
        objects: Vec::new(),
        parts: Vec::new(),
        regions: Vec::new(),
    })
}

fn take_format(reader: &mut Reader<'_>) -> Result<Option<ObjectFormat>, DecodeError> {
    match reader.varint()? {
        0 => Ok(None),
        1 => Ok(Some(ObjectFormat::V1)),
        2 => Ok(Some(ObjectFormat::V2)),
        unknown => Err(DecodeError::Newer { what: format!("a log object of format {unknown}") }),
    }
}

fn put_last_data(last: Option<&LastDataRecord>, out: &mut Vec<u8>) {
    let Some(last) = last else { return put_varint(out, 0) };
    put_varint(out, if last.journal.is_some() { 2 } else { 1 });
    put_varint(out, last.epoch.0);
    put_varint(out, last.sealed_unix_ms);
    if let Some(position) = last.journal {
        out.extend_from_slice(&position.journal.0);
        put_varint(out, position.record);
    }
}

fn take_last_data(reader: &mut Reader<'_>) -> Result<Option<LastDataRecord>, DecodeError> {
    let kind = reader.varint()?;
    if kind > 2 {
        return Err(reader.corrupt(format!("last data of kind {kind}")));
    }
    if kind == 0 {
        return Ok(None);
    }
    let (epoch, sealed_unix_ms) = (Epoch(reader.varint()?), reader.varint()?);
    let journal = match kind {
        1 => None,
        _ => Some(JournalPosition { journal: JournalId(reader.array()?), record: reader.varint()? }),
    };
    Ok(Some(LastDataRecord { epoch, sealed_unix_ms, journal }))
}

fn take_journals(reader: &mut Reader<'_>) -> Result<Vec<ContainedRecord>, DecodeError> {
    let count = reader.count(18)?;
    let mut journals = Vec::with_capacity(count);
    for _ in 0..count {
        journals.push(ContainedRecord {
            journal: JournalId(reader.array()?),
            epoch: Epoch(reader.varint()?),
            record: reader.varint()?,
        });
    }
    Ok(journals)
}

fn take_skipped(reader: &mut Reader<'_>) -> Result<Vec<SkippedRange>, DecodeError> {
    let count = reader.count(2)?;
    let mut skipped = Vec::with_capacity(count);
    let mut free = 0;
    for _ in 0..count {
        let fence = reader.above(free)?;
        free = reader.above(fence)?;
        skipped.push(SkippedRange { fence: SequenceNumber(fence), next: SequenceNumber(free) });
    }
    Ok(skipped)
}

/// The volumes in the order of the root's table.
fn volumes(root: &Root) -> impl Iterator<Item = VolumeId> + '_ {
    std::iter::once(root.volume).chain(root.parents.iter().map(|parent| parent.volume))
}

/// The openings that wrote the objects, of one volume after the other, then the objects.
fn put_objects(root: &Root, out: &mut Vec<u8>) {
    let mut firsts: Vec<(VolumeId, usize)> = Vec::with_capacity(1 + root.parents.len());
    let mut openings: Vec<(Epoch, WriterId)> = Vec::new();
    for volume in volumes(root) {
        let of_volume = root.objects.iter().filter(|object| object.identity.volume == volume);
        let mut of_volume: Vec<(Epoch, WriterId)> =
            of_volume.map(|object| (object.identity.epoch, object.identity.writer)).collect();
        of_volume.sort_unstable();
        of_volume.dedup();
        firsts.push((volume, openings.len()));
        put_varint(out, of_volume.len() as u64);
        let mut epoch_before = 0;
        for (epoch, writer) in &of_volume {
            put_varint(out, epoch.0 - epoch_before);
            out.extend_from_slice(&writer.0);
            epoch_before = epoch.0;
        }
        openings.extend(of_volume);
    }
    let opening_of = |identity: &ObjectIdentity| {
        let nth = firsts.iter().position(|(volume, _)| *volume == identity.volume).expect("it is checked");
        let first = firsts[nth].1;
        let end = firsts.get(nth + 1).map_or(openings.len(), |(_, first)| *first);
        (first + openings[first..end].partition_point(|(epoch, _)| *epoch < identity.epoch)) as u64
    };
    put_varint(out, root.objects.len() as u64);
    let (mut slot, mut number) = (0, 0);
    for object in &root.objects {
        let opening = opening_of(&object.identity);
        put_varint(out, u64::from(object.slot.0) - slot);
        put_step(out, number, object.identity.number.0);
        match object.format {
            ObjectFormat::V1 => put_varint(out, opening * 2 + 1),
            ObjectFormat::V2 => {
                put_varint(out, opening * 2);
                put_varint(out, (object.header_bytes - HEADER_FIXED_BYTES) / 16);
            }
        }
        put_varint(out, object.payload_blocks);
        put_varint(out, object.live_blocks);
        if let Some(died_at) = object.died_at {
            put_varint(out, root.stamp.as_of.0 - died_at.0);
        }
        (slot, number) = (u64::from(object.slot.0) + 1, object.identity.number.0);
    }
}

fn take_objects(reader: &mut Reader<'_>, root: &Root) -> Result<Vec<RootObject>, DecodeError> {
    let mut openings = Vec::new();
    for volume in volumes(root) {
        let of_volume = take_openings(reader)?.into_iter();
        openings.extend(of_volume.map(|(epoch, writer)| (volume, epoch, writer)));
    }
    let mut used = vec![false; openings.len()];
    let count = reader.count(6)?;
    let mut objects = Vec::with_capacity(count);
    let (mut slot, mut number) = (0, 0);
    for _ in 0..count {
        let own = take_u32_above(reader, slot)?;
        slot = u64::from(own) + 1;
        number = reader.step(number)?;
        let kind = reader.varint()?;
        let format = if kind.is_multiple_of(2) { ObjectFormat::V2 } else { ObjectFormat::V1 };
        let index = usize::try_from(kind / 2).ok().filter(|index| *index < openings.len());
        let index = index.ok_or_else(|| reader.corrupt(format!("opening {} is not there", kind / 2)))?;
        used[index] = true;
        let (volume, epoch, writer) = openings[index];
        let header_bytes = match format {
            ObjectFormat::V1 => v1::HEADER_BYTES,
            ObjectFormat::V2 => HEADER_FIXED_BYTES + u64::from(reader.varint_u32()?) * 16,
        };
        let (payload_blocks, live_blocks) = (u64::from(reader.varint_u32()?), reader.varint()?);
        let died_at = match live_blocks {
            0 => Some(SequenceNumber(reader.below(root.part.as_of.0)?)),
            _ => None,
        };
        objects.push(RootObject {
            slot: Slot(own),
            identity: ObjectIdentity { volume, epoch, writer, number: SequenceNumber(number) },
            format,
            header_bytes,
            payload_blocks,
            live_blocks,
            died_at,
            object_bytes: object_bytes(format, header_bytes, payload_blocks),
        });
    }
    if used.contains(&false) {
        return Err(reader.corrupt("an opening that wrote none of the objects"));
    }
    Ok(objects)
}

fn take_openings(reader: &mut Reader<'_>) -> Result<Vec<(Epoch, WriterId)>, DecodeError> {
    let count = reader.count(17)?;
    let mut openings = Vec::with_capacity(count);
    let mut before = None;
    for _ in 0..count {
        let epoch = reader.above(before.unwrap_or(0))?;
        if before == Some(epoch) {
            return Err(reader.corrupt(format!("epoch {epoch} has two writers")));
        }
        before = Some(epoch);
        openings.push((Epoch(epoch), WriterId(reader.array()?)));
    }
    Ok(openings)
}

/// The parts that regions lie in, then where each region lies. A region mostly begins where the one before it in its
/// part ends.
fn put_places(root: &Root, out: &mut Vec<u8>) {
    put_varint(out, root.parts.len() as u64);
    for RootPart { part, object_bytes } in &root.parts {
        put_varint(out, root.part.as_of.0 - part.as_of.0);
        // A parent's epochs are its own.
        let is_own = part.as_of >= root.own_from();
        put_varint(out, if is_own { root.part.epoch.0 - part.epoch.0 } else { part.epoch.0 });
        put_varint(out, u64::from(part.serial));
        out.extend_from_slice(&object_bytes.to_le_bytes());
    }
    put_varint(out, root.regions.len() as u64);
    let mut ends = vec![PART_HEAD_BYTES as u64; root.parts.len()];
    let mut region = 0;
    for place in &root.regions {
        put_varint(out, u64::from(place.region.0) - region);
        put_varint(out, u64::from(place.part));
        let end = &mut ends[usize::try_from(place.part).expect("an index into parts")];
        put_step(out, *end, place.offset_bytes);
        put_varint(out, u64::from(place.length_bytes));
        *end = place.offset_bytes + u64::from(place.length_bytes);
        region = u64::from(place.region.0) + 1;
    }
}

fn take_parts(
    reader: &mut Reader<'_>,
    newest: PartId,
    own_from: SequenceNumber,
) -> Result<Vec<RootPart>, DecodeError> {
    let count = reader.count(11)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let as_of = SequenceNumber(reader.below(newest.as_of.0)?);
        let epoch = match as_of >= own_from {
            true => reader.below(newest.epoch.0)?,
            false => reader.varint()?,
        };
        let epoch = Epoch(epoch);
        let part = PartId { as_of, epoch, serial: reader.varint_u32()? };
        parts.push(RootPart { part, object_bytes: u64::from_le_bytes(reader.array()?) });
    }
    Ok(parts)
}

fn take_regions(reader: &mut Reader<'_>, parts: usize) -> Result<Vec<RegionPlace>, DecodeError> {
    let count = reader.count(4)?;
    let mut regions = Vec::with_capacity(count);
    let mut ends = vec![PART_HEAD_BYTES as u64; parts];
    let mut region = 0;
    for _ in 0..count {
        let own = take_u32_above(reader, region)?;
        region = u64::from(own) + 1;
        let part = reader.varint_u32()?;
        let end = usize::try_from(part).ok().and_then(|index| ends.get_mut(index));
        let end = end.ok_or_else(|| reader.corrupt(format!("part {part} is not there")))?;
        let offset_bytes = reader.step(*end)?;
        let length_bytes = reader.varint_u32()?;
        let next = offset_bytes.checked_add(u64::from(length_bytes));
        *end = next.ok_or_else(|| reader.corrupt(format!("{length_bytes} bytes from {offset_bytes}")))?;
        regions.push(RegionPlace { region: RegionIndex(own), part, offset_bytes, length_bytes });
    }
    Ok(regions)
}

/// A slot or region that lies some way above the lowest that it may be.
fn take_u32_above(reader: &mut Reader<'_>, least: u64) -> Result<u32, DecodeError> {
    let value = reader.above(least)?;
    u32::try_from(value).map_err(|_| reader.corrupt(format!("{value} does not fit 32 bits")))
}
