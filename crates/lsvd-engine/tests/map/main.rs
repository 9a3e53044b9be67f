//! The extent map against plain arrays: every operation on it, what it says was displaced, which regions are dirty or
//! absent, and what was loaded again. The cases are such that regions and leaves take every form that they have.

#![allow(clippy::cast_possible_truncation)] // positions in a small volume

mod model;
mod residency;
