//! lsvd-sim.
