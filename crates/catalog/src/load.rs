//! Reads a project's files one kind after another and collects everything that is wrong. What the declarations say of
//! each other is `link`'s.

use crate::folder::{DECLARATION_BYTES_MAX, Folder};
use crate::link;
use crate::problem::{Problem, Problems, Rule, shown};
use crate::project::{Declared, Project, as_map};
use crate::shape::{Check, Environment, Missing, Shape};
use crate::yaml::{self, Node, Place, Value};
use crate::{Catalog, Kind, agents, front, manifests, models, project, tools};
use domain::usage::Price;
use sandbox::Manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Everything that was declared, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) project: Project,
    pub(crate) agents: BTreeMap<String, Declared<agents::Drafted>>,
    pub(crate) models: BTreeMap<String, Declared<models::Drafted>>,
    pub(crate) tools: BTreeMap<String, Declared<tools::Drafted>>,
    pub(crate) manifests: BTreeMap<String, Declared<Manifest>>,
    pub(crate) prices: BTreeMap<String, Price>,
    pub(crate) policies: Vec<policy::Source>,
}

/// What a load gave, and every path that it looked at, so that a change of one of them can be seen.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) result: Result<Catalog, Problems>,
    pub(crate) touched: BTreeSet<String>,
}

pub(crate) fn load(root: &Path, environment: Environment<'_>) -> Loaded {
    let folder = match Folder::open(root) {
        Ok(folder) => folder,
        Err(problem) => {
            return Loaded { result: Err(Problems::one(problem)), touched: BTreeSet::new() };
        }
    };
    let mut reader = Reader { folder, environment, problems: Vec::new() };
    let draft = reader.draft();
    let Reader { folder, problems, .. } = reader;
    let result = link::link(draft, &folder, problems);
    Loaded { result, touched: folder.touched() }
}

struct Reader<'a> {
    folder: Folder,
    environment: Environment<'a>,
    problems: Vec<Problem>,
}

/// A declaration of a file of its own.
struct One<'a> {
    name: &'a str,
    node: Node,
    body: &'a str,
}

impl Reader<'_> {
    fn draft(&mut self) -> Draft {
        let mut draft = Draft::default();
        self.project(&mut draft);
        self.models(&mut draft);
        self.each(Kind::Tool, &mut draft.tools, |one, check, folder| {
            if tools::BUILT_IN.contains(&one.name) {
                let message = format!("a tool of the harness is called `{}`", one.name);
                check.wrong(Rule::Duplicate, Place::START, message, Some("give the file another name".to_owned()));
            }
            tools::tool(one.name, &one.node, check, folder)
        });
        self.each(Kind::Manifest, &mut draft.manifests, |one, check, folder| {
            Some(manifests::manifest(&one.node, check, folder))
        });
        self.each(Kind::Agent, &mut draft.agents, |one, check, _| {
            Some(agents::agent(one.name, &one.node, one.body, check))
        });
        self.policies(&mut draft);
        draft
    }

    /// Reads and parses a file; the document, or nothing when that failed.
    fn parse(&mut self, file: &str, text: &str) -> Option<Node> {
        match yaml::parse(file, text) {
            Ok((node, problems)) => {
                self.problems.extend(problems);
                Some(as_map(node))
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn read(&mut self, file: &str) -> Option<String> {
        match self.folder.read(file, DECLARATION_BYTES_MAX) {
            Ok(text) => Some(text),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// Checks a whole file and decodes it when nothing is wrong. The whole project needs what these files need, so a variable that is
    /// not set is a problem here, unless the decoder sees to it.
    fn single<T>(&mut self, kind: Kind, decode: impl Fn(&Node, &mut Check<'_>) -> T) -> Option<T> {
        let file = kind.place();
        let text = self.read(file)?;
        let mut node = self.parse(file, &text)?;
        let mut check = Check::new(file, self.environment);
        check.check(&mut node, kind.shape(), "");
        let value = check.problems.is_empty().then(|| decode(&node, &mut check));
        for Missing { variable, at } in check.missing {
            self.problems.push(Problem {
                rule: Rule::Dangling,
                file: file.to_owned(),
                line: at.line,
                column: at.column,
                message: format!("the environment variable {variable} is not set; the whole project needs it"),
                hint: Some(format!("set it, or write a default: ${{env.{variable}:-default}}")),
            });
        }
        self.problems.append(&mut check.problems);
        value
    }

    fn project(&mut self, draft: &mut Draft) {
        if self.folder.exists(Kind::Project.place()) {
            if let Some(project) = self.single(Kind::Project, project::project) {
                draft.project = project;
            }
        } else {
            let hint = self.folder.similar("topside.yaml").unwrap_or_else(|| {
                "name the folder that holds topside.yaml, or begin a project with `topside new`".to_owned()
            });
            let message = "no such file; expected it in the folder of every project".to_owned();
            self.problems.push(crate::folder::problem("topside.yaml", message, Some(hint)));
        }
        if self.folder.exists(Kind::Prices.place())
            && let Some(prices) = self.single(Kind::Prices, |node, _| project::prices(node))
        {
            draft.prices = prices;
        }
    }

    /// Every file of a kind that has one declaration to a file, which has the file's name.
    fn each<T>(
        &mut self,
        kind: Kind,
        into: &mut BTreeMap<String, Declared<T>>,
        decode: impl Fn(&One<'_>, &mut Check<'_>, &mut Folder) -> Option<T>,
    ) {
        let (folder, ending) = kind.place().split_once("/*.").unwrap_or_default();
        for (name, file) in self.folder.list(folder, ending, &mut self.problems) {
            let declared = self.one(kind, &name, &file, &decode);
            into.insert(name, declared);
        }
    }

    fn one<T>(
        &mut self,
        kind: Kind,
        name: &str,
        file: &str,
        decode: impl Fn(&One<'_>, &mut Check<'_>, &mut Folder) -> Option<T>,
    ) -> Declared<T> {
        let mut declared = Declared { value: None, missing: Vec::new(), file: file.to_owned(), at: Place::START };
        let Some(text) = self.read(file) else { return declared };
        let parts =
            if kind == Kind::Agent { front::cut(file, &text) } else { Ok(front::Parts { front: &text, body: "" }) };
        let front::Parts { front, body } = match parts {
            Ok(parts) => parts,
            Err(problem) => {
                self.problems.push(problem);
                return declared;
            }
        };
        let Some(node) = self.parse(file, front) else { return declared };
        declared.at = node.at;
        let mut check = Check::new(file, self.environment);
        check.name(name, Place::START);
        let mut one = One { name, node, body };
        check.check(&mut one.node, kind.shape(), "");
        // What is not right by its shape, or not known, can't be asked whether its parts fit each other.
        if check.is_whole() {
            declared.value = decode(&one, &mut check, &mut self.folder);
        }
        self.problems.append(&mut check.problems);
        declared.missing = check.missing;
        declared
    }

    fn models(&mut self, draft: &mut Draft) {
        let Shape::Map { of, .. } = Kind::Model.shape() else { return };
        for (_, file) in self.folder.list("models", "yaml", &mut self.problems) {
            let Some(text) = self.read(&file) else { continue };
            let Some(mut node) = self.parse(&file, &text) else { continue };
            let Value::Map(entries) = &mut node.value else {
                let mut check = Check::new(&file, self.environment);
                check.check(&mut node, Kind::Model.shape(), "");
                self.problems.append(&mut check.problems);
                continue;
            };
            for yaml::Entry { at, key, node } in entries {
                let mut check = Check::new(&file, self.environment);
                check.name(key, *at);
                check.check(node, of, key);
                let mut value = None;
                if check.is_whole() {
                    value = models::model(key, node, &mut check, &mut self.folder);
                }
                if let Some(Declared { file, at: Place { line, column }, .. }) = draft.models.get(key) {
                    let message = format!("the model `{}` is declared in {file}:{line}:{column} already", shown(key));
                    check.wrong(Rule::Duplicate, *at, message, None);
                }
                self.problems.append(&mut check.problems);
                let declared = Declared { value, missing: check.missing, file: file.clone(), at: *at };
                draft.models.entry(key.clone()).or_insert(declared);
            }
        }
    }

    fn policies(&mut self, draft: &mut Draft) {
        for (_, file) in self.folder.list("policies", "cedar", &mut self.problems) {
            if let Some(text) = self.read(&file) {
                draft.policies.push(policy::Source { file, text });
            }
        }
    }
}
