//! A volume under its export's name, as a daemon has it: the opening of it that is served now.
//!
//! Knows that one opening can follow another, as a rollback closes the volume and opens it again; not why. Invariant: an opening that
//! ends while another is to follow is no end of the volume.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use lsvd_backend::Bucket;
use lsvd_volume::{Error, OpenOptions, SequenceNumber, Volume};
use tokio::sync::watch;

use crate::traffic::Traffic;

/// An open volume under its export's name.
#[derive(Debug)]
pub(crate) struct Served {
    /// The export.
    pub(crate) name: String,
    /// The volume's URL.
    pub(crate) url: String,
    /// Its prefix of the bucket.
    pub(crate) bucket: Bucket,
    /// Its clients' requests.
    pub(crate) traffic: Arc<Traffic>,
    /// The moment that it shows, and stays at; `None` if it is the present.
    pub(crate) as_of: Option<SequenceNumber>,
    /// How it was opened.
    pub(crate) options: OpenOptions,
    opening: watch::Sender<Opening>,
    openings: AtomicU64,
}

/// One time that the volume is open.
#[derive(Clone, Debug)]
struct Opening {
    volume: Volume,
    nth: u64,
    /// Another one is to follow.
    is_followed: bool,
}

impl Served {
    /// A volume that was opened with these options.
    pub(crate) fn new(
        (name, url, bucket): (String, String, Bucket),
        volume: Volume,
        options: OpenOptions,
        as_of: Option<SequenceNumber>,
    ) -> Self {
        let opening = watch::Sender::new(Opening { volume, nth: 0, is_followed: false });
        let (traffic, openings) = (Arc::default(), AtomicU64::new(0));
        Self { name, url, bucket, traffic, as_of, options, opening, openings }
    }

    /// The volume as it is open now, or was last.
    pub(crate) fn volume(&self) -> Volume {
        self.opening.borrow().volume.clone()
    }

    /// The error that ended its present opening, if one did.
    pub(crate) fn error(&self) -> Option<Error> {
        self.volume().ended().now_or_never()
    }

    /// Resolves when the volume can serve no more, and no other opening follows.
    pub(crate) async fn ended(&self) -> Error {
        let mut opening = self.opening.subscribe();
        loop {
            let now = opening.borrow_and_update().clone();
            let error = now.volume.ended().await;
            let Ok(then) = opening.wait_for(|then| !then.is_followed).await.map(|then| then.nth) else {
                return error;
            };
            if then == now.nth {
                return error;
            }
        }
    }

    /// Says that its present opening is about to be closed and another one to follow; `None` if that was said already. Unless
    /// [`Followed::by`] is called before the answer is dropped, none follows.
    pub(crate) fn is_followed(&self) -> Option<Followed<'_>> {
        let first =
            self.opening.send_if_modified(|opening| !std::mem::replace(&mut opening.is_followed, true));
        first.then_some(Followed { served: self })
    }
}

/// The right to put another opening in place of the present one.
#[derive(Debug)]
pub(crate) struct Followed<'a> {
    served: &'a Served,
}

impl Followed<'_> {
    /// The one that follows.
    pub(crate) fn by(self, volume: Volume) {
        let nth = self.served.openings.fetch_add(1, Ordering::Relaxed) + 1;
        self.served.opening.send_replace(Opening { volume, nth, is_followed: false });
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.served.opening.send_if_modified(|opening| std::mem::replace(&mut opening.is_followed, false));
    }
}
