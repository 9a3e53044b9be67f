//! A host with an SSD that a journal lives on: it outlives the processes that use it, and forgets what was not synced.
//!
//! Knows files and no journal. Invariants: only the process that holds the directory's lock reaches its files, and a dead
//! one holds no lock; nothing that a dead process asks for happens.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lsvd_local::Files;
use lsvd_local::testing::{Chance, Ssd};

use crate::link::{Gate, Link};
use crate::mutation::Mutation;
use crate::rng::Rng;
use crate::stage::{Stage, lock};
use crate::weather::SsdWeather;

/// Which SSD: host and how many it had before.
pub(crate) type SsdNumber = (u32, u32);

/// A host.
pub(crate) struct Host {
    number: u32,
    stage: Arc<Stage>,
    mutation: Option<Mutation>,
    disk: Mutex<Disk>,
}

/// The power goes while an operation is under way, or only the process that asks for it is killed.
#[derive(Clone, Copy, Debug)]
struct Cut {
    operations_left: u64,
    power: bool,
}

struct Disk {
    ssd: Ssd,
    lost_before: u32,
    weather: SsdWeather,
    rng: Rng,
    /// Who has the directory's lock, and under which ticket.
    holder: Option<(u64, Link)>,
    tickets: u64,
    /// All that run here.
    residents: Vec<Link>,
    cut: Option<Cut>,
    /// Some operation has failed.
    failed: bool,
    power_losses: u32,
}

impl Host {
    /// A host with an empty SSD.
    pub(crate) fn new(
        number: u32,
        stage: Arc<Stage>,
        mutation: Option<Mutation>,
        weather: SsdWeather,
        rng: Rng,
    ) -> Self {
        let mut disk = Disk {
            ssd: Ssd::new(),
            lost_before: 0,
            weather,
            rng,
            holder: None,
            tickets: 0,
            residents: Vec::new(),
            cut: None,
            failed: false,
            power_losses: 0,
        };
        disk.furnish(mutation);
        Self { number, stage, mutation, disk: Mutex::new(disk) }
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        self.stage.event(format_args!("h{} {what}", self.number));
    }

    /// The SSD that it has now.
    pub(crate) fn ssd(&self) -> SsdNumber {
        (self.number, lock(&self.disk).lost_before)
    }

    /// The host, and how often it has lost its power.
    pub(crate) fn boot(&self) -> (u32, u32) {
        (self.number, lock(&self.disk).power_losses)
    }

    /// Whether some operation on its SSDs has ever failed.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.disk).failed
    }

    /// Nothing fails and there is room from now on.
    pub(crate) fn calm(&self) {
        let mut disk = lock(&self.disk);
        (disk.weather, disk.cut) = (SsdWeather::calm(), None);
        disk.furnish(self.mutation);
    }

    /// How long the next operation takes.
    pub(crate) fn pause(&self, rng: &mut Rng) -> Duration {
        lock(&self.disk).weather.pause(rng)
    }

    /// Opens the journal's directory for the process of `link`.
    pub(crate) fn mount(self: &Arc<Self>, link: &Link) -> io::Result<Box<dyn Files + Send>> {
        let mut disk = lock(&self.disk);
        let held = disk.holder.as_ref().is_some_and(|(_, holder)| holder.gate() != Gate::Dead);
        if held && self.mutation != Some(Mutation::LooseLock) {
            return Err(ErrorKind::ResourceBusy.into());
        }
        disk.tickets += 1;
        let ticket = disk.tickets;
        disk.holder = Some((ticket, link.clone()));
        disk.residents.push(link.clone());
        link.set_ssd((self.number, disk.lost_before));
        Ok(Box::new(Mounted { host: Arc::clone(self), link: link.clone(), ticket }))
    }

    /// Who has the journal's directory open and lives.
    pub(crate) fn holder(&self) -> Option<Link> {
        let disk = lock(&self.disk);
        disk.holder.as_ref().map(|(_, link)| link.clone()).filter(|link| link.gate() != Gate::Dead)
    }

    /// The power fails: all who run here die, and of what was not synced any part is left.
    pub(crate) fn lose_power(&self) {
        self.say(format_args!("loses power"));
        lock(&self.disk).lose_power(self.mutation);
    }

    /// The SSD is lost, and all who run here die.
    pub(crate) fn lose_ssd(&self) {
        self.say(format_args!("loses its SSD"));
        let mut disk = lock(&self.disk);
        disk.lose_power(self.mutation);
        disk.ssd = Ssd::new();
        disk.lost_before += 1;
        disk.furnish(self.mutation);
    }

    /// Something else fills the SSD, or goes away again.
    pub(crate) fn set_full(&self, full: bool) {
        self.say(format_args!("{}", if full { "is full" } else { "has room again" }));
        let mut disk = lock(&self.disk);
        let usual = disk.weather.capacity;
        disk.ssd.capacity = if full { disk.ssd.used() } else { usual };
    }

    /// After so many operations of its SSD the power goes, or the process that asks for it is killed.
    pub(crate) fn cut_after(&self, operations: u64, power: bool) {
        lock(&self.disk).cut = Some(Cut { operations_left: operations, power });
    }
}

impl Disk {
    fn furnish(&mut self, mutation: Option<Mutation>) {
        self.ssd.capacity = self.weather.capacity;
        self.ssd.sync_lies = mutation == Some(Mutation::LyingSync);
    }

    fn lose_power(&mut self, mutation: Option<Mutation>) {
        self.power_losses += 1;
        self.residents.drain(..).for_each(|link| link.set_gate(Gate::Dead));
        self.holder = None;
        let mut chance = Chance(self.rng.bits());
        self.ssd = std::mem::take(&mut self.ssd).crash(&mut chance);
        if mutation == Some(Mutation::ForgetfulSsd) {
            self.forget_synced();
        }
    }

    /// Loses what a sync had promised.
    fn forget_synced(&mut self) {
        for name in self.ssd.names().unwrap_or_default() {
            let length = usize::try_from(self.ssd.len(&name).unwrap_or(0)).expect("it is in memory");
            let from = usize::try_from(self.rng.between(0, length as u64)).expect("it is in memory");
            if name.ends_with(".seg") {
                self.ssd.overwrite(&name, from, &vec![0; length - from]);
            }
        }
    }
}

/// The journal's directory as one process has it open: the lock is let go when it is dropped.
struct Mounted {
    host: Arc<Host>,
    link: Link,
    ticket: u64,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut disk = lock(&self.host.disk);
        if disk.holder.as_ref().is_some_and(|(ticket, _)| *ticket == self.ticket) {
            disk.holder = None;
        }
    }
}

impl Mounted {
    /// Something that changes nothing.
    fn look<T>(&self, look: impl FnOnce(&Ssd) -> io::Result<T>) -> io::Result<T> {
        let mut disk = lock(&self.host.disk);
        let disk = &mut *disk;
        self.check_alive()?;
        if disk.rng.chance(disk.weather.fails / 4) {
            disk.failed = true;
            self.host.say(format_args!("fails to read"));
            return Err(failure());
        }
        look(&disk.ssd)
    }

    /// Something that changes the SSD.
    fn change(
        &self,
        what: fmt::Arguments<'_>,
        change: impl FnOnce(&mut Ssd) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut disk = lock(&self.host.disk);
        let disk = &mut *disk;
        self.check_alive()?;
        let process = self.link.process();
        if let Some(Cut { operations_left: 0, power }) = disk.cut {
            disk.cut = None;
            self.host.say(format_args!("p{process} dies in {what}, power lost: {power}"));
            if disk.rng.chance(500) {
                // What it did by then is its own affair.
                let _ = change(&mut disk.ssd);
            }
            self.link.set_gate(Gate::Dead);
            if power {
                disk.lose_power(self.host.mutation);
            }
            return Err(dead());
        }
        if let Some(cut) = &mut disk.cut {
            cut.operations_left -= 1;
        }
        disk.ssd.sync_fails = disk.rng.chance(disk.weather.fails);
        let fails = disk.ssd.sync_fails;
        // A sync that fails forgets what it was to sync; of the rest some is done all the same.
        let result = if fails && !disk.rng.chance(700) { Err(failure()) } else { change(&mut disk.ssd) };
        let result = if fails { Err(failure()) } else { result };
        disk.failed |= fails;
        match &result {
            Ok(()) => self.host.say(format_args!("p{process} {what}")),
            Err(error) => self.host.say(format_args!("p{process} {what}: {error}")),
        }
        result
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.link.gate() == Gate::Dead { Err(dead()) } else { Ok(()) }
    }
}

fn dead() -> io::Error {
    io::Error::other("nobody hears this: the process is dead")
}

fn failure() -> io::Error {
    io::Error::other("the disk failed")
}

impl Files for Mounted {
    fn names(&self) -> io::Result<Vec<String>> {
        self.look(Files::names)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.change(format_args!("creates {name}"), |ssd| ssd.create(name))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.look(|ssd| ssd.len(name))
    }

    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.look(|ssd| ssd.read(name, offset, buffer))
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let what = format_args!("writes {name} {offset}+{}", bytes.len());
        self.change(what, |ssd| ssd.write(name, offset, bytes))
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.change(format_args!("truncates {name} {length}"), |ssd| ssd.truncate(name, length))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.change(format_args!("syncs {name}"), |ssd| ssd.sync(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.change(format_args!("syncs names"), Files::sync_names)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(format_args!("removes {name}"), |ssd| ssd.remove(name))
    }
}
