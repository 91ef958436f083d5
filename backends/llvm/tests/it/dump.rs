//! What compiles made of functions, in files.

use crate::rig::{Rig, options, plus};
use beadwork_llvm::Dump;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn a_compile_leaves_its_ir_its_assembly_an_object_and_its_circumstances() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dump");
    let _ = fs::remove_dir_all(&root);
    let rig = Rig::new(options().dump(Dump::to(&root)), vec![plus(1)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 41), 42);
    let files = fs::read_dir(root.join("0000-function_0-T1")).unwrap().map(|file| {
        let file = file.unwrap();
        (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
    });
    let files: BTreeMap<_, _> = files.collect();
    let text = |kind: &str| String::from_utf8(files[kind].clone()).unwrap();
    assert_eq!(files.len(), 5);
    assert!(text("function_0.ll").contains("define "));
    assert!(text("function_0.optimized.ll").contains("define "));
    assert!(text("function_0.asm").contains("ret"));
    assert!(files["code.o"].starts_with(b"\x7fELF"));
    assert!(text("compile.txt").contains("function function_0,"));
    fs::remove_dir_all(root).unwrap();
}
