//! What a database's URL means. Pure: nothing is dialled, read or logged here, and nothing that is said of a URL holds its
//! password.

use crate::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslMode};

/// Parameters that the driver understands itself.
const DRIVER: &[&str] = &[
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];
/// Parameters of other drivers and poolers that change nothing here: they are left out, and the operator is told.
const LEFT_OUT: &[&str] = &[
    "client_encoding",
    "connection_limit",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "pool_timeout",
    "sslcompression",
    "sslsni",
];
/// The port on which poolers listen by custom.
const POOLER_PORT: u16 = 6432;
/// What Neon appends to the first label of a host that is a pooler.
const POOLER_LABEL: &str = "-pooler";

/// A URL, understood.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// For the driver; with TLS on or off, never "if it happens to be there".
    pub(crate) config: Config,
    /// Whether a pooler may give every statement another session of the server.
    pub(crate) pooled: bool,
    /// A file with further roots.
    pub(crate) root_certificates: Option<PathBuf>,
    /// What the operator should know.
    pub(crate) warnings: Vec<String>,
}

/// What `sslmode` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Unsaid,
    Disable,
    Opportunistic,
    Require,
}

/// Understands a URL.
pub(crate) fn parse(url: &str) -> Result<Target, Error> {
    let scheme = ["postgres://", "postgresql://"].into_iter().any(|scheme| url.starts_with(scheme));
    if !scheme {
        return Err(bad("it does not begin with `postgres://` or `postgresql://`"));
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut kept = Vec::new();
    let mut warnings = Vec::new();
    let (mut wish, mut binding, mut pooled, mut root_certificates) = (Wish::Unsaid, None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(raw).decode_utf8_lossy();
        match name {
            "sslmode" => wish = wished(&value)?,
            "channel_binding" => binding = Some(bound(&value)?),
            "sslrootcert" => root_certificates = (value != "system").then(|| PathBuf::from(&*value)),
            "pgbouncer" => pooled = Some(value == "true"),
            "sslcert" | "sslkey" | "sslpassword" | "passfile" | "service" => {
                return Err(bad(format!("`{name}` is not supported; hint: use a user and a password")));
            }
            _ if DRIVER.contains(&name) => kept.push(pair),
            _ if LEFT_OUT.contains(&name) => warnings.push(format!("`{name}` changes nothing here and was left out")),
            _ => return Err(bad(format!("nobody knows the parameter `{name}`"))),
        }
    }
    let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    // The driver's own message may repeat a part of the URL.
    let mut config: Config =
        rest.parse().map_err(|_| bad("it is malformed; hint: percent-encode special characters"))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(bad("it names no host"));
    }
    if config.get_user().is_none() {
        return Err(bad("it names no user"));
    }
    let remote = is_remote(&config);
    let tls = match wish {
        Wish::Require => true,
        Wish::Disable => false,
        Wish::Unsaid | Wish::Opportunistic => remote,
    };
    if wish == Wish::Opportunistic && remote {
        warnings.push("`sslmode` asks for TLS only if the server has it; it is required all the same".to_owned());
    }
    if wish == Wish::Disable && remote {
        warnings.push("`sslmode=disable`: everything but contents crosses the network in the clear".to_owned());
    }
    config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
    match binding {
        Some(ChannelBinding::Require) if !tls => {
            warnings.push("`channel_binding=require` needs TLS, which is off; it was left out".to_owned());
        }
        Some(binding) => {
            config.channel_binding(binding);
        }
        None => {}
    }
    if config.get_application_name().is_none() {
        config.application_name("topside");
    }
    let pooled = pooled.unwrap_or_else(|| is_pooler(&config));
    Ok(Target { config, pooled, root_certificates, warnings })
}

/// The URL of the database itself, when that of its pooler tells it.
pub(crate) fn direct_of(url: &str) -> Option<String> {
    let after = url.find("://")? + 3;
    let end = url[after..].find(['/', '?']).map_or(url.len(), |end| after + end);
    let host = url[after..end].rfind('@').map_or(after, |at| after + at + 1);
    let label_end = url[host..end].find(['.', ':', ',']).map_or(end, |dot| host + dot);
    let label = url[host..label_end].strip_suffix(POOLER_LABEL)?;
    Some(format!("{}{label}{}", &url[..host], &url[label_end..]))
}

fn wished(value: &str) -> Result<Wish, Error> {
    match value {
        "disable" => Ok(Wish::Disable),
        "allow" | "prefer" => Ok(Wish::Opportunistic),
        // Chain and name are checked whenever there is TLS, so the three are one.
        "require" | "verify-ca" | "verify-full" => Ok(Wish::Require),
        _ => Err(bad("`sslmode` is none of disable, allow, prefer, require, verify-ca, verify-full")),
    }
}

fn bound(value: &str) -> Result<ChannelBinding, Error> {
    match value {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err(bad("`channel_binding` is none of disable, prefer, require")),
    }
}

fn is_remote(config: &Config) -> bool {
    let by_name = config.get_hosts().iter().any(|host| match host {
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
            !address.map_or(name == "localhost", |address| address.is_loopback())
        }
        Host::Unix(_) => false,
    });
    // Where addresses are given, they are dialled instead of names.
    match config.get_hostaddrs() {
        [] => by_name,
        addresses => addresses.iter().any(|address| !address.is_loopback()),
    }
}

fn is_pooler(config: &Config) -> bool {
    let by_name = config.get_hosts().iter().any(|host| match host {
        Host::Tcp(name) => name.split('.').next().is_some_and(|label| label.ends_with(POOLER_LABEL)),
        Host::Unix(_) => false,
    });
    by_name || config.get_ports().contains(&POOLER_PORT)
}

fn bad(reason: impl Into<String>) -> Error {
    Error::Url { reason: reason.into().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(url: &str) -> String {
        match parse(url) {
            Err(error) => {
                assert!(!error.to_string().contains("hunter2"), "{error}");
                "refused".to_owned()
            }
            Ok(Target { config, pooled, warnings, .. }) => {
                assert!(warnings.iter().all(|warning| !warning.contains("hunter2")));
                let tls = match config.get_ssl_mode() {
                    SslMode::Disable => "plain",
                    SslMode::Require => "tls",
                    other => panic!("{url}: {other:?} would be weakened silently"),
                };
                let binding = format!("{:?}", config.get_channel_binding()).to_lowercase();
                let pooled = if pooled { " pooled" } else { "" };
                format!("{tls} {binding}{pooled} {}", warnings.len())
            }
        }
    }

    /// TLS, channel binding, pooler, number of warnings.
    #[test]
    fn a_url_means_what_it_says_or_more() {
        for (url, expected) in [
            ("postgres://u:hunter2@db.example.com/app", "tls prefer 0"),
            ("postgresql://u:hunter2@db.example.com:5432/app?sslmode=require", "tls prefer 0"),
            ("postgres://u@db.example.com/app?sslmode=verify-full", "tls prefer 0"),
            ("postgres://u@db.example.com/app?sslmode=verify-ca", "tls prefer 0"),
            ("postgres://u@db.example.com/app?sslmode=prefer", "tls prefer 1"),
            ("postgres://u@db.example.com/app?sslmode=allow", "tls prefer 1"),
            ("postgres://u@db.example.com/app?sslmode=disable", "plain prefer 1"),
            ("postgres://u@db.example.com/app?sslmode=REQUIRE", "refused"),
            ("postgres://u@localhost/app", "plain prefer 0"),
            ("postgres://u@127.0.0.1/app?sslmode=prefer", "plain prefer 0"),
            ("postgres://u@[::1]/app?sslmode=require", "tls prefer 0"),
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql/app", "plain prefer 0"),
            ("postgres://u@localhost/app?host=/var/run/postgresql", "plain prefer 0"),
            ("postgres://u@localhost,db2/app", "tls prefer 0"),
            ("postgres://u@localhost/app?hostaddr=10.0.0.1", "tls prefer 0"),
            ("postgres://u@d/app?sslmode=require&channel_binding=require", "tls require 0"),
            ("postgres://u@d/app?channel_binding=disable", "tls disable 0"),
            ("postgres://u@d/app?channel_binding=yes", "refused"),
            ("postgres://u@localhost/app?channel_binding=require", "plain prefer 1"),
            ("postgres://u:hunter2@ep-x-1-pooler.eu.neon.tech/app?sslmode=require", "tls prefer pooled 0"),
            ("postgres://u@d:6432/app", "tls prefer pooled 0"),
            ("postgres://u@d:6432/app?pgbouncer=false", "tls prefer 0"),
            ("postgres://u@d/app?pgbouncer=true&connection_limit=1&pool_timeout=9", "tls prefer pooled 2"),
            ("postgres://u@d/app?options=endpoint%3Dep-x", "tls prefer 0"),
            ("postgres://u@d/app?sslcert=me.pem", "refused"),
            ("postgres://u@d/app?sslmod=require", "refused"),
            ("postgres://u:hunter2@d:port/app", "refused"),
            ("postgres:///app?user=u", "refused"),
            ("postgres://d/app", "refused"),
            ("mysql://u:hunter2@d/app", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(told(url), expected, "{url}");
        }
    }

    #[test]
    fn a_pooler_of_neon_tells_its_database() {
        for (pooled, direct) in [
            (
                "postgres://u:p@ep-x-1-pooler.eu.neon.tech/app?sslmode=require",
                Some("postgres://u:p@ep-x-1.eu.neon.tech/app?sslmode=require"),
            ),
            ("postgres://u:p@a-pooler:5432", Some("postgres://u:p@a:5432")),
            ("postgres://u:x-pooler.y@ep-x-1.eu.neon.tech/app", None),
            ("postgres://u@ep-x.eu.neon.tech/a-pooler.b", None),
            ("postgres://u@bouncer:6432/app", None),
            ("", None),
        ] {
            assert_eq!(direct_of(pooled).as_deref(), direct, "{pooled}");
        }
    }
}
