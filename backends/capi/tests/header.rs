//! The header is what cbindgen makes of the sources, and C and C++ compilers take it.

#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The committed header.
fn header() -> PathBuf {
    root().join("include/beadwork.h")
}

fn generated() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("a configuration");
    config.trailer = Some(std::fs::read_to_string(root().join("src/inline.h")).expect("the inline part"));
    let bindings =
        cbindgen::Builder::new().with_crate(root()).with_config(config).generate().expect("bindings");
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).expect("UTF-8");
    text.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// With `BEADWORK_BLESS=1` it is written anew.
#[test]
fn the_header_is_up_to_date() {
    let made = generated();
    if std::env::var_os("BEADWORK_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(header(), &made).expect("write the header");
    }
    let committed = std::fs::read_to_string(header()).unwrap_or_default();
    assert!(
        made == committed,
        "include/beadwork.h is stale: run BEADWORK_BLESS=1 cargo test -p beadwork-capi --test header"
    );
}

/// Compiles a program that only includes the header, and as headers of its own would, twice.
fn compiles(compiler: &str, language: &str, standard: &str) {
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("header_{standard}.{language}"));
    let include = "#include \"beadwork.h\"\n";
    std::fs::write(
        &source,
        format!("{include}{include}int main(void) {{ return bw_dispatch(0, 0) != 0; }}\n"),
    )
    .expect("write the program");
    let output = Command::new(compiler)
        .args([format!("-std={standard}"), "-fsyntax-only".into(), "-I".into()])
        .arg(root().join("include"))
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic"])
        .arg(&source)
        .output()
        .expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_included_twice_compiles_as_c99_c11_and_cxx17_with_warnings_as_errors() {
    compiles("cc", "c", "c99");
    compiles("cc", "c", "c11");
    if Command::new("c++").arg("--version").output().is_err() {
        eprintln!("SKIPPED, NOT PROVEN: the header as C++17 (there is no c++ here)");
        return;
    }
    compiles("c++", "cpp", "c++17");
}

/// Everything public is documented where it is defined (the lint sees to that), and the text arrives in the header.
#[test]
fn every_declaration_of_the_header_is_documented() {
    let text = std::fs::read_to_string(header()).expect("the header");
    let text = &text[..text.find("static inline").expect("the inline part")];
    let lines: Vec<&str> = text.lines().collect();
    let is_documented = |number: usize| lines[number - 1].trim_start().starts_with("///");
    let (mut functions, mut fields) = (0, 0);
    for (number, line) in lines.iter().enumerate() {
        let starts = line.contains("bw_") && !line.starts_with([' ', '}', '/', '#']);
        if starts && line.contains('(') && !line.starts_with("typedef") {
            functions += 1;
            assert!(is_documented(number), "line {}: {line}", number + 1);
        }
        // Fields and values are indented once, and so are the comments of nothing else.
        let inner =
            line.strip_prefix("  ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
        if inner.is_some_and(|rest| rest.ends_with([';', ','])) && is_declared_in_braces(&lines, number) {
            fields += 1;
            assert!(is_documented(number), "line {}: {line}", number + 1);
        }
    }
    assert!(functions > 70 && fields > 150, "{functions} functions, {fields} fields");
}

/// A comment that names what is not there sends its reader to a compile error.
#[test]
fn every_name_that_a_comment_of_the_header_mentions_is_declared() {
    let text = std::fs::read_to_string(header()).expect("the header");
    let names = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("bw_") || word.starts_with("BW_")).map(str::to_string).collect()
    };
    let (mut declared, mut mentioned, mut in_comment) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        in_comment |= line.trim_start().starts_with("/*");
        let (code, comment) =
            if in_comment { ("", line) } else { line.split_once("//").unwrap_or((line, "")) };
        in_comment &= !line.contains("*/");
        declared.extend(names(code));
        mentioned.extend(names(comment));
    }
    mentioned.retain(|name| !declared.contains(name));
    assert_eq!(mentioned, [""; 0]);
    assert!(declared.len() > 500);
}

/// Comments and messages of the sources name constants in full; `BW_PRESET value` and `BW_DEOPT value` are families.
#[test]
fn every_constant_that_the_sources_mention_is_declared() {
    let header = std::fs::read_to_string(header()).expect("the header");
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_string).collect()
    };
    let declared = words(&header);
    let (mut checked, mut unknown) = (0, Vec::new());
    for file in std::fs::read_dir(root().join("src")).expect("the sources") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("UTF-8");
        for name in words(&text).into_iter().filter(|word| word.starts_with("BW_")) {
            checked += 1;
            if !declared.contains(&name) && !["BW_PRESET", "BW_DEOPT"].contains(&name.as_str()) {
                unknown.push(name);
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
    assert!(checked > 20, "{checked}");
}

/// Whether the nearest line before it that begins at the margin opens a struct or an enumeration.
fn is_declared_in_braces(lines: &[&str], number: usize) -> bool {
    lines[..number]
        .iter()
        .rev()
        .find(|line| !line.is_empty() && !line.starts_with(' '))
        .is_some_and(|line| line.ends_with('{') && (line.contains("struct") || line.contains("enum")))
}
