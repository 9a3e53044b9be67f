//! lsvd-nbd.
