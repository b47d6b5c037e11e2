//! Wrong project files, each a named case with the whole message. A case is a right project with some files replaced.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use catalog::Catalog;
use std::fs;
use std::path::Path;

/// A right project; cases replace its files.
const RIGHT: &[(&str, &str)] = &[
    ("topside.yaml", "default_agent: maya\n"),
    (
        "agents/maya.md",
        "---\nmodel: fast\ntools: [lookup]\nsandbox: {provider: local, manifest: desk}\n---\nYou are Maya.\n",
    ),
    ("models/main.yaml", "fast: {provider: openai-compatible, url: \"http://localhost:9/v1\", name: small}\n"),
    (
        "tools/lookup.yaml",
        "description: Looks an account up.\ninput_schema:\n  type: object\n  properties:\n    id: {type: string}\neffect: read\nrun:\n  sql: {database: a.db, query: \"select * from a where id = :id\"}\n",
    ),
    ("manifests/desk.yaml", "entries:\n  notes.txt: {type: file, content: hello}\n"),
    ("a.db", ""),
];

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Loads the right project with `files` replaced and compares all that is told.
fn check(name: &str, files: &[(&str, &str)], expected: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), RIGHT);
    write(root.path(), files);
    let told = match Catalog::load(root.path(), &|_| None) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(told, expected.join("\n"), "case `{name}`");
}

#[test]
fn the_right_project_is_right() {
    check("right", &[], &["nothing is wrong"]);
}

#[test]
fn agents() {
    agent(
        "unknown key",
        "---\nmodle: fast\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:2:1: `model` is missing; expected a name: 1 to 64 of a-z, 0-9, _ and -",
            "agents/maya.md:2:1: unknown key `modle`; expected one of `description`, `model`, `tools`, `sandbox`, `limits`, `artifacts`; hint: did you mean `model`?",
        ],
    );
    agent(
        "wrong type",
        "--- {model: fast, tools: lookup, limits: {turns: ten}} --- You are Maya.",
        &[
            "agents/maya.md:1:26: `tools` is the text `lookup`; expected a list, each value a name: 1 to 64 of a-z, 0-9, _ and -; hint: write [lookup]",
            "agents/maya.md:1:50: `limits.turns` is the text `ten`; expected a whole number from 1 to 10000",
        ],
    );
    agent(
        "bad limit",
        "---\nmodel: fast\nlimits:\n  turns: 0\n  running_seconds: 99999999999\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:4:10: `limits.turns` is the number 0; expected a whole number from 1 to 10000",
            "agents/maya.md:5:20: `limits.running_seconds` is the number 99999999999; expected a whole number from 1 to 31536000",
        ],
    );
    agent(
        "dangling model",
        "---\nmodel: fest\n---\nYou are Maya.\n",
        &["agents/maya.md:2:8: there is no model `fest`; expected one of `fast`; hint: did you mean `fast`?"],
    );
    agent(
        "dangling tool and manifest",
        "---\nmodel: fast\ntools: [lookup, draft]\nsandbox: {provider: local, manifest: dask}\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:3:17: there is no tool `draft`; expected one of `lookup`",
            "agents/maya.md:4:38: there is no manifest `dask`; expected one of `desk`; hint: did you mean `desk`?",
        ],
    );
    agent(
        "built-in tool",
        "---\nmodel: fast\ntools: [exec_command]\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:3:9: `exec_command` is a tool of the harness; expected a declared tool; hint: leave it out; `sandbox` and its capabilities bring it",
        ],
    );
}

fn agent(name: &str, text: &str, expected: &[&str]) {
    check(name, &[("agents/maya.md", text)], expected);
}

#[test]
fn agents_that_ask_for_too_much_or_say_too_little() {
    agent(
        "duplicate key and duplicate tool",
        "---\nmodel: fast\nmodel: fast\ntools: [lookup, lookup]\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:3:1: duplicate key `model`; it stands at 2:1 already",
            "agents/maya.md:4:17: `tools` names `lookup` twice",
        ],
    );
    agent(
        "unknown provider",
        "---\nmodel: fast\nsandbox: locla\n---\nYou are Maya.\n",
        &["agents/maya.md:3:10: `sandbox` is the text `locla`; expected `local`; hint: did you mean `local`?"],
    );
    agent(
        "unknown capability",
        "---\nmodel: fast\nsandbox: {provider: local, capabilities: [shel]}\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:3:43: `sandbox.capabilities[0]` is the text `shel`; expected one of `filesystem`, `shell`; hint: did you mean `shell`?",
        ],
    );
    agent(
        "artifact that escapes",
        "---\nmodel: fast\nsandbox: local\nartifacts: [../report.md]\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:4:13: the path `../report.md` is climbing with `..`; expected a relative path below the folder",
        ],
    );
    agent(
        "artifact without a sandbox",
        "---\nmodel: fast\nartifacts: [report.md]\n---\nYou are Maya.\n",
        &["agents/maya.md:3:12: artifacts come from a workspace; expected a sandbox; hint: add `sandbox: local`"],
    );
    agent(
        "no instructions",
        "---\nmodel: fast\n---\n\n",
        &["agents/maya.md:1:1: the instructions are missing; expected text; hint: write them below the front matter"],
    );
    agent(
        "front matter without end",
        "---\nmodel: fast\nYou are Maya.\n",
        &["agents/maya.md:1:1: the front matter does not end; hint: write a line of `---` before the instructions"],
    );
    agent(
        "cost without a price",
        "---\nmodel: fast\nlimits: {cost_micro_usd: 5000}\n---\nYou are Maya.\n",
        &[
            "agents/maya.md:3:26: a limit on cost needs the price of `small`, which is not listed; hint: list `small` in prices.yaml",
        ],
    );
}

#[test]
fn the_project() {
    check(
        "default agent that is not there",
        &[("topside.yaml", "default_agent: mya\n")],
        &["topside.yaml:1:16: there is no agent `mya`; expected one of `maya`; hint: did you mean `maya`?"],
    );
    check(
        "unknown word",
        &[("topside.yaml", "contents: plane\n")],
        &[
            "topside.yaml:1:11: `contents` is the text `plane`; expected one of `sealed`, `plain`; hint: did you mean `plain`?",
        ],
    );
    check(
        "unknown wall",
        &[("topside.yaml", "sandbox: {walls_optional: [landlok], limits: {memory_bytes_max: 1GiB}}\n")],
        &[
            "topside.yaml:1:28: `sandbox.walls_optional[0]` is the text `landlok`; expected one of `user_namespace`, `mount_namespace`, `pid_namespace`, `network_namespace`, `ipc_namespace`, `uts_namespace`, `cgroup_namespace`, `private_root`, `workspace_limit`, `capabilities`, `no_new_privileges`, `seccomp`, `landlock`, `memory_limit`, `process_limit`, `cpu_limit`, `io_limit`; hint: did you mean `landlock`?",
            "topside.yaml:1:65: `sandbox.limits.memory_bytes_max` is the text `1GiB`; expected a whole number from 16777216 to 1099511627776",
        ],
    );
    check(
        "a variable that the whole project needs",
        &[("topside.yaml", "default_agent: ${env.AGENT}\n")],
        &[
            "topside.yaml:1:16: the environment variable AGENT is not set; the whole project needs it; hint: set it, or write a default: ${env.AGENT:-default}",
        ],
    );
    check(
        "prices",
        &[("prices.yaml", "small: {input: 1.5, output: 1, cached: 1}\n")],
        &[
            "prices.yaml:1:16: `small.input` is the number 1.5; expected a whole number from 0 to 1000000000000",
            "prices.yaml:1:32: unknown key `cached`; expected one of `input`, `cached_input`, `output`",
        ],
    );
    check(
        "wrong policy",
        &[("policies/a.cedar", "// mine\npermit (principal, action == Action::\"reed\", resource);\n")],
        &["policies/a.cedar:2:1: for policy `policies/a.cedar#1`, unrecognized action `Action::\"reed\"`"],
    );
    check(
        "policies of one id",
        &[(
            "policies/a.cedar",
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);\n",
        )],
        &[
            "policies/a.cedar:2:1: the id `x` is taken by policies/a.cedar:1 x; hint: give each policy an @id of its own",
        ],
    );
    check(
        "ending that is not read",
        &[("tools/other.yml", "description: x\n")],
        &["tools/other.yml:1:1: the ending `.yml` is not read; expected `.yaml`; hint: rename it to `other.yaml`"],
    );
    check(
        "bad file name",
        &[("agents/Maya Two.md", "--- {model: fast} --- You are Maya.")],
        &[
            "agents/Maya Two.md:1:1: `Maya Two` is no name; expected a name: 1 to 64 of a-z, 0-9, _ and -; hint: did you mean `maya_two`?",
        ],
    );
}

#[test]
fn models() {
    model(
        "what an endpoint needs",
        "fast: {provider: openai-compatible}\nslow: {provider: openai, name: large}\n",
        &[
            "models/main.yaml:1:7: `name` is missing; an endpoint needs it",
            "models/main.yaml:1:7: `url` is missing; openai-compatible needs it",
            "models/main.yaml:2:7: `key` is missing; openai needs it",
        ],
    );
    model(
        "bad URL",
        "fast: {provider: openai-compatible, name: a, url: localhost:9}\n",
        &[
            "models/main.yaml:1:51: `localhost:9` is no URL that can be called: the scheme is `localhost`; expected http:// or https:// and a host",
        ],
    );
    model(
        "secrets are not repeated",
        "fast: {provider: openai-compatible, name: a, url: \"http://me:hunter2@h/\", key: \"hunter\\n2\", headers: {x: 12345}}\n",
        &[
            "models/main.yaml:1:80: `fast.key` is text of several lines, or too long; expected one line of text, at most 8192 bytes",
            "models/main.yaml:1:106: `fast.headers.x` is a number; expected one line of text, at most 8192 bytes; hint: quote it to make it text",
        ],
    );
    model(
        "password in a URL",
        "fast: {provider: openai-compatible, name: a, url: \"http://me:hunter2@h/\"}\n",
        &[
            "models/main.yaml:1:51: the text is no URL that can be called: it holds a user or a password; expected http:// or https:// and a host; hint: send them in a header, from ${secret.NAME}",
        ],
    );
    model(
        "secret in a URL",
        "fast: {provider: openai-compatible, name: a, url: \"http://h/${secret.KEY}\"}\n",
        &[
            "models/main.yaml:1:51: `fast.url` holds ${secret.KEY}; a URL is logged; expected it in `key`, `headers` or `query`",
        ],
    );
    model(
        "bad reference",
        "fast: {provider: openai-compatible, name: a, url: \"http://h/\", key: \"${KEY}\"}\n",
        &[
            "models/main.yaml:1:69: `fast.key`: `${KEY}` is no reference; expected ${env.NAME}, ${env.NAME:-default} or ${secret.NAME}",
        ],
    );
    model(
        "transcript that is not there",
        "fast: {provider: script, transcript: transcripts/maya.yaml, key: x}\n",
        &[
            "models/main.yaml:1:38: the transcript `transcripts/maya.yaml` can't be used: it is not there",
            "models/main.yaml:1:61: `key` has no meaning for a script; expected it to be left out",
        ],
    );
}

fn model(name: &str, text: &str, expected: &[&str]) {
    check(name, &[("models/main.yaml", text)], expected);
}

#[test]
fn models_that_name_one_another_and_transcripts() {
    check(
        "transcript that is none",
        &[
            (
                "models/main.yaml",
                "fast: {provider: script, transcript: a.yaml}\nslow: {provider: script, transcript: b.yaml}\n",
            ),
            ("a.yaml", "title: a\nsteps:\n- reply:\n  - text: one\n- replies: []\n"),
            ("b.yaml", "title: b\nsteps:\n- reply: [\n"),
        ],
        &[
            "a.yaml:5:3: step 2: unknown field `replies`, expected `expect` or `reply`",
            "b.yaml:4:1: not YAML: while parsing a node, did not find expected node content",
        ],
    );
    model(
        "fallbacks in a circle and nowhere",
        "fast: {provider: openai-compatible, name: a, url: \"http://h/\", fallback: slow}\nslow: {provider: openai-compatible, name: a, url: \"http://h/\", fallback: fast}\nlast: {provider: openai-compatible, name: a, url: \"http://h/\", fallback: fats}\n",
        &[
            "models/main.yaml:1:74: the fallbacks of `fast` lead in a circle or are more than 8",
            "models/main.yaml:2:74: the fallbacks of `slow` lead in a circle or are more than 8",
            "models/main.yaml:3:74: there is no model `fats`; expected one of `fast`, `last`, `slow`; hint: did you mean `fast`?",
        ],
    );
    model(
        "temperature",
        "fast: {provider: openai-compatible, name: a, url: \"http://h/\", temperature: 3.5, stream: 1}\n",
        &[
            "models/main.yaml:1:77: `fast.temperature` is the number 3.5; expected a number from 0 to 2 with at most three decimals",
            "models/main.yaml:1:90: `fast.stream` is the number 1; expected true or false",
        ],
    );
    check(
        "model declared twice",
        &[("models/other.yaml", "fast: {provider: openai-compatible, name: a, url: \"http://h/\"}\n")],
        &["models/other.yaml:1:1: the model `fast` is declared in models/main.yaml:1:1 already"],
    );
}

#[test]
fn tools() {
    let head = "description: Looks an account up.\ninput_schema: {type: object, properties: {id: {type: string}}}\n";
    let tool = |name, rest: &str, expected: &[&str]| {
        check(name, &[("tools/lookup.yaml", &format!("{head}{rest}"))], expected);
    };
    tool(
        "query with a parameter that the schema does not have",
        "effect: read\nrun: {sql: {database: a.db, query: \"select * from a where id = :ids\"}}\n",
        &[
            "tools/lookup.yaml:2:43: the argument `id` is never used by the query; hint: did you mean `ids`?",
            "tools/lookup.yaml:4:36: the query uses `ids`, which `input_schema` does not have; expected one of `id`; hint: did you mean `id`?",
        ],
    );
    tool(
        "query that writes under effect read, in two statements",
        "effect: read\nrun: {sql: {database: a.db, query: \"delete from a where id = :id; select 1\"}}\n",
        &[
            "tools/lookup.yaml:3:9: the effect is `read`, but the query begins with `delete`; hint: write `effect: write`",
            "tools/lookup.yaml:4:36: the query has several statements; expected one",
        ],
    );
    tool(
        "database that is not there",
        "effect: read\nrun: {sql: {database: b.db, query: \"select :id\"}}\n",
        &["tools/lookup.yaml:4:23: the database `b.db` can't be used: it is not there; hint: did you mean `a.db`?"],
    );
    tool(
        "database outside of the project",
        "effect: read\nrun: {sql: {database: /etc/a.db, query: \"select :id\"}}\n",
        &["tools/lookup.yaml:4:23: the path `/etc/a.db` is absolute; expected a relative path below the folder"],
    );
    tool(
        "two deeds",
        "effect: read\nrun: {sql: {database: a.db, query: \"select :id\"}, function: {}}\n",
        &["tools/lookup.yaml:4:6: `run` has 2 keys; expected one of `sql`, `command`, `http`, `function`, `agent`"],
    );
    tool(
        "unknown deed",
        "effect: read\nrun: {sqlite: {database: a.db}}\n",
        &["tools/lookup.yaml:4:7: unknown key `sqlite`; expected one of `sql`, `command`, `http`, `function`, `agent`"],
    );
    tool(
        "request that uses what is not there, and a GET with a body",
        "effect: read\nrun: {http: {url: \"https://example.com/{account}\", body: [id]}}\n",
        &[
            "tools/lookup.yaml:4:19: the request uses `account`, which `input_schema` does not have; expected one of `id`",
            "tools/lookup.yaml:4:58: a GET has no body; hint: write `method: POST`, or put the arguments into `url`",
        ],
    );
    tool(
        "contract keys that are not there",
        "effect: read\nundo: checkpoint\ntimeout_seconds: 0\nrun: {function: {}}\n",
        &[
            "tools/lookup.yaml:4:1: unknown key `undo`; expected one of `description`, `input_schema`, `effect`, `idempotency`, `repeat`, `preconditions`, `rollback`, `approval`, `retry`, `timeout_seconds`, `output_bytes_max`, `run`",
            "tools/lookup.yaml:5:18: `timeout_seconds` is the number 0; expected a whole number from 1 to 3600",
        ],
    );
    tool(
        "program that is not there",
        "effect: read\nrun: {command: {program: [./bin/score]}}\n",
        &["tools/lookup.yaml:4:27: the program `./bin/score` can't be used: it is not there"],
    );
    check(
        "a name that the harness uses",
        &[("tools/exec_command.yaml", &format!("{head}effect: read\nrun: {{function: {{}}}}\n"))],
        &[
            "tools/exec_command.yaml:1:1: a tool of the harness is called `exec_command`; hint: give the file another name",
        ],
    );
}

#[test]
fn input_schemas() {
    let schema = |name, schema: &str, expected: &[&str]| {
        let text = format!("description: x\ninput_schema:\n{schema}effect: read\nrun: {{function: {{}}}}\n");
        check(name, &[("tools/lookup.yaml", &text)], expected);
    };
    schema(
        "unknown type",
        "  type: object\n  properties:\n    id: {type: strng}\n",
        &[
            "tools/lookup.yaml:5:16: `input_schema.properties.id.type` is no JSON Schema: \"strng\" is not valid under any of the schemas listed in the 'anyOf' keyword",
        ],
    );
    schema(
        "no object",
        "  type: string\n",
        &["tools/lookup.yaml:3:9: `input_schema.type` must be there; expected `object`"],
    );
    schema(
        "reference out of the schema",
        "  type: object\n  properties:\n    id: {$ref: \"https://example.com/a.json\"}\n",
        &["tools/lookup.yaml:5:16: a `$ref` that leads out of the schema; expected one that begins with `#`"],
    );
    schema(
        "pattern that does not compile",
        "  type: object\n  properties:\n    id: {type: string, pattern: \"(\"}\n",
        &["tools/lookup.yaml:5:33: `input_schema.properties.id.pattern` is no JSON Schema: \"(\" is not a \"regex\""],
    );
}

#[test]
fn manifests() {
    let manifest = |name, text, expected: &[&str]| check(name, &[("manifests/desk.yaml", text)], expected);
    manifest(
        "secret in a sandbox",
        "environment:\n  TOKEN: ${secret.TOKEN}\n",
        &["manifests/desk.yaml:2:10: `environment.TOKEN` holds ${secret.TOKEN}; no secret enters a sandbox"],
    );
    manifest(
        "paths that escape, sources that are not there",
        "entries:\n  ../a: {type: file, content: x}\n  b: {type: local_dir, source: dta}\n  c: {type: local_dir, source: a.db}\n",
        &["manifests/desk.yaml:2:3: the path `../a` is climbing with `..`; expected a relative path below the folder"],
    );
    check(
        "sources that are not there",
        &[
            (
                "manifests/desk.yaml",
                "entries:\n  b: {type: local_dir, source: dta}\n  c: {type: local_dir, source: a.db}\n",
            ),
            ("data/x.csv", "1\n"),
        ],
        &[
            "manifests/desk.yaml:2:32: `dta` can't be used: it is not there; hint: did you mean `data`?",
            "manifests/desk.yaml:3:32: `a.db` is a file; expected a folder; hint: write `type: local_file`",
        ],
    );
    let keys = "access_key_id: \"${secret.A}\", secret_access_key: \"${secret.B}\"";
    for (name, entry, rule) in [
        (
            "a credential that is written out",
            "bucket: b, access_key_id: AKIA, secret_access_key: x".to_owned(),
            "plain_credential",
        ),
        ("a prefix that climbs", format!("bucket: b, prefix: ../x, {keys}"), "bad_bucket"),
        ("a bucket that is none", format!("bucket: a/b, {keys}"), "bad_bucket"),
    ] {
        let text = format!("entries:\n  data: {{type: s3_mount, {entry}}}\n");
        let expected = format!("manifests/desk.yaml:1:1: the manifest was refused at `data`: {rule}");
        check(name, &[("manifests/desk.yaml", text.as_str())], &[expected.as_str()]);
    }
    manifest(
        "a group that nobody declared",
        "entries:\n  a: {type: file, content: x, group: staff}\n",
        &["manifests/desk.yaml:1:1: the manifest was refused at `a`: unknown_name"],
    );
    manifest(
        "unknown type of entry, and none",
        "entries:\n  a: {type: fil, content: x}\n  b: {content: x}\n",
        &[
            "manifests/desk.yaml:2:13: `entries.a.type` is the text `fil`; expected one of `file`, `dir`, `local_file`, `local_dir`, `s3_mount`, `r2_mount`; hint: did you mean `file`?",
            "manifests/desk.yaml:3:6: `entries.b.type` is missing; expected one of `file`, `dir`, `local_file`, `local_dir`, `s3_mount`, `r2_mount`",
        ],
    );
    manifest(
        "one path twice, and a file with something below it",
        "entries:\n  a: {type: file, content: x}\n  ./a: {type: file, content: y}\n  a/b: {type: file, content: z}\n",
        &[
            "manifests/desk.yaml:3:3: the path `a` stands at 2:3 already",
            "manifests/desk.yaml:4:3: `a/b` stands below `a`, which is a file (3:3)",
        ],
    );
    manifest(
        "mode",
        "entries:\n  a: {type: file, content: x, mode: 4755}\n",
        &[
            "manifests/desk.yaml:2:37: `entries.a.mode` is the number 4755; expected permission bits in octal, such as 0644",
        ],
    );
}

#[test]
fn yaml_hazards() {
    let yaml = |name, text, expected: &[&str]| check(name, &[("topside.yaml", text)], expected);
    yaml(
        "tab",
        "sandbox:\n\tlimits: {}\n",
        &[
            "topside.yaml:2:2: not YAML: tabs disallowed within this context (block indentation); hint: indent with spaces",
        ],
    );
    yaml(
        "open brace",
        "sandbox: {\n",
        &["topside.yaml:2:1: not YAML: while parsing a node, did not find expected node content"],
    );
    yaml(
        "anchors",
        "a: &a [x, x]\nb: [*a, *a]\n",
        &[
            "topside.yaml:1:7: an anchor or alias (`&`, `*`); expected every value to be written out; hint: quote a text that begins with & or *",
        ],
    );
    yaml(
        "no map",
        "- a\n",
        &[
            "topside.yaml:1:1: the file is a list; expected a map with `default_agent`, `contents`, `sandbox`, `concurrency`, `retries`, `breaker`, `webhooks`, `retention`, `database`, `worker`",
        ],
    );
}

#[test]
fn files_that_are_no_declarations() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), RIGHT);
    let told = || Catalog::load(root.path(), &|_| None).unwrap_err().to_string();
    let config = root.path().join("topside.yaml");

    fs::write(&config, b"default_agent: maya\n# caf\xe9\n").unwrap();
    assert_eq!(told(), "topside.yaml:2:6: not UTF-8; hint: save it as UTF-8");
    fs::write(&config, "#".repeat((1 << 20) + 1)).unwrap();
    assert_eq!(told(), "topside.yaml:1:1: the file is too large; expected at most 1048576 bytes");
    fs::remove_file(&config).unwrap();
    fs::write(root.path().join("topside.yml"), "").unwrap();
    assert_eq!(
        told(),
        "topside.yaml:1:1: no such file; expected it in the folder of every project; hint: did you mean `topside.yml`?"
    );
    std::os::unix::fs::symlink("/etc/hostname", &config).unwrap();
    assert_eq!(told(), "topside.yaml:1:1: a link that leads out of the project");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    assert_eq!(told(), "topside.yaml:1:1: no regular file");
    fs::remove_dir(&config).unwrap();
    fs::write(&config, "\u{feff}default_agent: maya\n").unwrap();
    assert!(Catalog::load(root.path(), &|_| None).is_ok());

    let nowhere = Catalog::load(&root.path().join("nowhere"), &|_| None).unwrap_err();
    assert_eq!((nowhere.count(), nowhere.code()), (1, "project_file"));
}

#[test]
fn roots() {
    let on = |name: &str, root: &str, expected: &[&str]| {
        let text = format!("---\nmodel: fast\nsandbox:\n  provider: local\n  root: {root}\n---\nYou are Maya.\n");
        check(name, &[("agents/maya.md", &text)], expected);
    };
    let right = &["nothing is wrong"];
    on("host", "host", right);
    on("directory", "{directory: /srv/bookworm}", right);
    on("image", "{image: images/python.tar}", right);
    on(
        "two at once",
        "{image: a.tar, directory: b}",
        &["agents/maya.md:5:9: `sandbox.root` has 2 keys; expected one of directory, image, template"],
    );
    on(
        "no such template",
        "{template: python}",
        &["agents/maya.md:5:9: there is no template `python`; none is declared"],
    );
    let templates = |name: &str, templates: &str, expected: &[&str]| {
        let text = format!("default_agent: maya\nsandbox:\n  templates:\n{templates}");
        check(name, &[("topside.yaml", &text)], expected);
    };
    templates(
        "right",
        "    a: {base: {image: a.tar}, steps: [\"true\"]}\n    b: {base: {template: a}, steps: [\"true\"]}\n",
        right,
    );
    templates(
        "a circle",
        "    a: {base: {template: b}, steps: [\"true\"]}\n    b: {base: {template: a}, steps: [\"true\"]}\n",
        &[
            "topside.yaml:4:15: the templates below `b` lead in a circle or are more than 8",
            "topside.yaml:5:15: the templates below `a` lead in a circle or are more than 8",
        ],
    );
    templates(
        "nothing under it",
        "    a: {base: {template: c}, steps: [\"true\"]}\n",
        &["topside.yaml:4:15: there is no template `c`; expected one of `a`; hint: did you mean `a`?"],
    );
}
