//! What is wrong with a project: which file, where in it, what was expected, and the nearest right name. Finding it is
//! the readers' work.

use std::fmt;

/// Problems of one load that are kept at most; the rest is counted.
pub const PROBLEMS_MAX: usize = 200;
/// Bytes of a project's own text that a message repeats at most.
const SHOWN_BYTES_MAX: usize = 80;

/// Which rule a declaration breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A file can't be read: it is missing, too large, no regular file, not UTF-8, or leads out of the project.
    File,
    /// The text is no YAML, uses a part of YAML that declarations do without, or its front matter does not end.
    Syntax,
    /// A key that this kind of file does not have.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// Text where a number belongs, and the like.
    WrongType,
    /// The right type, but not a value that is allowed here.
    BadValue,
    /// A name of other characters than names have.
    BadName,
    /// Two of one name.
    Duplicate,
    /// A reference to something that is not declared or not there.
    Dangling,
    /// An input schema that is no JSON Schema, or does not fit what the tool does.
    BadSchema,
    /// A policy that Cedar refuses.
    Policy,
}

impl Rule {
    /// Stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::File => "project_file",
            Self::Syntax => "project_syntax",
            Self::UnknownKey => "project_unknown_key",
            Self::MissingKey => "project_missing_key",
            Self::WrongType => "project_wrong_type",
            Self::BadValue => "project_bad_value",
            Self::BadName => "project_bad_name",
            Self::Duplicate => "project_duplicate",
            Self::Dangling => "project_dangling",
            Self::BadSchema => "project_bad_schema",
            Self::Policy => "project_policy",
        }
    }
}

/// One thing that is wrong. Shown as `file:line:column: message; hint: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The rule that is broken.
    pub rule: Rule,
    /// The file, relative to the project.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a project; at least one problem. Sorted by file and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl std::error::Error for Problems {}

impl Problems {
    /// What was found, if anything was. The same problem at the same place is told once.
    pub(crate) fn of(mut list: Vec<Problem>) -> Option<Self> {
        list.sort_by(|one, other| place(one).cmp(&place(other)));
        list.dedup();
        let more = list.len().saturating_sub(PROBLEMS_MAX);
        list.truncate(PROBLEMS_MAX);
        (!list.is_empty()).then_some(Self { list, more })
    }

    pub(crate) fn one(problem: Problem) -> Self {
        Self { list: vec![problem], more: 0 }
    }

    /// The problems, at most [`PROBLEMS_MAX`].
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many there are, those beyond [`PROBLEMS_MAX`] included.
    pub const fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// The code of the first.
    pub fn code(&self) -> &'static str {
        self.list.first().map_or(Rule::File, |problem| problem.rule).code()
    }
}

fn place(problem: &Problem) -> (&str, usize, usize, &str) {
    (&problem.file, problem.line, problem.column, &problem.message)
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Text of a project as a message repeats it: cut, its control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if out.len() >= SHOWN_BYTES_MAX {
            out.push('…');
            break;
        }
        match character {
            '"' | '\'' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
    }
    out
}

/// The right name that is near enough to a wrong one to be worth a hint.
pub(crate) fn nearest<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase();
    let length = wrong.chars().count();
    right
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, name), name))
        .filter(|(distance, name)| *distance <= 1 + length.min(name.chars().count()) / 4)
        .min()
        .map(|(_, name)| name)
}

/// `did you mean …?` for [`nearest`].
pub(crate) fn did_you_mean<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wrong, right).map(|name| format!("did you mean `{name}`?"))
}

/// Names as a message lists them: `a`, `b`, `c`.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const LISTED_MAX: usize = 20;
    let mut shown = String::new();
    for (index, name) in names.into_iter().enumerate() {
        if index == LISTED_MAX {
            shown.push_str(", …");
            break;
        }
        if index > 0 {
            shown.push_str(", ");
        }
        shown.push('`');
        shown.push_str(name);
        shown.push('`');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        for (wrong, expected) in [
            ("modle", Some("model")),
            ("Model", Some("model")),
            ("tool", Some("tools")),
            ("limits_", Some("limits")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, ["model", "tools", "limits"]), expected, "{wrong}");
        }
    }

    #[test]
    fn hostile_text_is_cut_and_escaped() {
        assert_eq!(shown("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert!(shown(&"x".repeat(1_000)).len() <= SHOWN_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn problems_beyond_the_limit_are_counted() {
        let problem = |line| Problem {
            rule: Rule::Syntax,
            file: "a.yaml".into(),
            line,
            column: 1,
            message: "wrong".into(),
            hint: None,
        };
        let problems = Problems::of((1..=PROBLEMS_MAX + 3).map(problem).collect()).unwrap();
        assert_eq!((problems.list().len(), problems.count()), (PROBLEMS_MAX, PROBLEMS_MAX + 3));
        assert!(problems.to_string().ends_with("and 3 more"));
        assert!(Problems::of(vec![]).is_none());
    }
}
