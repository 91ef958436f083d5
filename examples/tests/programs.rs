//! Every program under `programs/` gives the results its comments promise, in every tier.

mod common;
#[cfg(feature = "_llvm")]
mod llvm;
mod sources;

use sources::{expectations, promised_error, sources};
use strand::{Program, Value};

#[test]
fn every_program_gives_the_promised_results_in_every_tier() {
    let sources = sources("programs");
    assert!(sources.len() >= 9, "programs are missing: {}", sources.len());
    for (file, source) in sources {
        let program = Program::parse(&file, &source).unwrap_or_else(|e| panic!("{e}"));
        let expectations = expectations(&source);
        assert!(!expectations.is_empty(), "{file} promises nothing");
        let tiers = common::Tiers::new(&program);
        for (args, expected) in expectations {
            for (tier, (result, _)) in tiers.run(&args) {
                let result = result.map(|v: Value| v.to_string()).unwrap_or_else(|e| e.to_string());
                assert_eq!(result, expected, "{file}, main{args:?}, {tier}");
            }
        }
    }
}

#[test]
fn every_wrong_program_fails_with_the_same_message_in_every_tier() {
    let sources = sources("programs/wrong");
    assert!(sources.len() >= 20, "wrong programs are missing: {}", sources.len());
    let mut messages = Vec::new();
    for (file, source) in sources {
        let expected = promised_error(&source);
        match Program::parse(&file, &source) {
            Err(diagnostic) => messages.push((diagnostic.to_string(), expected.to_owned(), "parser")),
            Ok(program) => {
                for (tier, (result, _)) in common::Tiers::new(&program).run(&[]) {
                    let message =
                        result.map(|v| format!("no error but {v}")).unwrap_or_else(|e| e.to_string());
                    messages.push((message, expected.to_owned(), tier));
                }
            }
        }
    }
    messages.retain(|(message, expected, _)| message != expected);
    assert!(messages.is_empty(), "message, expected message, tier:\n{messages:#?}");
}

#[cfg(feature = "_llvm")]
#[test]
fn every_program_gives_the_promised_results_by_llvm_and_mixed_with_other_tiers() {
    let mut transfers = 0;
    for (file, source) in sources("programs") {
        let program = std::sync::Arc::new(Program::parse(&file, &source).unwrap_or_else(|e| panic!("{e}")));
        let mut tiers = llvm::LlvmTiers::new(&program);
        for (args, expected) in expectations(&source) {
            for (tier, (result, _)) in tiers.run(&args) {
                let result = result.map(|v: Value| v.to_string()).unwrap_or_else(|e| e.to_string());
                assert_eq!(result, expected, "{file}, main{args:?}, {tier}");
            }
        }
        transfers += tiers.transfers;
    }
    assert!(transfers >= 20, "only {transfers} loops went native half-way");
}

#[cfg(feature = "_llvm")]
#[test]
fn every_wrong_program_fails_with_the_same_message_by_llvm() {
    let mut messages = Vec::new();
    for (file, source) in sources("programs/wrong") {
        let Ok(program) = Program::parse(&file, &source) else { continue };
        for (tier, (result, _)) in llvm::LlvmTiers::new(&std::sync::Arc::new(program)).run(&[]) {
            let message = result.map(|v| format!("no error but {v}")).unwrap_or_else(|e| e.to_string());
            messages.push((message, promised_error(&source).to_owned(), tier));
        }
    }
    assert!(messages.len() > 20, "{} messages", messages.len());
    messages.retain(|(message, expected, _)| message != expected);
    assert!(messages.is_empty(), "message, expected message, tier:\n{messages:#?}");
}
