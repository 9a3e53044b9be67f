//! The environment variables that say how to reach a store, apart from the process that has them.
//!
//! Knows what may be secret in them and shows none of it (rule 11). Tests and embedders bring their own.

use std::collections::BTreeMap;
use std::fmt;

/// Environment variables, taken once.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables.len()).finish_non_exhaustive()
    }
}

impl Environment {
    /// This process' variables as they are now. Those that are not UTF-8 are left out.
    pub fn process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// Exactly these variables, and none of the process'.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Environment { variables: pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect() }
    }

    /// A variable's value; one that is empty counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The first of these variables that is set.
    pub(crate) fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Whether a variable says yes.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| ["1", "true", "yes", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes)))
    }

    /// The values that no message may show.
    pub(crate) fn secrets(&self) -> Vec<String> {
        const TELLING: [&str; 7] = ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD", "CREDENTIAL", "ACCOUNT_KEY"];
        let store = |name: &str| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix));
        self.variables
            .iter()
            .filter(|(name, _)| store(name) && TELLING.iter().any(|word| name.contains(word)))
            .map(|(_, value)| value.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 11.
    #[test]
    fn debug_shows_no_value() {
        let environment = Environment::from_pairs([("AWS_SECRET_ACCESS_KEY", "hidden")]);
        assert!(!format!("{environment:?}").contains("hidden"));
        assert_eq!(environment.secrets(), ["hidden"]);
    }

    #[test]
    fn empty_is_unset_and_yes_is_yes() {
        let environment = Environment::from_pairs([("A", ""), ("B", "TRUE"), ("C", "no")]);
        assert_eq!(environment.get("A"), None);
        assert_eq!(environment.first(&["A", "B"]), Some("TRUE"));
        assert!(environment.is_on("B") && !environment.is_on("C") && !environment.is_on("D"));
    }
}
