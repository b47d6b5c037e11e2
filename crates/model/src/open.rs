//! From a declaration to a model that can be asked. Values are expanded by the caller's function, so that this room reads no
//! environment and no vault.

use crate::endpoint::{Endpoint, Options};
use crate::wire::Dialect;
use crate::{Failure, Kind, Model, script};
use domain::agent::{ModelProvider, Wire};
use domain::{ModelDecl, template};
use net::{HeaderMap, HeaderName, HeaderValue, Url};
use std::sync::Arc;
use stdx::{Clock, Random};

/// Where OpenAI itself answers.
const OPENAI_URL: &str = "https://api.openai.com/v1";

/// Why a declaration gives no model.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A variable or secret is not set.
    #[error("model `{alias}` is switched off: {variable} is not set; hint: set it, or give the model a `fallback`")]
    NotConfigured {
        /// The model.
        alias: String,
        /// Such as `env.OPENAI_API_KEY`.
        variable: String,
    },
    /// A value can't be used.
    #[error("model `{alias}`: {field} {reason}")]
    Declaration {
        /// The model.
        alias: String,
        /// The key in the declaration.
        field: String,
        /// What is wrong with it; never the value, which may be a secret.
        reason: String,
    },
    /// The transcript can't be played.
    #[error("model `{alias}`: {error}")]
    Transcript {
        /// The model.
        alias: String,
        /// What is wrong with it.
        error: script::Error,
    },
}

impl Error {
    /// The stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotConfigured { .. } => "model_not_configured",
            Self::Declaration { .. } => "model_declaration",
            Self::Transcript { .. } => "script_malformed",
        }
    }

    /// The failure of a run that wanted this model.
    pub fn failure(&self) -> Failure {
        let kind = match self {
            Self::NotConfigured { variable, .. } => Kind::NotConfigured { variable: variable.clone() },
            Self::Declaration { .. } => Kind::BadRequest,
            Self::Transcript { .. } => Kind::ScriptUnmatched,
        };
        Failure::new(kind, self.to_string())
    }
}

/// Replaces the references in a configuration value by what they stand for.
pub type Expand<'a> = &'a dyn Fn(&str) -> Result<String, template::Error>;

/// Opens a declared model with the default [`Options`]. Nothing is sent.
///
/// # Errors
/// When a value it needs is not set, is malformed, or its transcript is.
pub fn open(
    decl: &ModelDecl,
    expand: Expand<'_>,
    net: net::Client,
    random: Random,
    clock: Clock,
) -> Result<Arc<dyn Model>, Error> {
    open_with(decl, expand, net, random, clock, Options::default())
}

/// Opens a declared model. Nothing is sent.
///
/// # Errors
/// When a value it needs is not set, is malformed, or its transcript is.
pub fn open_with(
    decl: &ModelDecl,
    expand: Expand<'_>,
    net: net::Client,
    random: Random,
    clock: Clock,
    options: Options,
) -> Result<Arc<dyn Model>, Error> {
    let opening = Opening { decl, expand };
    if decl.provider == ModelProvider::Script {
        return Ok(Arc::new(opening.script()?));
    }
    let key = opening.optional("key", decl.key.as_deref())?.filter(|key| !key.is_empty());
    if key.is_none() && decl.provider == ModelProvider::Openai {
        let variable = "env.OPENAI_API_KEY".to_owned();
        return Err(Error::NotConfigured { alias: decl.alias.clone(), variable });
    }
    let headers = opening.headers(key.as_deref())?;
    let secrets = opening.secrets(&headers)?;
    let dialect = Dialect {
        wire: decl.wire,
        model: opening.value("name", &decl.name)?,
        official: decl.provider == ModelProvider::Openai,
        stream: decl.stream,
        temperature: decl.temperature_milli.map(|milli| f64::from(milli) / 1_000.0),
        output_tokens_max: decl.output_tokens_max,
        reasoning_effort: decl.reasoning_effort.clone(),
    };
    Ok(Arc::new(Endpoint { url: opening.url()?, headers, secrets, dialect, net, random, clock, options }))
}

struct Opening<'a> {
    decl: &'a ModelDecl,
    expand: Expand<'a>,
}

impl Opening<'_> {
    fn wrong(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::Declaration { alias: self.decl.alias.clone(), field: field.to_owned(), reason: reason.into() }
    }

    fn value(&self, field: &str, text: &str) -> Result<String, Error> {
        (self.expand)(text).map_err(|error| match error {
            template::Error::Missing { source_name, name } => {
                Error::NotConfigured { alias: self.decl.alias.clone(), variable: format!("{source_name}.{name}") }
            }
            template::Error::Open { .. } | template::Error::Form { .. } => self.wrong(field, error.to_string()),
        })
    }

    fn optional(&self, field: &str, text: Option<&str>) -> Result<Option<String>, Error> {
        text.map(|text| self.value(field, text)).transpose()
    }

    /// What an error message must not echo: the values of headers, and whatever was put into the query.
    fn secrets(&self, headers: &HeaderMap) -> Result<Vec<String>, Error> {
        let sent = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        let mut secrets: Vec<String> =
            sent.map(|value| value.strip_prefix("Bearer ").unwrap_or(value).to_owned()).collect();
        for (name, value) in self.decl.query.iter().filter(|(_, value)| value.contains("${")) {
            secrets.push(self.value(&format!("query.{name}"), value)?);
        }
        Ok(secrets)
    }

    fn script(&self) -> Result<script::Script, Error> {
        let text = self.decl.transcript.as_deref().ok_or_else(|| self.wrong("transcript", "is missing"))?;
        script::Script::parse(text).map_err(|error| Error::Transcript { alias: self.decl.alias.clone(), error })
    }

    /// The whole URL that is posted to.
    fn url(&self) -> Result<Url, Error> {
        let base = match (self.optional("url", self.decl.url.as_deref())?, self.decl.provider) {
            (Some(base), _) => base,
            (None, ModelProvider::Openai) => OPENAI_URL.to_owned(),
            (None, ModelProvider::OpenaiCompatible | ModelProvider::Script) => {
                return Err(self.wrong("url", "is missing; hint: the base, such as http://127.0.0.1:8000/v1"));
            }
        };
        let mut url = Url::parse(base.trim()).map_err(|error| self.wrong("url", format!("is no url: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(self.wrong("url", "must begin with http:// or https:// and name a host"));
        }
        let last = match self.decl.wire {
            Wire::Responses => "responses",
            Wire::Chat => "chat/completions",
        };
        let path = format!("{}/{last}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        for (name, value) in &self.decl.query {
            let value = self.value(&format!("query.{name}"), value)?;
            url.query_pairs_mut().append_pair(name, &value);
        }
        Ok(url)
    }

    /// The headers of every request. Declared ones come last, so that they may replace `authorization`.
    fn headers(&self, key: Option<&str>) -> Result<HeaderMap, Error> {
        let secret = |field: &str, text: &str| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| self.wrong(field, "holds a character that can't stand in a header"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("user-agent", HeaderValue::from_static(concat!("topside/", env!("CARGO_PKG_VERSION"))));
        if let Some(key) = key {
            headers.insert("authorization", secret("key", &format!("Bearer {key}"))?);
        }
        for (name, value) in &self.decl.headers {
            let field = format!("headers.{name}");
            let value = self.value(&field, value)?;
            let name: HeaderName = name.parse().map_err(|_| self.wrong(&field, "is no header name"))?;
            headers.insert(name, secret(&field, &value)?);
        }
        Ok(headers)
    }
}
