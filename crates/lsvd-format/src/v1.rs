//! A log object of format 1, the seed's, bit for bit: a 12 KiB header of 1,024 entries, then the data.
//!
//! Format 1 has no identity and no checksum: only bounds and lengths can be verified.
