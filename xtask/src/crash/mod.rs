//! Writers whose every sector says which request wrote it, and the judge of what a crash left.
//!
//! Knows NBD and rule 1, and nothing of lsvd: it judges any server, and shares no code with the product or with the
//! simulator's oracle, so that one mistake is not made on both sides. Rooms: `history` (what was asked, answered and when),
//! `client` (the wire), `load` (who writes what), `judge` (is what is left lawful?).

pub(crate) mod client;
pub(crate) mod history;
pub(crate) mod judge;
pub(crate) mod load;
