//! Reads the crate's source and says which atomic access is there for which edge of `src/protocol.rs`.
//!
//! It is a reader of lines, not of Rust: an access is a line of code that names an ordering, and its edge is named by the
//! nearest comment above it in the same function, or by that function's own.

use crate::reasons::{HELD_OTHERWISE, RELAXED};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The orderings that order something.
const ORDERING: [&str; 5] = ["Acquire", "Release", "AcqRel", "SeqCst", "__ATOMIC_ACQUIRE"];

/// Those that order nothing: Rust's, and that of the code the LLVM backend makes.
const RELAXED_ORDERING: [&str; 2] = ["Relaxed", "Monotonic"];

/// Where atomics are. C that others compile is among them: what the C header inlines.
const ROOTS: [&str; 6] = [
    "src",
    "backends/arena/src",
    "backends/capi/src",
    "backends/cranelift/src",
    "backends/llvm/src",
    "backends/object/src",
];

/// An atomic access.
#[derive(Clone, Debug)]
pub struct Access {
    /// Relative to the repository.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// The function it is in.
    pub function: String,
    /// The operation and its orderings.
    pub what: String,
    /// The how many-th that looks the same in its function, from 1.
    pub number: usize,
    /// The edges its comment names.
    pub edges: Vec<String>,
    /// The mutant that breaks it.
    pub mutant: Option<String>,
}

impl Access {
    /// Whether it lets others see what came before.
    pub fn releases(&self) -> bool {
        ["Release", "AcqRel", "SeqCst"].iter().any(|ordering| self.what.contains(ordering))
    }

    /// Whether it sees what came before others' accesses.
    pub fn acquires(&self) -> bool {
        ["Acquire", "AcqRel", "SeqCst", "ACQUIRE"].iter().any(|ordering| self.what.contains(ordering))
    }

    /// Names it without its line, which moves: by its function, and by its number among those there that look the same.
    pub fn key(&self) -> String {
        let number = if self.number > 1 { format!(" ({})", self.number) } else { String::new() };
        format!("{} {}: {}{number}", self.file, self.function, self.what)
    }
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Every source file, relative to the repository, with its text up to its tests.
///
/// # Panics
/// If a file cannot be read.
pub fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|ext| ext == "rs" || ext == "h")
                && !path.ends_with("tests.rs")
            {
                into.push(path);
            }
        }
    }
    let (root, mut files) = (root(), Vec::new());
    ROOTS.iter().for_each(|dir| walk(&root.join(dir), &mut files));
    files.sort();
    let read = |file: &PathBuf| {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let end = text.find("\nmod tests {").unwrap_or(text.len());
        let name = file.strip_prefix(&root).unwrap_or(file).display().to_string().replace('\\', "/");
        (name, text[..end].to_string())
    };
    files.iter().map(read).filter(|(name, _)| name != "src/mutant.rs").collect()
}

/// The edges that `src/protocol.rs` has a heading for.
///
/// # Panics
/// If it cannot be read.
pub fn edges() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("src/protocol.rs")).expect("the protocol");
    let (_, after) = text.split_once("//! # Edges").expect("a chapter of edges");
    after.lines().filter_map(|line| line.strip_prefix("//! ## ")).map(str::to_string).collect()
}

/// The rules that the modules state of themselves (`* **S1 (…)**`), with their files.
pub fn rules() -> Vec<(String, String)> {
    let mut rules = Vec::new();
    for (file, text) in sources() {
        let stated = text.lines().filter_map(|line| line.strip_prefix("//! * **"));
        let names = stated.filter_map(|rest| rest.split([' ', '*']).next());
        let is_rule = |name: &&str| {
            name.len() > 1
                && name.starts_with(|c: char| c.is_ascii_uppercase())
                && name[1..].parse::<u8>().is_ok()
        };
        rules.extend(names.filter(is_rule).map(|name| (name.to_string(), file.clone())));
    }
    rules
}

/// The models, by module and name.
///
/// # Panics
/// If they cannot be read.
pub fn models() -> Vec<String> {
    let dir = root().join("loom-tests/tests/models");
    let mut models = Vec::new();
    for path in std::fs::read_dir(&dir).expect("the models").map(|entry| entry.unwrap().path()) {
        let module = path.file_stem().unwrap_or_default().display().to_string();
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines: Vec<_> = text.lines().collect();
        let tests = lines.windows(2).filter(|two| two[0] == "#[test]").filter_map(|two| function(two[1]));
        models.extend(tests.map(|name| format!("{module}::{name}")));
    }
    models.sort();
    models
}

/// The names of all mutants in the source.
pub fn mutants() -> Vec<String> {
    let mut names = Vec::new();
    for (_, text) in sources() {
        names.extend(
            text.split("mutant!(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_string),
        );
    }
    names.sort();
    names.dedup();
    names
}

/// Every access that orders something, in the order of the source.
pub fn accesses() -> Vec<Access> {
    sources().iter().flat_map(|(file, text)| in_file(file, text, &ORDERING)).collect()
}

/// Every Relaxed access.
pub fn relaxed() -> Vec<Access> {
    sources().iter().flat_map(|(file, text)| in_file(file, text, &RELAXED_ORDERING)).collect()
}

fn in_file(file: &str, text: &str, orderings: &[&str]) -> Vec<Access> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, &line) in lines.iter().enumerate() {
        if is_comment(line) || line.starts_with("use ") || line.starts_with("pub(crate) use ") {
            continue;
        }
        let code = line.split(" // ").next().unwrap_or(line);
        let found_here: Vec<_> = words(code).filter(|word| orderings.contains(word)).collect();
        if found_here.is_empty() {
            continue;
        }
        let start = (0..=at).rev().find(|&at| function(lines[at]).is_some());
        let name = start.and_then(|at| function(lines[at])).unwrap_or("").to_string();
        let what = format!("{} {}", operation(&lines, at), found_here.join("/"));
        let before = found.iter().filter(|other: &&Access| (&other.function, &other.what) == (&name, &what));
        let number = before.count() + 1;
        found.push(Access {
            file: file.to_string(),
            line: at + 1,
            function: name,
            what,
            number,
            edges: named_edges(&lines, start.unwrap_or(0), at),
            mutant: code
                .split("mutant!(\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .map(str::to_string),
        });
    }
    found
}

fn is_comment(line: &str) -> bool {
    line.starts_with("//") || line.starts_with("/*")
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let declared = line.split("fn ").next()?;
    let plain = declared.split_whitespace().all(|word| {
        ["pub", "const", "unsafe", "async", "extern", "\"C\""].contains(&word) || word.starts_with("pub(")
    });
    let rest = line.strip_prefix(declared)?.strip_prefix("fn ")?;
    plain.then(|| rest.split(['(', '<']).next()).flatten().filter(|_| !is_comment(line))
}

/// What is done, and to which cell: the last call before the ordering, over a line's end if need be.
fn operation(lines: &[&str], at: usize) -> String {
    const CALLS: [&str; 14] = [
        "load(",
        "store(",
        "swap(",
        "compare_exchange(",
        "fetch_add(",
        "fetch_sub(",
        "fetch_or(",
        "fetch_and(",
        "fetch_update(",
        "fence(",
        "at(",
        "set_atomic_ordering(",
        "__atomic_load_n(",
        "Atomic",
    ];
    for from in (at.saturating_sub(3)..=at).rev() {
        let text = lines[from..=at].concat();
        for call in CALLS {
            let Some(end) = text.find(&format!(".{call}")).map(|dot| dot + 1).or_else(|| text.find(call))
            else {
                continue;
            };
            let cell = cell(&text[..end]);
            let call = call.trim_end_matches('(');
            return if cell.is_empty() { call.to_string() } else { format!("{cell}.{call}") };
        }
    }
    "?".to_string()
}

/// The last name before a call that is not `get(…)` or a tuple's field.
fn cell(before: &str) -> String {
    let (mut name, mut depth) = (String::new(), 0);
    for c in before.trim_end_matches('.').chars().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth > 0 => {
                depth -= 1;
                // What stands before it is the name of a call.
                name = "(".to_string();
            }
            _ if depth > 0 => (),
            '.' if name == "get(" || name.chars().all(|c| c.is_ascii_digit()) => name.clear(),
            '.' if !name.is_empty() => break,
            c if c.is_alphanumeric() || c == '_' => name.insert(0, c),
            _ => break,
        }
        if name.ends_with('(') && name.len() > 1 && c == '.' {
            name.clear();
        }
    }
    if name == "self" { String::new() } else { name.trim_end_matches('(').to_string() }
}

/// The edges named by the nearest comment above a line that names any, no further up than the function's own comment.
fn named_edges(lines: &[&str], start: usize, at: usize) -> Vec<String> {
    let mut at = at;
    while at > 0 {
        at -= 1;
        if !is_comment(lines[at]) {
            if at < start && !lines[at].starts_with('#') {
                break;
            }
            continue;
        }
        let first = (0..=at).rev().take_while(|&line| is_comment(lines[line])).last().unwrap_or(at);
        let text: Vec<_> = lines[first..=at].iter().map(|line| line.trim_start_matches('/').trim()).collect();
        let edges = edges_in(&text.join(" "));
        if !edges.is_empty() || at < start {
            return edges;
        }
        at = first;
    }
    Vec::new()
}

fn edges_in(comment: &str) -> Vec<String> {
    let mut edges = Vec::new();
    let mut words = comment.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if !matches!(word.trim_start_matches('('), "edge" | "edges" | "Edge" | "Edges") {
            continue;
        }
        while let Some(&next) = words.peek() {
            let name = next.trim_matches(|c: char| !c.is_alphanumeric());
            if name.len() > 2 && name.chars().all(|c| c.is_ascii_uppercase()) {
                edges.push(name.to_string());
            } else if next != "and" {
                break;
            }
            words.next();
        }
    }
    edges.dedup();
    edges
}

/// The tables that `src/protocol.rs` shows.
pub fn tables() -> String {
    format!("{}\n# Relaxed accesses\n{}", table(&accesses()), relaxed_table(&relaxed()))
}

fn relaxed_table(accesses: &[Access]) -> String {
    let mut table = "| where | access | why that is enough |\n|---|---|---|\n".to_string();
    for access in accesses {
        let why = RELAXED.iter().find(|(key, _)| *key == access.key()).map_or("", |(_, why)| why);
        let file = access.file.trim_start_matches("src/");
        let _ = writeln!(table, "| `{file}` {} | {} | {why} |", access.function, access.what);
    }
    table
}

fn table(accesses: &[Access]) -> String {
    let mut table =
        "| where | access | edge | mutant, or why there is none |\n|---|---|---|---|\n".to_string();
    for access in accesses {
        let file = access.file.trim_start_matches("src/");
        let reason =
            || HELD_OTHERWISE.iter().find(|(key, _)| *key == access.key()).map(|(_, why)| (*why).to_string());
        let mutant =
            access.mutant.as_deref().map(|mutant| format!("`{mutant}`")).or_else(reason).unwrap_or_default();
        let _ = writeln!(
            table,
            "| `{file}` {} | {} | {} | {mutant} |",
            access.function,
            access.what,
            access.edges.join(", ")
        );
    }
    table
}
