//! The pages lead somewhere: relative links of the markdown files, anchors in them, and the files, examples and packages that they
//! name. Links by path of the guide's pages are rustdoc's to check, and what lies elsewhere is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What a page says that can be wrong.
#[derive(Default)]
struct Page {
    links: Vec<String>,
    /// Code, in text and in blocks.
    code: Vec<String>,
    /// Of the headings.
    anchors: BTreeSet<String>,
}

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).expect("the project")
}

/// All files, by their path from the root.
fn files(dir: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "target" && name != ".git" {
                files(&path, all);
            }
        } else {
            all.insert(path.strip_prefix(root()).expect("below the root").to_owned());
        }
    }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn read(text: &str) -> Page {
    let mut page = Page::default();
    let (mut heading, mut block) = (None::<String>, false);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                page.anchors.extend(heading.take().map(|heading| anchor(&heading)));
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::CodeBlock(_)) => block = true,
            Event::End(TagEnd::CodeBlock) => block = false,
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&code);
                }
                page.code.push(code.into_string());
            }
            Event::Text(text) if block => page.code.push(text.into_string()),
            Event::Text(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

fn pages() -> (BTreeSet<PathBuf>, BTreeMap<PathBuf, Page>) {
    let mut all = BTreeSet::new();
    files(&root(), &mut all);
    let markdown = all.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages =
        markdown.map(|path| (path.clone(), read(&fs::read_to_string(root().join(path)).expect("text"))));
    let pages = pages.collect();
    (all, pages)
}

/// `a/b/../c` without the dots.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => assert!(tidy.pop(), "{path:?} leaves the project"),
            std::path::Component::CurDir => {}
            part => tidy.push(part),
        }
    }
    tidy
}

#[test]
fn every_relative_link_of_a_page_leads_to_a_file_and_every_anchor_to_a_heading() {
    let (all, pages) = pages();
    let mut followed = 0;
    for (path, page) in &pages {
        for link in &page.links {
            if link.contains("://") || link.contains("::") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((&link[..], None), |(f, h)| (f, Some(h)));
            let target = match file {
                "" => path.clone(),
                file => tidy(&path.parent().expect("a file").join(file)),
            };
            let exists = all.contains(&target) || all.iter().any(|file| file.starts_with(&target));
            assert!(exists, "{path:?} links to {link}, which is not there");
            if let Some(heading) = heading {
                let page = pages.get(&target).unwrap_or_else(|| panic!("{path:?}: {link} is no page"));
                assert!(page.anchors.contains(heading), "{path:?}: {link} has no such heading");
            }
            followed += 1;
        }
    }
    assert!(followed > 0);
}

#[test]
fn every_source_file_that_a_page_names_exists() {
    let (all, pages) = pages();
    let mut named = 0;
    for (path, page) in &pages {
        for code in &page.code {
            let is_path =
                code.contains('/') && !code.contains(|c: char| c.is_whitespace() || c == '<' || c == '*');
            let is_source = [".rs", ".md", ".toml", ".h", ".c"].iter().any(|end| code.ends_with(end));
            if is_path && is_source {
                assert!(
                    all.iter().any(|file| file.ends_with(code)),
                    "{path:?} names {code}, which is not there"
                );
                named += 1;
            }
        }
    }
    assert!(named > 0);
}

#[test]
fn every_example_and_package_in_a_command_of_a_page_exists() {
    let (all, pages) = pages();
    let manifests = all.iter().filter(|path| path.ends_with("Cargo.toml"));
    let manifests: String =
        manifests.map(|path| fs::read_to_string(root().join(path)).expect("text")).collect();
    let mut named = 0;
    for (path, page) in &pages {
        for command in page.code.iter().flat_map(|code| code.lines()) {
            let words: Vec<&str> = command.split_whitespace().collect();
            for pair in words.windows(2) {
                if matches!(pair[0], "--example" | "-p" | "--test") && words.contains(&"cargo") {
                    let name = format!("name = \"{}\"", pair[1]);
                    let file = |path: &&PathBuf| {
                        let stem = path.file_stem().is_some_and(|stem| stem == pair[1]);
                        stem || path.ends_with(format!("tests/{}/main.rs", pair[1]))
                    };
                    let found = manifests.contains(&name) || all.iter().find(file).is_some();
                    assert!(found, "{path:?}: `{command}` names {}, which is not there", pair[1]);
                    named += 1;
                }
            }
        }
    }
    assert!(named > 0);
}
