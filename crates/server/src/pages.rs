//! The documentation that the service brings along: one page of the whole contract, one page for each error code. Nothing
//! is loaded from elsewhere.

use crate::markdown::{escaped, html};
use api::{Access, ENDPOINTS, Endpoint};
use bytes::Bytes;
use std::sync::OnceLock;

/// Code and text of the pages under `docs/errors`.
const ERROR_PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8883;--soft:#8881;--accent:#0a6c74}\
@media(prefers-color-scheme:dark){:root{--accent:#5cc8d0}}\
body{font:16px/1.55 system-ui,sans-serif;max-width:56rem;margin:0 auto;padding:2rem 1.25rem 6rem}\
h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:2.6rem 0 .3rem;padding-top:1.2rem;border-top:1px solid var(--line)}\
code,pre{font:13.5px/1.5 ui-monospace,monospace}pre{background:var(--soft);border-radius:.4rem;padding:.8rem 1rem;overflow-x:auto}\
table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:.93rem}td,th{text-align:left;vertical-align:top;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line)}\
.method{color:var(--accent);font-weight:600}.access{float:right;font-size:.85rem;opacity:.75}a{color:var(--accent)}nav{columns:2;font-size:.93rem;margin:1.2rem 0}nav a{display:block}";

/// The pages, made when they are first asked for.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    openapi: OnceLock<Bytes>,
    docs: OnceLock<String>,
}

impl Pages {
    /// The OpenAPI document.
    pub(crate) fn openapi(&self) -> Bytes {
        self.openapi.get_or_init(|| format!("{:#}\n", api::openapi()).into()).clone()
    }

    /// The contract, with examples for the service at `base`.
    pub(crate) fn docs(&self, base: &str, keyed: bool) -> String {
        let auth = if keyed { "-H \"Authorization: Bearer $TOPSIDE_KEY\" " } else { "" };
        // An address that the shell could read in another way stays out of what people paste into it.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]".contains(&byte);
        let base = if !base.is_empty() && base.bytes().all(plain) { base } else { "http://127.0.0.1:8787" };
        self.docs.get_or_init(docs).replace("{base}", &escaped(base)).replace("{auth}", &escaped(auth))
    }

    /// The page of a code.
    pub(crate) fn error(&self, code: &str) -> Option<String> {
        let (_, text) = ERROR_PAGES.iter().find(|(name, _)| *name == code)?;
        Some(page(code, &format!("<p><a href=\"/docs\">Topside</a></p>\n{}", html(text))))
    }
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escaped(title)
    )
}

fn docs() -> String {
    let mut body = format!(
        "<h1>Topside {}</h1>\n<p>Start agent runs, follow them, read their record. Every path stands a second time under \
         <code>{}</code>. The same as data: <a href=\"/openapi.json\">/openapi.json</a>. The examples are one shell's, from \
         top to bottom.</p>\n<p>What is refused is answered with <code>{}</code>: a stable <code>code</code>, what was wrong, \
         a hint, and in <code>type</code> the page that explains the code.</p>\n<nav>\n",
        domain::VERSION,
        api::BASE,
        api::PROBLEM_MEDIA
    );
    for endpoint in ENDPOINTS {
        body.push_str(&format!(
            "<a href=\"#{}\">{} {}</a>\n",
            endpoint.id,
            endpoint.method.name(),
            escaped(endpoint.path)
        ));
    }
    body.push_str("</nav>\n");
    for endpoint in ENDPOINTS {
        body.push_str(&section(endpoint));
    }
    body.push_str("<h2 id=\"errors\">Error codes</h2>\n<p>");
    let links = ERROR_PAGES.iter().map(|(code, _)| format!("<a href=\"{}\">{code}</a>", api::error_page(code)));
    body.push_str(&links.collect::<Vec<_>>().join(" · "));
    body.push_str("</p>\n");
    page("Topside", &body)
}

fn section(endpoint: &Endpoint) -> String {
    let access = match endpoint.access {
        Access::Open => "open to everybody".to_owned(),
        Access::Link => "by its signed link".to_owned(),
        Access::Scope(scope) => format!("scope {scope}"),
    };
    let mut out = format!(
        "<h2 id=\"{}\"><span class=\"access\">{access}</span><span class=\"method\">{}</span> <code>{}</code></h2>\n<p>{}.{}{}</p>\n",
        endpoint.id,
        endpoint.method.name(),
        escaped(endpoint.path),
        escaped(endpoint.summary),
        if endpoint.description.is_empty() { "" } else { " " },
        escaped(endpoint.description)
    );
    let mut rows = String::new();
    for (place, parameters) in [("query", endpoint.query), ("header", endpoint.headers)] {
        for parameter in parameters {
            let (name, told) = (escaped(parameter.name), escaped(parameter.description));
            rows.push_str(&format!("<tr><td><code>{name}</code></td><td>{place}</td><td>{told}</td></tr>\n"));
        }
    }
    for answer in endpoint.answers {
        let media: Vec<_> = answer.bodies.iter().map(|body| body.media).collect();
        let (media, told) = (escaped(&media.join(", ")), escaped(answer.description));
        rows.push_str(&format!("<tr><td>{}</td><td>{media}</td><td>{told}</td></tr>\n", answer.status));
    }
    let refusals = endpoint.refusals.iter().map(|refusal| (refusal.status(), refusal.code()));
    for (status, code) in refusals.chain(endpoint.errors.iter().copied()) {
        let link = api::error_page(code);
        rows.push_str(&format!("<tr><td>{status}</td><td colspan=\"2\"><a href=\"{link}\">{code}</a></td></tr>\n"));
    }
    out.push_str(&format!("<table>\n{rows}</table>\n<pre class=\"example\">{}</pre>\n", escaped(endpoint.example)));
    out
}
