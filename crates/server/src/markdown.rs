//! The little Markdown that the pages under `docs/errors` use, as HTML: headings, paragraphs, lists, code, links, emphasis.

/// Escapes text for HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A page's body.
pub(crate) fn html(markdown: &str) -> String {
    let mut page = Page::default();
    for line in markdown.lines() {
        page.line(line);
    }
    page.close();
    page.out
}

#[derive(Debug, Default)]
struct Page {
    out: String,
    /// The tag that the next line may belong to.
    open: Option<&'static str>,
    paragraph: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        if self.open == Some("pre") {
            if line.starts_with("```") {
                self.out.push_str("</code></pre>\n");
                self.open = None;
            } else {
                self.out.push_str(&escaped(line));
                self.out.push('\n');
            }
            return;
        }
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            self.close();
            self.out.push_str("<pre><code>");
            self.open = Some("pre");
        } else if trimmed.is_empty() {
            self.close();
        } else if let Some((level, title)) = heading(trimmed) {
            self.close();
            self.out.push_str(&format!("<h{level}>{}</h{level}>\n", inline(title)));
        } else if let Some((list, item)) = item(trimmed) {
            self.flush();
            if self.open != Some(list) {
                self.close();
                self.out.push_str(&format!("<{list}>\n"));
                self.open = Some(list);
            }
            self.paragraph.push_str(item);
        } else {
            if !self.paragraph.is_empty() {
                self.paragraph.push(' ');
            }
            self.paragraph.push_str(trimmed);
        }
    }

    /// Ends a paragraph or an item of a list.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.paragraph);
        if !text.is_empty() {
            let tag = if self.open.is_some() { "li" } else { "p" };
            self.out.push_str(&format!("<{tag}>{}</{tag}>\n", inline(&text)));
        }
    }

    fn close(&mut self) {
        self.flush();
        match self.open.take() {
            Some("pre") => self.out.push_str("</code></pre>\n"),
            Some(list) => self.out.push_str(&format!("</{list}>\n")),
            None => {}
        }
    }
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let title = line.get(level..)?.strip_prefix(' ')?;
    (1..=6).contains(&level).then_some((level, title))
}

fn item(line: &str) -> Option<(&'static str, &str)> {
    if let Some(item) = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")) {
        return Some(("ul", item));
    }
    let (number, item) = line.split_once(". ")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(("ol", item))
}

/// Code, links and emphasis within a line.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '[', '*']) {
        out.push_str(&escaped(&rest[..at]));
        rest = &rest[at..];
        let (made, used) = span(rest).unwrap_or_else(|| (escaped(&rest[..1]), 1));
        out.push_str(&made);
        rest = &rest[used..];
    }
    out.push_str(&escaped(rest));
    out
}

/// The span that begins here, and how many bytes it has.
fn span(text: &str) -> Option<(String, usize)> {
    if let Some(rest) = text.strip_prefix('`') {
        let (code, _) = rest.split_once('`')?;
        return Some((format!("<code>{}</code>", escaped(code)), code.len() + 2));
    }
    if let Some(rest) = text.strip_prefix("**") {
        let (strong, _) = rest.split_once("**")?;
        return Some((format!("<strong>{}</strong>", escaped(strong)), strong.len() + 4));
    }
    let (label, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (target, _) = rest.split_once(')')?;
    let used = label.len() + target.len() + 4;
    let shown = inline(label);
    // Pages of other folders are not served; only their names are told.
    let link = match target.strip_suffix(".md") {
        Some(page) if !page.contains('/') => Some(api::error_page(page)),
        Some(_) => None,
        None => (target.starts_with("https://") || target.starts_with('/')).then(|| target.to_owned()),
    };
    let made = match link {
        Some(link) => format!("<a href=\"{}\">{shown}</a>", escaped(&link)),
        None => shown,
    };
    Some((made, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(markdown: &str, expected: &str) {
        assert_eq!(html(markdown).replace('\n', " ").trim(), expected, "{markdown:?}");
    }

    #[test]
    fn pages_become_html_that_can_do_no_harm() {
        check("# a_code\n\nOne\nline.", "<h1>a_code</h1> <p>One line.</p>");
        check("- a\n  b\n- `c`\n\nd", "<ul> <li>a b</li> <li><code>c</code></li> </ul> <p>d</p>");
        check("1. a\n2. b", "<ol> <li>a</li> <li>b</li> </ol>");
        check("```sh\na < b\n```\nc", "<pre><code>a &lt; b </code></pre> <p>c</p>");
        check("<script>&", "<p>&lt;script&gt;&amp;</p>");
        check("[x](other.md) [y](../guide/a.md)", "<p><a href=\"/docs/errors/other\">x</a> y</p>");
        check(
            "[z](javascript:alert) [w](https://a.example/\"x)",
            "<p>z <a href=\"https://a.example/&quot;x\">w</a></p>",
        );
        check("**b** * c [d `e", "<p><strong>b</strong> * c [d `e</p>");
    }
}
