//! Settings that stand in the environment or in the project: the way out, S3-compatible storage, the database, the worker.

use crate::{Environment, Error};
use blob::{Addressing, S3};
use catalog::Settings;
use domain::template;
use journal::{PostgresSettings, WorkerSpec};
use vault::Secrets;

/// Bytes of a CA file at most.
const CA_BYTES_MAX: u64 = 4 << 20;

/// Proxies and certificate authorities, by the variables that every program of the machine reads.
pub(crate) fn net(environment: &Environment) -> Result<net::Settings, Error> {
    let ca_pem = match environment.first(&["SSL_CERT_FILE"]) {
        None => None,
        Some(path) => {
            let wrong = |reason| Error::Variable { name: "SSL_CERT_FILE".into(), reason };
            let about = std::fs::metadata(&path).map_err(|error| wrong(format!("names {path}: {error}")))?;
            if !about.is_file() || about.len() > CA_BYTES_MAX {
                return Err(wrong(format!("names {path}; expected a PEM file of at most {CA_BYTES_MAX} bytes")));
            }
            Some(std::fs::read(&path).map_err(|error| wrong(format!("names {path}: {error}")))?)
        }
    };
    Ok(net::Settings {
        // Upper case is left out for http: a CGI server takes it from a request's header.
        http_proxy: environment.first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
        https_proxy: environment.first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        no_proxy: environment.first(&["no_proxy", "NO_PROXY"]),
        ca_pem,
        ..net::Settings::default()
    })
}

/// The same for the helpers of mounts, each a process of its own.
pub(crate) fn mounts(environment: &Environment) -> Result<mounts::Network, Error> {
    let net::Settings { http_proxy, https_proxy, no_proxy, ca_pem, .. } = net(environment)?;
    let ca_pem = ca_pem.map(String::from_utf8).transpose().map_err(|_| Error::Variable {
        name: "SSL_CERT_FILE".into(),
        reason: "names a file that is no PEM".to_owned(),
    })?;
    Ok(mounts::Network { http_proxy, https_proxy, no_proxy, ca_pem })
}

/// S3-compatible storage, when `TOPSIDE_S3_BUCKET` is set. Half of a configuration is refused: it would write to the
/// local directory what belongs elsewhere.
pub(crate) fn s3(environment: &Environment) -> Result<Option<S3>, Error> {
    let any = environment.iter().find(|(name, _)| name.starts_with("TOPSIDE_S3_"));
    let Some((some, _)) = any else { return Ok(None) };
    let need = |name: &str| {
        environment.get(name).map(str::to_owned).ok_or_else(|| Error::Variable {
            name: name.into(),
            reason: format!("is not set, but {some} is; hint: set both, or none of TOPSIDE_S3_*"),
        })
    };
    let addressing = match environment.get("TOPSIDE_S3_ADDRESSING") {
        None | Some("path") => Addressing::Path,
        Some("virtual-host") => Addressing::VirtualHost,
        Some(_) => {
            let reason = "is neither `path` nor `virtual-host`".into();
            return Err(Error::Variable { name: "TOPSIDE_S3_ADDRESSING".into(), reason });
        }
    };
    Ok(Some(S3 {
        endpoint: need("TOPSIDE_S3_ENDPOINT")?,
        bucket: need("TOPSIDE_S3_BUCKET")?,
        region: environment.get("TOPSIDE_S3_REGION").unwrap_or("auto").to_owned(),
        access_key_id: need("TOPSIDE_S3_ACCESS_KEY_ID")?,
        secret_access_key: need("TOPSIDE_S3_SECRET_ACCESS_KEY")?,
        session_token: environment.get("TOPSIDE_S3_SESSION_TOKEN").map(str::to_owned),
        addressing,
        root: environment.get("TOPSIDE_S3_ROOT").unwrap_or_default().to_owned(),
    }))
}

/// The database that the environment names.
pub(crate) fn database_of(environment: &Environment) -> Option<PostgresSettings> {
    let mut settings = PostgresSettings::new(environment.get("DATABASE_URL")?);
    settings.direct_url = environment.get("DATABASE_URL_DIRECT").map(str::to_owned);
    Some(settings)
}

/// The database that the environment names, else the one of the project.
pub(crate) fn database(
    environment: &Environment,
    secrets: &Secrets,
    settings: &Settings,
) -> Result<Option<PostgresSettings>, Error> {
    if let Some(named) = database_of(environment) {
        return Ok(Some(named));
    }
    let Some(database) = &settings.database else { return Ok(None) };
    let expanded = |text: &str| {
        let found = template::expand(text, |source, name| match source {
            template::Source::Env => environment.get(name).map(str::to_owned),
            template::Source::Secret => secrets.lease(name).map(|secret| secret.expose().to_owned()),
        });
        // The text itself may hold a password.
        found.map_err(|error| Error::Setting { setting: "database", reason: error.to_string() })
    };
    let mut found = PostgresSettings::new(expanded(&database.url)?);
    found.direct_url = database.direct_url.as_deref().map(expanded).transpose()?;
    Ok(Some(found))
}

/// What this process is among those that share a journal.
pub(crate) fn worker(environment: &Environment, settings: &Settings) -> WorkerSpec {
    let lease_ms = u64::from(settings.worker.lease_seconds) * 1_000;
    WorkerSpec { name: worker_name(environment), lease_ms }
}

/// How this process is called among those that share a journal: by its machine and its number.
fn worker_name(environment: &Environment) -> String {
    let host = environment.get("HOSTNAME").map(str::to_owned);
    let host = host.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    format!("{}-{}", host.as_deref().unwrap_or("worker"), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn half_of_a_storage_is_refused_by_name() {
        let whole = [
            ("TOPSIDE_S3_BUCKET", "b"),
            ("TOPSIDE_S3_ENDPOINT", "https://s3.example"),
            ("TOPSIDE_S3_ACCESS_KEY_ID", "k"),
            ("TOPSIDE_S3_SECRET_ACCESS_KEY", "s"),
        ];
        assert_eq!(s3(&environment(&[])).unwrap(), None);
        assert_eq!(
            s3(&environment(&whole)).unwrap().map(|s3| (s3.bucket, s3.region)),
            Some(("b".into(), "auto".into()))
        );
        for (missing, _) in whole {
            let rest: Vec<_> = whole.iter().copied().filter(|(name, _)| *name != missing).collect();
            let error = s3(&environment(&rest)).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("the environment variable {missing} is not set")),
                "{error}"
            );
        }
    }

    #[test]
    fn proxies_come_by_their_usual_names() {
        let settings =
            net(&environment(&[("https_proxy", "http://p:1"), ("NO_PROXY", "a"), ("HTTP_PROXY", "x")])).unwrap();
        assert_eq!((settings.https_proxy.as_deref(), settings.no_proxy.as_deref()), (Some("http://p:1"), Some("a")));
        assert_eq!(settings.http_proxy, None);
        let error = net(&environment(&[("SSL_CERT_FILE", "/nowhere.pem")])).unwrap_err();
        assert_eq!(error.code(), "variable_unusable");
    }
}
