//! lsvd-volume.
