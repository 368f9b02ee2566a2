//! A source file, its code told from its comments and strings; no parser, just enough of a lexer.

use std::fmt;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// One line, taken apart.
#[derive(Debug, Default, Clone)]
pub(crate) struct Line {
    /// The code, without what is in comments and strings.
    pub(crate) code: String,
    /// The comment with its slashes, or empty.
    pub(crate) comment: String,
    /// What stands in strings.
    pub(crate) strings: String,
    /// In a test module, to the end of the file.
    pub(crate) in_tests: bool,
    /// In an example of a doc comment.
    pub(crate) in_example: bool,
}

/// A source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the house, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut lines = split(text);
        let mut in_tests = path.contains("/tests/") || path.ends_with("/tests.rs");
        let mut in_example = false;
        for at in 0..lines.len() {
            let opens_tests = lines[at].code.trim() == "#[cfg(test)]"
                && lines
                    .get(at + 1)
                    .is_some_and(|next| next.code.trim_end().ends_with('{'));
            in_tests |= opens_tests;
            let line = &mut lines[at];
            let fence = line
                .comment
                .trim_start_matches(['/', '!', ' '])
                .starts_with("```");
            line.in_tests = in_tests;
            line.in_example = in_example || fence;
            in_example ^= fence;
        }
        Self {
            path: path.to_owned(),
            lines,
        }
    }

    /// The lines that are in the library, with their numbers.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.numbered()
            .filter(|(_, line)| self.path.starts_with("src/") && !line.in_tests)
    }

    /// All lines with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        (1..).zip(&self.lines)
    }

    pub(crate) fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }
}

/// Whether `word` stands in `text` with no letter, digit or `_` beside it.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word)
    })
}

#[derive(Clone, Copy)]
enum Within {
    Code,
    LineComment,
    /// How deep.
    BlockComment(usize),
    Text,
    /// How many `#` end it.
    RawText(usize),
}

fn split(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = Line::default();
    let mut within = Within::Code;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match within {
            _ if c == '\n' => {
                lines.push(std::mem::take(&mut line));
                if matches!(within, Within::LineComment) {
                    within = Within::Code;
                }
            }
            Within::Code => (within, taken) = step_in_code(rest, &mut line),
            Within::LineComment => line.comment.push(c),
            Within::BlockComment(depth) => {
                line.comment.push(c);
                if rest.starts_with("*/") {
                    taken = 2;
                    within = match depth {
                        1 => Within::Code,
                        _ => Within::BlockComment(depth - 1),
                    };
                } else if rest.starts_with("/*") {
                    taken = 2;
                    within = Within::BlockComment(depth + 1);
                }
            }
            Within::Text if c == '\\' => {
                // What is escaped cannot end the string; a line that is continued still ends.
                let escaped = rest[1..].chars().next().filter(|&c| c != '\n');
                taken += escaped.map_or(0, char::len_utf8);
            }
            Within::Text if c == '"' => within = Within::Code,
            Within::RawText(hashes) if rest.starts_with(&format!("\"{}", "#".repeat(hashes))) => {
                taken = 1 + hashes;
                within = Within::Code;
            }
            Within::Text | Within::RawText(_) => line.strings.push(c),
        }
        rest = &rest[taken..];
    }
    if !line.code.is_empty() || !line.comment.is_empty() {
        lines.push(line);
    }
    lines
}

/// Where `rest`, which is code, leads, and how many bytes of it were taken.
fn step_in_code(rest: &str, line: &mut Line) -> (Within, usize) {
    if rest.starts_with("//") {
        line.comment.push_str("//");
        return (Within::LineComment, 2);
    }
    if rest.starts_with("/*") {
        return (Within::BlockComment(1), 2);
    }
    let mut chars = rest.chars();
    let first = chars.next().unwrap();
    let after_word = line
        .code
        .ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let after_byte = line.code.ends_with('b') || line.code.ends_with('c');
    if first == 'r' && (!after_word || after_byte) {
        let hashes = rest[1..].bytes().take_while(|&byte| byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            line.strings.push(' ');
            return (Within::RawText(hashes), hashes + 2);
        }
    }
    if first == '"' {
        line.strings.push(' ');
        line.code.push('"');
        return (Within::Text, 1);
    }
    line.code.push(first);
    if first == '\'' {
        // A character; otherwise it is a lifetime.
        let second = chars.next();
        if second == Some('\\') {
            let end = rest[3..].find('\'').map_or(1, |end| end + 4);
            return (Within::Code, end);
        }
        if let Some(second) = second.filter(|_| chars.next() == Some('\'')) {
            return (Within::Code, 2 + second.len_utf8());
        }
    }
    (Within::Code, first.len_utf8())
}

#[test]
fn code_comments_and_strings_are_told_apart() {
    let text = r##"let a = "str // \" {"; // why {
let b = r#"raw " } /*"#; /* one /* two */ { */ let c = '{';
let d: &'static str = '\''; let e = b"x";
/// ```
/// db.close();
/// ```
#[cfg(test)]
mod tests {
    let f = 1;"##;
    let source = Source::new("src/a.rs", text);
    let code: Vec<_> = source.lines.iter().map(|line| line.code.trim()).collect();
    assert_eq!(code[..2], ["let a = \";", "let b = ;  let c = ';"]);
    assert_eq!(code[2], "let d: &'static str = '; let e = b\";");
    assert_eq!(source.lines[0].comment, "// why {");
    assert_eq!(source.lines[0].strings, " str //  {");
    assert_eq!(source.lines[1].strings, " raw \" } /*");
    let examples: Vec<_> = source.lines.iter().map(|line| line.in_example).collect();
    assert_eq!(examples[2..7], [false, true, true, true, false]);
    assert_eq!(source.shipped().count(), 6);
    assert!(has_word("a db.", "db") && !has_word("adb db_", "db"));
}
