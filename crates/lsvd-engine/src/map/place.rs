//! Mappings as few bytes.
//!
//! Knows nothing of where they are kept. Invariant: what is unpacked equals what was packed.

use lsvd_format::BlockOrdinal;

use super::{Location, Mapping, ObjectIndex};

/// A form in which a mapping is kept in memory.
pub(super) trait Place: Copy {
    /// `None` where it does not fit.
    fn pack(mapping: Mapping) -> Option<Self>;

    fn unpack(self) -> Mapping;
}

/// A mapping that does not fit the form that it would have to be kept in.
#[derive(Debug)]
pub(super) struct Unfit;

/// 32 bits of object and 16 bits of ordinal: enough unless an object's payload is above 256 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrow([u8; 6]);

/// The last two ordinals of the last object are kept in the wide form, for these to be free.
const ZERO: Narrow = Narrow([0xff; 6]);
const LOST: Narrow = Narrow([0xff, 0xff, 0xff, 0xff, 0xfe, 0xff]);

impl Place for Narrow {
    #[inline]
    fn pack(mapping: Mapping) -> Option<Self> {
        match mapping {
            Mapping::Stored(Location { object, ordinal }) => {
                let [a, b, c, d] = object.0.to_le_bytes();
                let [e, f] = u16::try_from(ordinal.0).ok()?.to_le_bytes();
                Some(Self([a, b, c, d, e, f])).filter(|packed| *packed != ZERO && *packed != LOST)
            }
            Mapping::Zero => Some(ZERO),
            Mapping::Lost => Some(LOST),
        }
    }

    #[inline]
    fn unpack(self) -> Mapping {
        if self == ZERO {
            return Mapping::Zero;
        }
        if self == LOST {
            return Mapping::Lost;
        }
        let [a, b, c, d, e, f] = self.0;
        Mapping::Stored(Location {
            object: ObjectIndex(u32::from_le_bytes([a, b, c, d])),
            ordinal: BlockOrdinal(u32::from(u16::from_le_bytes([e, f]))),
        })
    }
}

/// The wide form: everything fits.
impl Place for Mapping {
    fn pack(mapping: Mapping) -> Option<Self> {
        Some(mapping)
    }

    fn unpack(self) -> Mapping {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(object: u32, ordinal: u32) -> Mapping {
        Mapping::Stored(Location { object: ObjectIndex(object), ordinal: BlockOrdinal(ordinal) })
    }

    #[test]
    fn what_fits_comes_back() {
        for mapping in [
            Mapping::Zero,
            Mapping::Lost,
            stored(0, 0),
            stored(u32::MAX, 0),
            stored(u32::MAX, 65_533),
            stored(u32::MAX - 1, 65_535),
            stored(0x1234_5678, 0x9abc),
        ] {
            assert_eq!(Narrow::pack(mapping).map(Narrow::unpack), Some(mapping));
        }
        for mapping in
            [stored(0, 65_536), stored(7, u32::MAX), stored(u32::MAX, 65_534), stored(u32::MAX, 65_535)]
        {
            assert_eq!(Narrow::pack(mapping), None, "{mapping:?}");
        }
    }
}
