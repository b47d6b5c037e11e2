//! `view_image`: an image of the workspace, shown to the model.

use super::Job;
use super::files::{self, Unread};
use crate::Outcome;
use crate::output::brief;
use crate::reason::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::{Part, ToolSpec};
use sandbox::RelPath;

/// Bytes of an image at most.
const IMAGE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Bytes in which an SVG's root element has to begin.
const SVG_BYTES_MAX: usize = 4_096;

const DESCRIPTION: &str =
    "Shows you an image from the workspace: png, jpeg, gif, webp, bmp, tiff or svg, at most 10 MiB.";
const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "path": {"type": "string", "minLength": 1, "description": "Path of the image within the workspace."}
  },
  "required": ["path"]
}"#;

pub(crate) fn spec() -> ToolSpec {
    super::spec("view_image", DESCRIPTION, SCHEMA)
}

pub(crate) async fn run(job: &Job<'_>) -> Outcome {
    let asked = job.text("path").unwrap_or_default();
    let path = match RelPath::from_model(asked) {
        Ok(path) => path,
        Err(error) => return Outcome::sandbox("view_image failed", &error),
    };
    let sandbox = match job.bench.sandbox().await {
        Ok(sandbox) => sandbox,
        Err(error) => return Outcome::sandbox("view_image failed", &error),
    };
    let failed =
        |code, detail: &str| Outcome::error(code, format!("view_image failed: `{}` {detail}", brief(asked, 200)));
    let bytes = match files::read(&*sandbox, &path, IMAGE_BYTES_MAX).await {
        Ok((bytes, _)) => bytes,
        Err(Unread::Missing) => return failed(Reason::ImageMissing.code(), "does not exist."),
        Err(Unread::Kind(kind)) => return failed(Reason::ImageMissing.code(), &format!("is {kind}, not a file.")),
        Err(Unread::TooLarge(bytes)) => {
            return failed(
                Reason::ImageTooLarge.code(),
                &format!("has {bytes} bytes; at most {IMAGE_BYTES_MAX} can be shown. Make a smaller copy first."),
            );
        }
        Err(Unread::Sandbox(error)) => return Outcome::sandbox("view_image failed", &error),
    };
    let Some(media) = media(&bytes) else {
        return failed(
            Reason::ImageUnknown.code(),
            "is no image of a supported kind: png, jpeg, gif, webp, bmp, tiff, svg.",
        );
    };
    let part = Part::Image { media: media.to_owned(), base64: STANDARD.encode(&bytes) };
    Outcome { parts: vec![part], ..Outcome::text("") }
}

/// The media type by the first bytes; names lie.
fn media(bytes: &[u8]) -> Option<&'static str> {
    let marks: [(&[u8], &str); 7] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"BM", "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
    ];
    if let Some((_, media)) = marks.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Some(media);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some("image/webp");
    }
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(SVG_BYTES_MAX)]);
    let start = start.trim_start_matches('\u{feff}').trim_start();
    let svg = start.starts_with("<svg")
        || ((start.starts_with("<?xml") || start.starts_with("<!")) && start.contains("<svg"));
    svg.then_some("image/svg+xml")
}

#[cfg(test)]
mod tests {
    use super::media;

    fn check(bytes: &[u8], expected: Option<&str>) {
        assert_eq!(media(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn images_are_known_by_their_first_bytes() {
        check(b"\x89PNG\r\n\x1a\n....", Some("image/png"));
        check(b"\xff\xd8\xff\xe0", Some("image/jpeg"));
        check(b"GIF89a...", Some("image/gif"));
        check(b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp"));
        check(b"RIFF\0\0\0\0WAVE", None);
        check(b"BM......", Some("image/bmp"));
        check(b"II*\0....", Some("image/tiff"));
        check(b"MM\0*....", Some("image/tiff"));
        check(b"  <svg xmlns='x'/>", Some("image/svg+xml"));
        check(b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", Some("image/svg+xml"));
        check(b"<!DOCTYPE svg><svg/>", Some("image/svg+xml"));
        check(b"<html><svg/></html>", None);
        check(b"%PDF-1.7", None);
        check(b"", None);
    }
}
