//! A profile's keys for as long as a process runs: read again when its files are.
//!
//! Whoever renews credentials writes them into the files of profiles; nobody restarts a daemon for that. Knows the files and
//! not the store. Invariants: keys are exchanged whole, and only for others that could be read: a file that is half
//! written, or gone for a moment, leaves the old ones in use; nothing here shows a key (rule 11).

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::time::Instant;

use super::{FILES, Keys, Profile, path_of};
use crate::environment::Environment;

/// How often the files are looked at while requests are made: two `stat`s.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: inode, length, and time of its last change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Hands out a profile's keys.
pub(crate) struct RenewedKeys {
    environment: Environment,
    state: Mutex<State>,
}

struct State {
    keys: Arc<AwsCredential>,
    looked: Instant,
    stamps: Vec<Stamp>,
}

impl fmt::Debug for RenewedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewedKeys")
    }
}

impl RenewedKeys {
    /// Begins with what was read already, which is looked at again by the first request.
    pub(crate) fn new(environment: &Environment, keys: &Keys) -> Self {
        let state = State { keys: credential(keys), looked: Instant::now(), stamps: Vec::new() };
        RenewedKeys { environment: environment.clone(), state: Mutex::new(state) }
    }

    fn current(&self) -> Arc<AwsCredential> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.stamps.is_empty() && state.looked.elapsed() < LOOK_EVERY {
            return state.keys.clone();
        }
        state.looked = Instant::now();
        // Before they are read: what is written meanwhile is seen the next time.
        let stamps = stamps(&self.environment);
        if stamps == state.stamps {
            return state.keys.clone();
        }
        match Profile::read(&self.environment) {
            Ok(Profile { keys: Some(keys), .. }) => {
                state.stamps = stamps;
                let keys = credential(&keys);
                if *keys != *state.keys {
                    state.keys = keys;
                    tracing::info!("the profile has other credentials: they are used from now on");
                }
            }
            Ok(_) => {
                tracing::warn!("the profile has no credentials now: the ones that it had are still used")
            }
            Err(failure) => {
                tracing::warn!("the profile's credentials are still used as they were: {}", failure.detail);
            }
        }
        state.keys.clone()
    }
}

#[async_trait]
impl CredentialProvider for RenewedKeys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.current())
    }
}

fn credential(keys: &Keys) -> Arc<AwsCredential> {
    Arc::new(AwsCredential {
        key_id: keys.access_key_id.clone(),
        secret_key: keys.secret_access_key.clone(),
        token: keys.session_token.clone(),
    })
}

fn stamps(environment: &Environment) -> Vec<Stamp> {
    let stamp = |(variable, file, _): (&str, &str, bool)| {
        let metadata = std::fs::metadata(path_of(environment, variable, file)?).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    FILES.map(stamp).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(key: &str, token: &str) -> String {
        format!(
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = sss\naws_session_token = {token}\n"
        )
    }

    /// Credentials that are renewed are used without a restart; a half-written file takes none away.
    #[tokio::test(start_paused = true)]
    async fn renewed_keys_are_picked_up_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let environment = Environment::from_pairs([("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())]);
        std::fs::write(&path, file("OLD", "hidden-old")).unwrap();
        let read = Profile::read(&environment).ok().unwrap().keys.unwrap();
        let keys = RenewedKeys::new(&environment, &read);
        let current = async || keys.get_credential().await.unwrap();
        assert_eq!(current().await.key_id, "OLD");
        std::fs::write(&path, "[default]\naws_access_key_id = NEW\n").unwrap();
        tokio::time::advance(LOOK_EVERY * 2).await;
        assert_eq!(current().await.key_id, "OLD", "half a key is none");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK_EVERY * 2).await;
        assert_eq!(current().await.key_id, "OLD");
        std::fs::write(&path, file("NEW", "hidden-new")).unwrap();
        assert_eq!(current().await.key_id, "OLD", "it is not looked at with every request");
        tokio::time::advance(LOOK_EVERY).await;
        let new = current().await;
        assert_eq!((new.key_id.as_str(), new.token.as_deref()), ("NEW", Some("hidden-new")));
        assert!(!format!("{keys:?}").contains("hidden"));
    }
}
