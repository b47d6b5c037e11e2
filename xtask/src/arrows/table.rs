//! The table of rooms in `ARCHITECTURE.md`: `| level | crate | is |`.

use std::collections::BTreeMap;

use crate::report::Finding;

/// How deep in the house a room lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A room may depend on rooms of lower levels only.
    At(u32),
    /// Tools and simulations: they may know every room, and no room may know them.
    Apart,
}

/// The rooms and their levels, and what could not be read.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) levels: BTreeMap<String, Level>,
    pub(super) findings: Vec<Finding>,
}

/// Reads the first table whose head is `| level | crate | is |`.
pub(super) fn parse(text: &str) -> Table {
    let mut table = Table::default();
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| cells(line) != ["level", "crate", "is"]);
    if lines.next().is_none() {
        table.findings.push(Finding::new(super::TABLE, "has no table `| level | crate | is |`"));
        return table;
    }
    for (index, line) in lines.skip(1).take_while(|(_, line)| line.starts_with('|')) {
        let place = format!("{}:{}", super::TABLE, index + 1);
        let [level, names, purpose] = cells(line)[..] else {
            table.findings.push(Finding::new(place, "a row has three cells: level, crate, is"));
            continue;
        };
        let level = match level.parse() {
            Ok(number) => Level::At(number),
            Err(_) if level == "–" => Level::Apart,
            Err(_) => {
                table.findings.push(Finding::new(place, format!("`{level}` is neither a level nor `–`")));
                continue;
            }
        };
        if purpose.is_empty() {
            table.findings.push(Finding::new(&place, format!("{names} does not say what it is")));
        }
        for name in names.split(',').map(|name| name.trim().trim_matches('`').to_owned()) {
            if table.levels.insert(name.clone(), level).is_some() {
                table.findings.push(Finding::new(&place, format!("`{name}` has two rows")));
            }
        }
    }
    table
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
    inner.map(|inner| inner.split('|').map(str::trim).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Rooms\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| level | crate | is |\n|---|---|---|\n";

    #[test]
    fn rows_are_read_until_the_table_ends() {
        let table = parse(&format!(
            "{HEAD}| 0 | `stdx` | base |\n| 2 | `vault`, `redact` | b |\n| – | `xtask` | c |\n\n| 9 | `no` | d |\n"
        ));
        assert_eq!(table.findings, []);
        let levels: Vec<(&str, Level)> = table.levels.iter().map(|(name, level)| (name.as_str(), *level)).collect();
        assert_eq!(
            levels,
            [("redact", Level::At(2)), ("stdx", Level::At(0)), ("vault", Level::At(2)), ("xtask", Level::Apart)]
        );
    }

    #[test]
    fn a_row_that_cannot_be_read_is_a_finding() {
        let rows = [
            ("| x | `stdx` | base |\n", "neither a level"),
            ("| 0 | `stdx` |\n", "three cells"),
            ("| 0 | `stdx` | |\n", "does not say"),
            ("| 0 | `stdx` | a |\n| 1 | `stdx` | a |\n", "two rows"),
        ];
        for (row, expected) in rows {
            let table = parse(&format!("{HEAD}{row}"));
            assert_eq!(table.findings.len(), 1, "{row}");
            assert!(table.findings[0].message.contains(expected), "{row}: {:?}", table.findings);
        }
        assert!(parse("no table").findings[0].message.contains("no table"));
    }
}
