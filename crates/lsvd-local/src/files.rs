//! The one seam to the disk: a directory of files that are written, synced and read, and nothing else.
//!
//! Real ones here; the simulator and the tests put an SSD behind it that forgets what was not synced. Knows nothing of
//! records.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// A directory's files, by name. What is not synced may be lost in a crash, in any part and order; a name that was made
/// or removed is durable after [`Files::sync_names`].
pub trait Files {
    /// The names of all files.
    ///
    /// # Errors
    /// The disk's.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file, or empties the one that is there.
    ///
    /// # Errors
    /// The disk's.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// The disk's.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Reads what there is from `offset` on, at most as much as `buffer` takes; gives how much. Less only at the end.
    ///
    /// # Errors
    /// The disk's.
    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The disk's; [`ErrorKind::StorageFull`] if there is no room, and then any part may have been written.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file off.
    ///
    /// # Errors
    /// The disk's.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Makes a file longer, with zeroes, and reserves the room on the disk where that can be done: writing there then neither
    /// allocates nor changes the length, so that a sync has less to do, and wants for no room.
    ///
    /// # Errors
    /// The disk's; [`ErrorKind::StorageFull`] if there is no room.
    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.truncate(name, length)
    }
    /// Makes a file's bytes and length durable.
    ///
    /// # Errors
    /// The disk's: then nobody knows what it holds, and no later call mends that.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Makes the directory's names durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// What points to files does what they do.
macro_rules! forward {
    () => {
        fn names(&self) -> io::Result<Vec<String>> {
            (**self).names()
        }

        fn create(&mut self, name: &str) -> io::Result<()> {
            (**self).create(name)
        }

        fn len(&self, name: &str) -> io::Result<u64> {
            (**self).len(name)
        }

        fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            (**self).read(name, offset, buffer)
        }

        fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
            (**self).write(name, offset, bytes)
        }

        fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
            (**self).truncate(name, length)
        }

        fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
            (**self).reserve(name, length)
        }

        fn sync(&mut self, name: &str) -> io::Result<()> {
            (**self).sync(name)
        }

        fn sync_names(&mut self) -> io::Result<()> {
            (**self).sync_names()
        }

        fn remove(&mut self, name: &str) -> io::Result<()> {
            (**self).remove(name)
        }
    };
}

impl<F: Files + ?Sized> Files for Box<F> {
    forward!();
}

impl<F: Files + ?Sized> Files for &mut F {
    forward!();
}

/// A directory of this host, locked for this process while it lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Holds the lock; none of one that is only looked at.
    _lock: Option<File>,
    /// The file that was used last: appends go to one file for a long time.
    open: Option<(String, File)>,
    /// It has to outlive the process alone.
    unsynced: bool,
}

/// Of a file system that need not outlive its host, a fourth is left to others, and no more than so many bytes.
const HEADROOM: u64 = 4;
const HEADROOM_BYTES_MAX: u64 = 256 << 20;

/// Name of the file whose lock says that the journal is in use.
const LOCK: &str = "lock";

impl Directory {
    /// Opens a directory and locks it; makes it, durably, if it is not there.
    ///
    /// # Errors
    /// The disk's; [`ErrorKind::ResourceBusy`] if another process has the lock.
    pub fn open(path: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
        std::fs::create_dir_all(path)?;
        for made in missing.iter().filter_map(|made| made.parent()) {
            let above = if made.as_os_str().is_empty() { Path::new(".") } else { made };
            File::open(above)?.sync_all()?;
        }
        let lock = OpenOptions::new().create(true).append(true).open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => ErrorKind::ResourceBusy.into(),
            TryLockError::Error(error) => error,
        })?;
        Ok(Self { path: path.to_owned(), _lock: Some(lock), open: None, unsynced: false })
    }

    /// The same for what has to outlive this process and not this host: nothing is synced, nothing is reserved, and the directory is this
    /// user's alone.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub fn open_unsynced(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self { unsynced: true, ..Self::open(path)? })
    }

    /// A directory that is only read, whoever writes it meanwhile.
    pub fn look_at(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None, open: None, unsynced: false }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
            self.open = Some((name.to_owned(), file));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl Files for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // What is not text was not named by a journal.
            names.extend(entry?.file_name().into_string().ok().filter(|name| name != LOCK));
        }
        Ok(names)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.open = None;
        if self.unsynced {
            // It may be the memory that the rest of the host runs in.
            let room = rustix::fs::statvfs(&self.path)?;
            let others = (room.f_blocks / HEADROOM).saturating_mul(room.f_frsize).min(HEADROOM_BYTES_MAX);
            if room.f_bavail.saturating_mul(room.f_frsize) < others {
                return Err(ErrorKind::StorageFull.into());
            }
        }
        File::create(self.path.join(name)).map(|_| ())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = File::open(self.path.join(name))?;
        let mut got = 0;
        while got < buffer.len() {
            match file.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
        if self.unsynced {
            // It may be memory: only what is written is to take any.
            return Ok(());
        }
        let file = self.file(name)?;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            // Not every file system can; there it grows as it is written to.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            reserved => Ok(reserved?),
        }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.unsynced {
            return Ok(());
        }
        self.file(name)?.sync_data()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        if self.unsynced {
            return Ok(());
        }
        File::open(&self.path)?.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open = None;
        std::fs::remove_file(self.path.join(name))
    }
}
