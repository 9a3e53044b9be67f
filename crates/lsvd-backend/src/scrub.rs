//! Takes secrets out of words that others wrote (rule 11).
//!
//! Knows no stores. Two ways: queries of URLs go (a shared access signature or a presigned URL is a secret), and
//! every longer piece of a known secret goes, however the message cut it.

/// Characters of a server's words that are kept: enough for its code and message, not for a page of HTML.
const WORDS_CHARS_MAX: usize = 300;

/// Shortest piece of a secret that is worth hiding; shorter ones are in every text by chance.
const PIECE_CHARS_MIN: usize = 6;

/// One line, without queries of URLs and header values that authenticate, cut to a sane length.
pub(crate) fn words(text: &str) -> String {
    let mut kept = String::new();
    let mut in_query = false;
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            in_query = false;
            space = !kept.is_empty();
            continue;
        }
        if in_query {
            in_query = !matches!(c, '\'' | '"' | ')' | '>' | '<' | ',' | ';');
            if in_query {
                continue;
            }
        }
        if space {
            kept.push(' ');
            space = false;
        }
        kept.push(c);
        if c == '?' && query_begins(&kept) {
            kept.push('…');
            in_query = true;
        }
        if kept.chars().count() >= WORDS_CHARS_MAX {
            kept.push('…');
            break;
        }
    }
    kept
}

/// Whether the question mark at the end of `text` ends a URL's path rather than a sentence.
fn query_begins(text: &str) -> bool {
    let word = text.rsplit([' ', '(', '"', '\'']).next().unwrap_or_default();
    word.contains('/') || word == "?"
}

/// The text of the first XML element of that name. Servers' errors are flat, so this is all the XML there is to read.
pub(crate) fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// The text with every piece of these secrets, of six characters or more, replaced by `***`.
pub(crate) fn without(text: &str, secrets: &[String]) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut kept = String::new();
    let mut at = 0;
    while at < chars.len() {
        match piece_len(&chars[at..], secrets) {
            Some(len) => {
                kept.push_str("***");
                at += len;
            }
            None => {
                kept.push(chars[at]);
                at += 1;
            }
        }
    }
    kept
}

/// How many leading characters of `rest` are a piece of a secret, if at least the shortest that is hidden.
fn piece_len(rest: &[char], secrets: &[String]) -> Option<usize> {
    let shortest: String = rest.get(..PIECE_CHARS_MIN)?.iter().collect();
    let mut longest = None;
    for secret in secrets.iter().filter(|secret| secret.contains(&shortest)) {
        let mut piece = shortest.clone();
        let mut len = PIECE_CHARS_MIN;
        while let Some(&next) = rest.get(len) {
            piece.push(next);
            if !secret.contains(&piece) {
                break;
            }
            len += 1;
        }
        longest = longest.max(Some(len));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 11: a presigned URL's query never reaches a message.
    #[test]
    fn queries_of_urls_are_dropped() {
        let kept = words("error for url (https://a.blob.core/c/x?sv=1&sig=SECRET) after 2 s");
        assert_eq!(kept, "error for url (https://a.blob.core/c/x?…) after 2 s");
        assert_eq!(words("is this a bucket? yes"), "is this a bucket? yes");
    }

    #[test]
    fn words_are_one_line_and_short() {
        assert_eq!(words("a\n  b\tc "), "a b c");
        assert_eq!(words(&"x".repeat(5000)).chars().count(), WORDS_CHARS_MAX + 1);
    }

    /// Rule 11: no piece of a secret survives, wherever a message cut it.
    #[test]
    fn pieces_of_secrets_are_hidden() {
        let secrets = vec!["wJalrXUtnFEMI/K7MDENG".to_owned()];
        assert_eq!(without("bad key `rXUtnFEMI/K` given", &secrets), "bad key `***` given");
        assert_eq!(without("wJalrXUtnFEMI/K7MDENGx", &secrets), "***x");
        assert_eq!(without("nothing here", &secrets), "nothing here");
        assert_eq!(without("short wJal", &secrets), "short wJal");
    }
}
