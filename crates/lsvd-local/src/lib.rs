//! What lives on the local SSD: the journal, which must survive, and the chunk cache, which may vanish.
//!
//! Neither is furnished yet: a volume flushes to its store, and caches in memory. Knows neither the map nor the
//! network.
