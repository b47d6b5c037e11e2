//! The reference page of a project's files, made from the same shapes that files are checked against.

use crate::Kind;
use crate::shape::{Field, Need, Object, Shape, expected};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What stands before the kinds.
const HEAD: &str = include_str!("reference/head.md");

/// The page `docs/reference/project.md`, in Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for kind in Kind::ALL {
        let _ = write!(page, "\n## `{}`\n\n{}\n", kind.place(), kind.about());
        let mut writer = Writer { page: &mut page, told: BTreeSet::new(), open: Vec::new() };
        match kind.shape() {
            Shape::Map { of: Shape::Object(object), keys, .. } => {
                let _ = write!(writer.page, "\nA map; each key is {}, each value:\n", keys.expected());
                writer.fields(object.fields);
            }
            Shape::Object(object) => writer.fields(object.fields),
            _ => {}
        }
        writer.rest();
    }
    page
}

struct Writer<'a> {
    page: &'a mut String,
    told: BTreeSet<&'static str>,
    open: Vec<(String, &'static Object)>,
}

impl Writer<'_> {
    fn fields(&mut self, fields: &'static [Field]) {
        if fields.is_empty() {
            self.page.push_str("\nNo keys.\n");
            return;
        }
        self.page.push_str("\n| key | value | default |\n|---|---|---|\n");
        for field in fields {
            let default = match field.need {
                Need::Required => "**required**".to_owned(),
                Need::Unless { key, choice } => format!("**required** unless `{key}` is `{choice}`"),
                Need::Optional(default) => default.to_owned(),
            };
            let value = self.value(field.key, &field.shape);
            let told = format!("{} {value}", field.about);
            let _ = writeln!(self.page, "| `{}` | {} | {default} |", field.key, told.trim_end());
        }
    }

    /// What a value is, in words; objects are told below.
    fn value(&mut self, key: &str, shape: &'static Shape) -> String {
        match shape {
            Shape::OneOf(words) => {
                let told: Vec<String> = words.iter().map(|(word, about)| format!("`{word}` ({about})")).collect();
                format!("One of: {}.", told.join(", "))
            }
            Shape::List { of: Shape::OneOf(words), .. } => {
                let told: Vec<String> = words.iter().map(|(word, about)| format!("`{word}` ({about})")).collect();
                format!("A list of: {}.", told.join(", "))
            }
            Shape::List { of: Shape::Name | Shape::Path, .. } => String::new(),
            Shape::Object(object) | Shape::Map { of: Shape::Object(object), .. } => self.later(key, object),
            Shape::List { of: Shape::Object(object), .. } => {
                self.later(key, object);
                "A list of maps, below.".to_owned()
            }
            Shape::Either { short, long } => {
                let told = self.later(key, long);
                match short {
                    Shape::OneOf([_, _, ..]) => {
                        format!("{told} Or one of {}", self.value(key, short).replacen("One of: ", "", 1))
                    }
                    _ => format!("{told} Or {}.", expected(short)),
                }
            }
            Shape::Map { of: Shape::Tagged(objects), .. } => {
                for object in *objects {
                    self.later(&format!("type: {}", object.name), object);
                }
                let names: Vec<String> = objects.iter().map(|object| format!("`{}`", object.name)).collect();
                format!("A map of entries; the key `type` of each is one of {}.", names.join(", "))
            }
            Shape::Choice(fields) => {
                let mut told = Vec::new();
                for field in *fields {
                    if let Shape::Object(object) = &field.shape {
                        self.later(&format!("{key}: {}", field.key), object);
                    }
                    told.push(format!("`{}` ({})", field.key, lowered(field.about)));
                }
                format!("One of: {}.", told.join("; "))
            }
            Shape::Text { .. } | Shape::Name | Shape::Path | Shape::Mode | Shape::JsonSchema | Shape::Values => {
                String::new()
            }
            _ => {
                let mut told = expected(shape);
                if let Some(first) = told.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                format!("{told}.")
            }
        }
    }

    fn later(&mut self, key: &str, object: &'static Object) -> String {
        if self.told.insert(object.name) {
            self.open.push((key.to_owned(), object));
        } else if let Some((keys, _)) =
            self.open.iter_mut().find(|(keys, open)| open.name == object.name && keys != key)
        {
            *keys = format!("{keys}`, `{key}");
        }
        "A map, below.".to_owned()
    }

    fn rest(&mut self) {
        let mut at = 0;
        while let Some((key, object)) = self.open.get(at).map(|(key, object)| (key.clone(), *object)) {
            let _ = write!(self.page, "\n### `{key}`\n\n{}\n", object.about);
            self.fields(object.fields);
            at += 1;
        }
    }
}

fn lowered(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
