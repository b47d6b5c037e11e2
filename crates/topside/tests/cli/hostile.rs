//! Models and tools that write terminal control sequences: none reaches the terminal, in any command.

use crate::kit::{Project, has_sandbox};

/// Sets the title, clears the screen, fills the clipboard, an 8-bit CSI, and text that reads backwards.
const EVIL: &str = r#"title: "evil \e]0;title\a"
steps:
- reply:
  - text: "I say \e]0;owned\a\e[2J and \u009b31m and \u202egpj.exe"
  - call: {id: a, tool: exec_command, arguments: {cmd: "printf '\\033]52;c;aGk=\\007\\033[2J\\233[31m\\r\\nrest\\n' # \e]0;x\a"}}
- expect: {outputs: {a: rest}}
  reply:
  - text: "The end \e[8mhidden\e[0m"
"#;

fn check(name: &str, text: &str) {
    let harmful = |c: &char| (c.is_control() && !matches!(c, '\n' | '\t')) || ('\u{202a}'..='\u{202e}').contains(c);
    let found: Vec<char> = text.chars().filter(harmful).collect();
    assert!(found.is_empty(), "{name} lets {found:?} through:\n{text:?}");
}

#[test]
fn no_control_sequence_reaches_the_terminal() {
    if !has_sandbox("no_control_sequence_reaches_the_terminal") {
        return;
    }
    let project = Project::playing(EVIL, &[]);
    for (name, arguments) in [
        ("run", &["run", "worker", "Go \u{1b}]0;x\u{7}on.", "--session", "a"][..]),
        ("run --json", &["run", "worker", "Go on.", "--session", "b", "--json"]),
        ("log", &["log", "a"]),
        ("log --json", &["log", "b", "--json"]),
        ("check", &["check"]),
        ("doctor", &["doctor"]),
    ] {
        let said = project.topside(arguments).ended(0);
        check(&format!("{name} on stdout"), &said.data);
        check(&format!("{name} on stderr"), &said.talk);
        if name == "run" {
            assert_eq!(said.data, "The end \u{241b}[8mhidden\u{241b}[0m\n");
            assert!(said.talk.contains("rest"), "{}", said.talk);
        }
    }
    let wrong = project.topside(&["run", "\u{1b}]0;x\u{7}", "x"]).ended(2);
    check("run of an unknown agent", &wrong.talk);
}
