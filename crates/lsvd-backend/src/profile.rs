//! The files in which AWS' own tools keep profiles: `~/.aws/credentials` and `~/.aws/config`.
//!
//! `object_store` does not read them. Reads static keys, region and endpoint; knows that single sign-on, role chains
//! and credential processes exist, and refuses them by name rather than go on as somebody else. Shows no secret
//! (rule 11).

mod renewed;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::classify::{Failure, FailureKind, io_failure};
use crate::environment::Environment;

pub(crate) use renewed::RenewedKeys;

/// What a profile says, as far as it is of use here.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) keys: Option<Keys>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// Static credentials.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

/// The files: the variable that names each, its name in `~/.aws`, and whether its titles begin with `profile`.
const FILES: [(&str, &str, bool); 2] =
    [("AWS_CONFIG_FILE", "config", true), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", false)];

type Section = BTreeMap<String, String>;

/// Settings by which a profile gets its keys in ways that are not read here.
const UNREAD: [&str; 5] =
    ["sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file"];

impl Profile {
    /// Reads the profile that `AWS_PROFILE` names, else `default`. One that is not there says nothing, unless it was
    /// named.
    ///
    /// # Errors
    /// A file can not be read, the named profile does not exist, or it has half a key.
    pub(crate) fn read(environment: &Environment) -> Result<Profile, Failure> {
        let named = environment.get("AWS_PROFILE");
        let name = named.unwrap_or("default");
        let mut merged = Section::new();
        let mut found = false;
        for (variable, file, headed) in FILES {
            let Some(path) = path_of(environment, variable, file) else { continue };
            let Some(text) = read_file(&path)? else { continue };
            // Later sections and the credentials file win, as with AWS' own tools.
            for section in sections(&text).into_iter().filter(|section| section.is_profile(name, headed)) {
                found = true;
                merged.extend(section.settings);
            }
        }
        if named.is_some() && !found {
            let detail = format!("AWS_PROFILE names the profile '{name}', which is in no file of profiles");
            return Err(Failure::new(FailureKind::Misconfigured, detail));
        }
        Profile::from_settings(name, merged)
    }

    fn from_settings(name: &str, mut settings: Section) -> Result<Profile, Failure> {
        let region = settings.remove("region");
        let endpoint = settings.remove("endpoint_url");
        let session_token = settings.remove("aws_session_token");
        let keys = match (settings.remove("aws_access_key_id"), settings.remove("aws_secret_access_key")) {
            (Some(access_key_id), Some(secret_access_key)) => {
                Some(Keys { access_key_id, secret_access_key, session_token })
            }
            (None, None) => None,
            (Some(_), None) => return Err(half(name, "aws_secret_access_key")),
            (None, Some(_)) => return Err(half(name, "aws_access_key_id")),
        };
        if let (None, Some(way)) = (&keys, UNREAD.iter().find(|way| settings.contains_key(**way))) {
            let detail = format!(
                "the profile '{name}' gets its credentials by {way}, which is not supported: export them with \
                 'aws configure export-credentials --format env' and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
                 AWS_SESSION_TOKEN"
            );
            return Err(Failure::new(FailureKind::Misconfigured, detail));
        }
        Ok(Profile { keys, region, endpoint })
    }
}

fn half(name: &str, missing: &str) -> Failure {
    Failure::new(FailureKind::Misconfigured, format!("the profile '{name}' lacks {missing}"))
}

fn path_of(environment: &Environment, variable: &str, file: &str) -> Option<PathBuf> {
    match environment.get(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(Path::new(environment.get("HOME")?).join(".aws").join(file)),
    }
}

fn read_file(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::NotADirectory => {
            Ok(None)
        }
        Err(error) => Err(io_failure(error.kind(), format!("can not read '{}': {error}", path.display()))),
    }
}

struct Titled {
    title: String,
    settings: Section,
}

impl Titled {
    /// In `config` a profile's title is `profile NAME`, but for `default`; in `credentials` it is the name alone.
    fn is_profile(&self, name: &str, headed: bool) -> bool {
        let title = self.title.as_str();
        let mut words = title.split_whitespace();
        let after_head = (words.next() == Some("profile")).then(|| title["profile".len()..].trim());
        match after_head {
            Some(titled) if headed => titled.trim_matches(['"', '\'']) == name,
            _ => title == name && (!headed || name == "default"),
        }
    }
}

/// Sections of `name = value` lines. Indented lines belong to the setting above them, which nothing here needs.
fn sections(text: &str) -> Vec<Titled> {
    let mut sections: Vec<Titled> = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        if line.starts_with([' ', '\t']) || line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix('[') {
            let title = rest.split(']').next().unwrap_or_default().trim().to_owned();
            sections.push(Titled { title, settings: Section::new() });
        } else if let (Some(section), Some((name, value))) = (sections.last_mut(), line.split_once('=')) {
            let value = [" #", " ;", "\t#", "\t;"]
                .iter()
                .fold(value, |value, mark| value.split_once(mark).map_or(value, |(before, _)| before));
            if !value.trim().is_empty() {
                section.settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }
    sections
}

#[cfg(test)]
mod tests;
