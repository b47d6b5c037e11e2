//! Links to the files that runs left, and their bytes.

use crate::answer;
use crate::app::App;
use crate::body::{Body, Cut};
use crate::problem::No;
use api::Artifact;
use blob::{Key, LINK_MS, Link};
use engine::ArtifactView;
use futures::StreamExt;
use http::{HeaderValue, Response, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Bytes of an offered file name at most.
const NAME_BYTES_MAX: usize = 200;

/// The files with links that are good for an hour.
pub(crate) async fn linked(app: &App, base: &str, views: Vec<ArtifactView>) -> Result<Vec<Artifact>, No> {
    let mut artifacts = Vec::with_capacity(views.len());
    for view in views {
        let key: Key = view.object.parse()?;
        let url = match app.engine.blobs().link(&key, &offered(&view.name), LINK_MS).await? {
            Link::Token(token) => format!("{base}/artifacts/{token}"),
            Link::Url(url) => url,
        };
        let ArtifactView { artifact, name, media, bytes, .. } = view;
        artifacts.push(Artifact { id: artifact, name, media, bytes, url });
    }
    Ok(artifacts)
}

/// `GET /artifacts/{token}`.
pub(crate) async fn get(app: &App, token: &str) -> Result<Response<Body>, No> {
    let blobs = app.engine.blobs();
    let linked = blobs.links().open(token)?;
    let (bytes, pieces) = blobs.get_stream(&linked.key).await?;
    let pieces = pieces.map(|piece| piece.map_err(|error| Cut(error.to_string()))).boxed();
    let mut response = answer::stream("application/octet-stream", Body::Pieces { pieces, bytes: Some(bytes) });
    let headers = response.headers_mut();
    let disposition =
        HeaderValue::from_str(&disposition(&linked.name)).map_err(|error| No::internal("internal", &error))?;
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    // A browser that opens it all the same gets a page that can do nothing.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    Ok(response)
}

/// The file name that is offered for a path in the workspace: its last part, without what no file name needs.
fn offered(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name: String = name.chars().filter(|character| !character.is_control()).collect();
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.is_empty() { "artifact".to_owned() } else { name }
}

/// `Content-Disposition` (RFC 6266): always offered for saving, never shown in place.
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() || "-_. ".contains(character) { character } else { '_' })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_can_do_no_harm() {
        for (path, expected) in [
            ("out/report.md", "report.md"),
            ("..\\..\\evil.exe", "evil.exe"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
            ("out/", "artifact"),
            ("", "artifact"),
        ] {
            assert_eq!(offered(path), expected, "{path:?}");
        }
        assert!(offered(&"ü".repeat(500)).len() <= NAME_BYTES_MAX);
        let header = disposition("Über \"alles\".md");
        assert_eq!(header, "attachment; filename=\"_ber _alles_.md\"; filename*=UTF-8''%C3%9Cber%20%22alles%22%2Emd");
        assert!(HeaderValue::from_str(&header).is_ok());
    }
}
