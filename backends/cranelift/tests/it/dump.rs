//! What compiles made of functions, in files.

use crate::rig::{Rig, body, options, plus};
use beadwork::{CompileError, Engine};
use beadwork_cranelift::{Dump, InstBuilder};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    directory
}

/// The files of each folder.
fn dumped(root: &Path) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let folders = fs::read_dir(root).unwrap().map(|folder| {
        let folder = folder.unwrap();
        let files = fs::read_dir(folder.path()).unwrap().map(|file| {
            let file = file.unwrap();
            (name(&file), fs::read(file.path()).unwrap())
        });
        (name(&folder), files.collect())
    });
    folders.collect()
}

#[test]
fn a_compile_leaves_its_ir_its_assembly_an_object_and_its_circumstances_if_its_name_is_wanted() {
    let root = directory("dump_wanted");
    let dump = Dump::to(&root).only(|name| name != "function_1");
    let calls = body(|unit, x, beads| {
        let call = unit.call_bead(beads[0], &crate::rig::signature(unit), &[x]);
        Ok(unit.builder().inst_results(call)[0])
    });
    let rig = Rig::new(options().dump(dump), vec![plus(1), plus(2), calls]);
    for n in 0..3 {
        rig.compile([n]);
    }
    assert_eq!(rig.call(2, 41), 42);
    let folders = dumped(&root);
    assert_eq!(folders.keys().collect::<Vec<_>>(), ["0000-function_0-T1", "0002-function_2-T1"]);
    for (n, files) in [0, 2].into_iter().zip(folders.values()) {
        let text = |kind: &str| String::from_utf8(files[kind].clone()).unwrap();
        assert_eq!(files.len(), 5);
        assert!(text(&format!("function_{n}.clif")).starts_with("function "));
        assert!(text(&format!("function_{n}.optimized.clif")).starts_with("function "));
        assert!(text(&format!("function_{n}.asm")).contains("ret"));
        assert!(files["code.o"].starts_with(b"\x7fELF"));
        let circumstances = text("compile.txt");
        assert!(circumstances.contains(&format!("function function_{n},")), "{circumstances}");
        assert!(circumstances.contains(" bytes"), "{circumstances}");
    }
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_compile_that_fails_leaves_what_there_was_and_the_reason() {
    let root = directory("dump_failed");
    let refuses = body(|_, _, _| Err(CompileError::failed("no such thing")));
    // A value of another block that does not dominate this one is no IR.
    let invalid = body(|unit, x, _| {
        let b = unit.builder();
        let (other, rest) = (b.create_block(), b.create_block());
        b.ins().brif(x, other, &[], rest, &[]);
        b.switch_to_block(other);
        let theirs = b.ins().iadd_imm_s(x, 1);
        b.ins().jump(rest, &[]);
        b.switch_to_block(rest);
        Ok(theirs)
    });
    let rig = Rig::with(Engine::builder().inline(), options().dump(Dump::to(&root)), vec![refuses, invalid]);
    rig.compile([0]);
    rig.compile([1]);
    let folders = dumped(&root);
    let refused = &folders["0000-function_0-T1"];
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["compile.txt"]);
    assert!(String::from_utf8_lossy(&refused["compile.txt"]).contains("failed: "));
    let invalid = &folders["0001-function_1-T1"];
    assert_eq!(invalid.keys().collect::<Vec<_>>(), ["compile.txt", "function_1.clif"]);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_changes_nothing() {
    let rig = Rig::new(options().dump(Dump::to("/proc/no/such/directory")), vec![plus(1)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 1), 2);
}
