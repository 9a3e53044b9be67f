//! lsvd-backend.
