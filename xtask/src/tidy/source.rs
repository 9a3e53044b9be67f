//! Rust source reduced to what a compiler acts on: no comments, no white space, no tests.
//!
//! A small lexer: knows comments, strings, raw strings, characters and lifetimes, and nothing of the grammar but that
//! `#[cfg(test)]` belongs to the item after it.

/// A piece of source.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// One character of code.
    Code(char),
    /// A string or character literal with its quotes.
    Literal(String),
}

/// `source` without comments, white space outside of literals, and items under `#[cfg(test)]`.
pub(super) fn essence(source: &str) -> String {
    let tokens = lex(source);
    let mut kept = String::new();
    let mut at = 0;
    while at < tokens.len() {
        if starts_with(&tokens[at..], "#[cfg(test)]") {
            at = after_item(&tokens, at + "#[cfg(test)]".len());
            continue;
        }
        match &tokens[at] {
            Token::Code(c) => kept.push(*c),
            Token::Literal(text) => kept.push_str(text),
        }
        at += 1;
    }
    kept
}

fn starts_with(tokens: &[Token], text: &str) -> bool {
    let mut tokens = tokens.iter();
    text.chars().all(|c| tokens.next() == Some(&Token::Code(c)))
}

/// The index after the item that begins at `at`: its `;`, or the brace that closes its first one.
fn after_item(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < tokens.len() {
        match tokens[at] {
            Token::Code(';') if depth == 0 => return at + 1,
            Token::Code('{') => depth += 1,
            Token::Code('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

fn lex(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => literal(rest, 1, '"'),
            ['r', ..] if !after_name(&tokens, &chars, at) && raw_hashes(rest).is_some() => {
                raw_string(rest, raw_hashes(rest).unwrap_or(0))
            }
            ['\'', '\\', ..] => literal(rest, 1, '\''),
            ['\'', _, '\'', ..] => 3,
            _ => 1,
        };
        let text: String = rest[..length].iter().collect();
        if text.starts_with("//") || text.starts_with("/*") {
            // Nothing is kept of a comment.
        } else if length > 1 || text == "\"" {
            tokens.push(Token::Literal(text));
        } else if !rest[0].is_whitespace() {
            tokens.push(Token::Code(rest[0]));
        }
        at += length;
    }
    tokens
}

/// Whether the character before `at` continues a name, so that an `r` here begins no raw string (`br` does).
fn after_name(tokens: &[Token], chars: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).map(|index| chars[index]);
    let continues = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    continues && tokens.last() != Some(&Token::Code('b'))
}

fn raw_hashes(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    (rest.get(1 + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_string(rest: &[char], hashes: usize) -> usize {
    let mut at = hashes + 2;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    rest.len()
}

fn literal(rest: &[char], mut at: usize, quote: char) -> usize {
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_space_and_tests_do_not_count() {
        let a = "//! Head.\nfn f<'a>(x: &'a str) -> char { /* a /* nested */ one */ 'x' }\n";
        let b = "fn f<'a>(x:&'a str)->char{'x'}\n#[cfg(test)]\nmod tests { fn g() { let _ = \"}\"; } }\n";
        assert_eq!(essence(a), essence(b));
        assert_eq!(essence("#[cfg(test)]\nmod tests;\nfn f() {}"), "fnf(){}");
    }

    #[test]
    fn literals_count_to_the_letter() {
        assert_ne!(essence("const A: &str = \"a b\";"), essence("const A: &str = \"ab\";"));
        assert_eq!(essence(r#"f("a // b", '"', '\'', "\"") // c"#), r#"f("a // b",'"','\'',"\"")"#);
        assert_eq!(essence("f(r#\"a \" // b\"#) // c"), "f(r#\"a \" // b\"#)");
        assert_eq!(essence("f(br\"a // b\") // c"), "f(br\"a // b\")");
    }

    #[test]
    fn a_changed_number_changes_the_essence() {
        assert_ne!(essence("const A: u8 = 1;"), essence("const A: u8 = 2;"));
    }

    #[test]
    fn what_is_not_closed_ends_with_the_file() {
        for source in ["/* a", "\"a", "r#\"a", "'\\", "#[cfg(test)] mod t {"] {
            let _ = essence(source);
        }
    }
}
