//! lsvd-engine.
