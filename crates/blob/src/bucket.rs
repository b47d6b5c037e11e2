//! A bucket that others fill, read as it is: lists page by page and parts of objects, whatever the keys are. The lists are
//! asked for and read here, because `object_store` refuses a whole page for one key that is no path of its own; what a key
//! may be shown as is decided by who shows it.

use crate::blobs::open;
use crate::{Error, S3};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use net::{Method, Origin, Request, Timeouts};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use object_store::{GetOptions, GetRange, ObjectStore as _};
use serde::Deserialize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Keys of one page at most; S3's own bound.
pub const LIST_KEYS_MAX: usize = 1_000;
/// Bytes of one page at most: a thousand keys of 1,024 bytes, each byte written as three, and as much for the rest.
const PAGE_BYTES_MAX: u64 = 8 << 20;
/// How long the signature of one request holds.
const SIGNATURE_LASTS: Duration = Duration::from_secs(300);
/// How often a list is asked for, and the wait between, when the storage is busy or can't be reached.
const ATTEMPTS_MAX: u32 = 3;
const ATTEMPT_WAIT: Duration = Duration::from_millis(150);

/// A bucket to read.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    client: net::Client,
    timeouts: Timeouts,
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects whose keys have no further `/` behind the prefix.
    pub objects: Vec<Found>,
    /// What keys with a further `/` begin with, up to and with that `/`.
    pub prefixes: Vec<String>,
    /// Keys that are no text.
    pub left_out: u64,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key, as it is: any text.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// Seconds since the Unix epoch of its last change; 0 when the storage does not say.
    pub modified_s: u64,
    /// What the storage calls this version of it.
    pub version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Content>,
    #[serde(default)]
    common_prefixes: Vec<Common>,
    #[serde(default)]
    next_continuation_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    key: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    last_modified: Option<String>,
    #[serde(default, rename = "ETag")]
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Common {
    prefix: String,
}

impl Bucket {
    /// A bucket; its `root` is not used. Every request ends within `request_ms_max`. Does not connect.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(settings: &S3, client: net::Client, request_ms_max: u64) -> Result<Self, Error> {
        let store = Arc::new(open(settings, client.clone())?);
        let timeouts = Timeouts { first_byte_ms: request_ms_max, idle_ms: request_ms_max, total_ms: request_ms_max };
        Ok(Self { store, client, timeouts })
    }

    /// One page of the keys that begin with `prefix`, those with a further `/` as what they begin with; at most `keys_max` and
    /// [`LIST_KEYS_MAX`].
    ///
    /// # Errors
    /// [`Error::Answer`], [`Error::Storage`].
    pub async fn list(&self, prefix: &str, next: Option<&str>, keys_max: usize) -> Result<Page, Error> {
        let mut query = vec![
            ("list-type", "2".to_owned()),
            ("delimiter", "/".to_owned()),
            ("max-keys", keys_max.clamp(1, LIST_KEYS_MAX).to_string()),
            ("prefix", prefix.to_owned()),
        ];
        query.extend(next.map(|next| ("continuation-token", next.to_owned())));
        match page(&self.fetch(&query).await?) {
            // Keys that XML can't hold are written otherwise when that is asked for. Not at once: some servers then say that
            // they do and do not.
            Err(_) => {
                query.push(("encoding-type", "url".to_owned()));
                page(&self.fetch(&query).await?)
            }
            read => read,
        }
    }

    async fn fetch(&self, query: &[(&str, String)]) -> Result<Bytes, Error> {
        let mut attempt = 1;
        loop {
            match self.fetch_once(query).await {
                Err(Error::Answer { status: Some(429 | 500..=599) | None, .. }) if attempt < ATTEMPTS_MAX => {
                    tokio::time::sleep(ATTEMPT_WAIT * attempt).await;
                    attempt += 1;
                }
                fetched => return fetched,
            }
        }
    }

    async fn fetch_once(&self, query: &[(&str, String)]) -> Result<Bytes, Error> {
        let options = SignedUrlOptions::new().with_query(query.iter().map(|(key, value)| (*key, value.clone())));
        let url = self.store.signed_url_opts(Method::GET, &Path::default(), SIGNATURE_LASTS, &options).await?;
        let broken = |answer: String| Error::Answer { answer, status: None };
        // The endpoint is the operator's own words.
        let mut request = Request::new(Method::GET, url, Origin::Operator);
        request.timeouts = self.timeouts;
        request.response_bytes_max = PAGE_BYTES_MAX;
        let answer = self.client.send(request).await.map_err(|error| broken(error.to_string()))?;
        match answer.status() {
            200 => answer.bytes().await.map_err(|error| broken(error.to_string())),
            status => {
                answer.finish().await;
                Err(Error::Answer { answer: format!("status {status}"), status: Some(status) })
            }
        }
    }

    /// A part of an object, in this version of it when one is given. Never more than `range`; less where it ends.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Changed`], [`Error::KeyMalformed`] for a key that is no path, [`Error::TooLarge`] when
    /// more comes than was asked for, [`Error::Storage`].
    pub async fn read(&self, key: &str, range: Range<u64>, version: Option<&str>) -> Result<Bytes, Error> {
        let path = Path::parse(key).map_err(|_| Error::KeyMalformed { reason: "the storage does not take it" })?;
        if path.as_ref() != key {
            return Err(Error::KeyMalformed { reason: "the storage would read another object" });
        }
        let bytes_max = range.end.saturating_sub(range.start);
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: version.map(str::to_owned),
            ..GetOptions::default()
        };
        let mut pieces = self.store.get_opts(&path, options).await?.into_stream();
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if (whole.len() + piece.len()) as u64 > bytes_max {
                return Err(Error::TooLarge { bytes_max });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// Reads a page.
fn page(bytes: &[u8]) -> Result<Page, Error> {
    let broken = |answer: String| Error::Answer { answer, status: Some(200) };
    let text = std::str::from_utf8(bytes).map_err(|_| broken("a list that is no text".to_owned()))?;
    let listed: Listed = quick_xml::de::from_str(text).map_err(|error| broken(format!("no list: {error}")))?;
    if listed.contents.len() + listed.common_prefixes.len() > LIST_KEYS_MAX {
        return Err(broken(format!("more than {LIST_KEYS_MAX} keys")));
    }
    let encoded = listed.encoding_type.as_deref() == Some("url");
    let mut page = Page { next: listed.next_continuation_token.filter(|next| !next.is_empty()), ..Page::default() };
    for content in listed.contents {
        match plain(content.key, encoded) {
            None => page.left_out += 1,
            Some(key) => page.objects.push(Found {
                key,
                bytes: content.size,
                modified_s: content.last_modified.as_deref().and_then(seconds).unwrap_or(0),
                version: content.version,
            }),
        }
    }
    for common in listed.common_prefixes {
        match plain(common.prefix, encoded) {
            None => page.left_out += 1,
            Some(prefix) => page.prefixes.push(prefix),
        }
    }
    Ok(page)
}

/// A key as it is; `None` when it is no text.
fn plain(key: String, encoded: bool) -> Option<String> {
    if !encoded {
        return Some(key);
    }
    let spaces = key.replace('+', " ");
    percent_encoding::percent_decode_str(&spaces).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Seconds since the Unix epoch of a time such as `2024-02-29T12:00:00.000Z`.
fn seconds(text: &str) -> Option<u64> {
    let number = |range: Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Days since the epoch, with years that begin in March so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days.checked_sub(719_468).map(|days| days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2024-12-31T23:59:59.999Z", Some(1_735_689_599)),
            ("1969-12-31T23:59:59Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("now", None),
            ("", None),
            ("2024-01-\u{e9}1T00:00:00Z", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn pages_are_read_whatever_the_keys() {
        let text = "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%2Fb+c%2B</Key><Size>7</Size>\
                    <LastModified>1970-01-01T00:01:00.000Z</LastModified><ETag>&quot;x&quot;</ETag></Contents>\
                    <CommonPrefixes><Prefix>..%2F</Prefix></CommonPrefixes><Contents><Key>%00%0a</Key></Contents>\
                    <Contents><Key>%ff</Key></Contents><NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
        let found = |key: &str, bytes, modified_s, version: Option<&str>| Found {
            key: key.to_owned(),
            bytes,
            modified_s,
            version: version.map(str::to_owned),
        };
        let expected = Page {
            objects: vec![found("a/b c+", 7, 60, Some("\"x\"")), found("\0\n", 0, 0, None)],
            prefixes: vec!["../".to_owned()],
            left_out: 1,
            next: Some("t".to_owned()),
        };
        assert_eq!(page(text.as_bytes()).unwrap(), expected);
        let plain = "<ListBucketResult><Contents><Key>a+b%20</Key></Contents></ListBucketResult>";
        assert_eq!(page(plain.as_bytes()).unwrap().objects[0].key, "a+b%20");
        for bad in ["", "<html>", "<ListBucketResult><Contents></Contents></ListBucketResult>", "\u{0}"] {
            assert_eq!(page(bad.as_bytes()).unwrap_err().code(), "blob_answer", "{bad:?}");
        }
        let many = format!("<L>{}</L>", "<Contents><Key>k</Key></Contents>".repeat(LIST_KEYS_MAX + 1));
        assert_eq!(page(many.as_bytes()).unwrap_err().code(), "blob_answer");
    }
}
