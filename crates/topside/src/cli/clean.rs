//! Text that a model or a tool wrote, made harmless for a terminal: nothing in it moves the cursor, sets a title, fills the
//! clipboard or turns the direction of reading. What it says stays readable, and that something stood there stays visible.

use std::borrow::Cow;

/// The text with every control character but line feed and tab shown as a symbol. A carriage return before a line feed
/// goes.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\r' && rest.peek() == Some(&'\n') {
            continue;
        }
        out.push(if is_harmful(c) { symbol(c) } else { c });
    }
    Cow::Owned(out)
}

/// JSON text with every such character inside its strings escaped; outside of them JSON has none.
pub(crate) fn clean_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if is_harmful(c) {
            // All of them lie in the first plane, so one unit is enough.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => true,
        _ => c.is_control(),
    }
}

/// What stands for it: the picture of a control character, or the sign for what can't be shown.
fn symbol(c: char) -> char {
    match u32::from(c) {
        code @ 0..=0x1f => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
        0x7f => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        for (text, expected) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("line\r\nline", "line\nline"),
            ("over\rwritten", "over\u{240d}written"),
            ("\x1b[2J\x1b]0;title\x07", "\u{241b}[2J\u{241b}]0;title\u{2407}"),
            ("\x1b]52;c;aGk=\x1b\\", "\u{241b}]52;c;aGk=\u{241b}\\"),
            ("c1 \u{9b}31m", "c1 \u{fffd}31m"),
            ("del\x7f nul\0", "del\u{2421} nul\u{2400}"),
            ("evil\u{202e}gpj.exe", "evil\u{fffd}gpj.exe"),
            ("äöü 漢字 🦀", "äöü 漢字 🦀"),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a": "\u{9b}31m\u{202e}\x7f\x1b ü"});
        let text = value.to_string();
        let cleaned = clean_json(&text);
        assert!(!cleaned.chars().any(is_harmful), "{cleaned:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&cleaned).unwrap(), value);
    }
}
