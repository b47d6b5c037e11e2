//! URLs in declarations: what can be said before variables and arguments are put in. Which hosts may be reached is not
//! decided here.

use crate::problem::{Rule, shown};
use crate::shape::Check;
use crate::yaml::Node;
use domain::template::{self, Source};
use url::Url;

/// Stands for a value that is only known later.
const LATER: &str = "later";

/// Checks the base URL of an endpoint.
pub(crate) fn check_base(node: &Node, check: &mut Check<'_>) {
    if let Some((text, true)) = filled(node, check)
        && let Some(url) = parsed(&text, node, check)
        && (url.query().is_some() || url.fragment().is_some())
    {
        let hint = Some("parameters go into `query`".to_owned());
        check.wrong(Rule::BadValue, node.at, "the URL has a query or a fragment; expected a base URL", hint);
    }
}

/// Checks a URL that is called as it stands.
pub(crate) fn check_whole(node: &Node, check: &mut Check<'_>) {
    if let Some((text, true)) = filled(node, check)
        && let Some(url) = parsed(&text, node, check)
        && url.fragment().is_some()
    {
        check.wrong(Rule::BadValue, node.at, "the URL has a fragment, which is never sent", None);
    }
}

/// Checks a URL with `{name}` placeholders and gives their names.
pub(crate) fn check_placed(node: &Node, check: &mut Check<'_>) -> Vec<String> {
    let Some((text, whole)) = filled(node, check) else { return Vec::new() };
    let (mut names, mut out, mut rest) = (Vec::new(), String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else {
            check.wrong(Rule::BadValue, node.at, "the URL has a `{` without `}`", None);
            return names;
        };
        out.push_str(before);
        out.push_str(LATER);
        names.push(name.to_owned());
        rest = behind;
    }
    out.push_str(rest);
    if whole {
        parsed(&out, node, check);
    }
    names
}

/// The text with variables put in, and whether all of them are set; `None` where the text was refused before.
fn filled(node: &Node, check: &Check<'_>) -> Option<(String, bool)> {
    let mut whole = true;
    let text = template::expand(node.text()?, |source, name| match source {
        Source::Secret => Some(LATER.to_owned()),
        Source::Env => (check.environment)(name).filter(|value| !value.is_empty()),
    });
    let text = text.or_else(|_| {
        whole = false;
        template::expand(node.text().unwrap_or_default(), |_, _| Some(LATER.to_owned()))
    });
    Some((text.ok()?, whole))
}

fn parsed(text: &str, node: &Node, check: &mut Check<'_>) -> Option<Url> {
    let wrong = |check: &mut Check<'_>, why: &str, hint: Option<&str>| {
        // What stands before an `@` may be a password.
        let written = match node.text() {
            Some(text) if !text.contains('@') => format!("`{}`", shown(text)),
            _ => "the text".to_owned(),
        };
        let message = format!("{written} is no URL that can be called: {why}; expected http:// or https:// and a host");
        check.wrong(Rule::BadValue, node.at, message, hint.map(str::to_owned));
    };
    match Url::parse(text) {
        Err(error) => wrong(check, &error.to_string(), None),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            wrong(check, &format!("the scheme is `{}`", shown(url.scheme())), None);
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            wrong(check, "it holds a user or a password", Some("send them in a header, from ${secret.NAME}"));
        }
        Ok(url) => return Some(url),
    }
    None
}
