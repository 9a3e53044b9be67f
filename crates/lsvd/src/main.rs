//! lsvd.

fn main() {}
