//! Where secrets come from: `secrets.yaml` of the data directory, and variables of the environment that begin with
//! `TOPSIDE_SECRET_`, which win. Their values are nowhere else; what leases them is `vault`.

use crate::{Data, Environment, Error, yaml};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use vault::Secrets;

const PREFIX: &str = "TOPSIDE_SECRET_";

pub(crate) fn read(data: &Data, environment: &Environment) -> Result<Secrets, Error> {
    let path = data.secrets();
    if let Ok(about) = path.metadata()
        && about.mode() & 0o077 != 0
    {
        return Err(Error::Exposed { path, mode: about.mode() & 0o7777 });
    }
    let file: Option<serde_json::Value> = yaml::read(&path)?;
    let wrong = |reason: String| Error::File { path: path.clone(), reason };
    let mut values = BTreeMap::new();
    match file {
        None | Some(serde_json::Value::Null) => {}
        Some(serde_json::Value::Object(map)) => {
            for (name, value) in map {
                let serde_json::Value::String(value) = value else {
                    return Err(wrong(format!("`{name}` is no text; hint: put it in quotes")));
                };
                if !is_name(&name) {
                    return Err(wrong(format!("`{name}` is no name; expected letters, digits and `_`")));
                }
                values.insert(name, value);
            }
        }
        Some(_) => return Err(wrong("expected `NAME: value` on each line".into())),
    }
    for (name, value) in environment.iter() {
        if let Some(name) = name.strip_prefix(PREFIX).filter(|name| is_name(name)) {
            values.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(Secrets::new(values))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    fn check(file: &str, mode: u32, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::at(directory.path());
        write(data.secrets(), file).unwrap();
        set_permissions(data.secrets(), Permissions::from_mode(mode)).unwrap();
        let environment = [("TOPSIDE_SECRET_B", "from the environment"), ("TOPSIDE_SECRET_", "x"), ("B", "no")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let got = match read(&data, &environment) {
            Ok(secrets) => secrets
                .names()
                .iter()
                .map(|name| format!("{name}={}", secrets.lease(name).unwrap().expose()))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(got, expected, "{file}");
    }

    #[test]
    fn secrets_come_from_the_file_and_the_environment() {
        check("", 0o600, "B=from the environment");
        check("A: one\nB: two\n", 0o600, "A=one B=from the environment");
        check("A: one\n", 0o640, "data_file_exposed");
        check("A: 1\n", 0o600, "data_file_unusable");
        check("a-b: one\n", 0o600, "data_file_unusable");
        check("[1]\n", 0o600, "data_file_unusable");
    }
}
