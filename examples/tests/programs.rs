//! Every program under `programs/` gives the results its comments promise, in every tier.

mod common;
#[cfg(feature = "_llvm")]
mod llvm;
mod sources;

use beadwork::{Archive, EngineBuilder, Manual, MemoryStore, Tier, TierId};
use beadwork_cranelift::CraneliftBackend;
use sources::{expectations, promised_error, sources};
use std::sync::Arc;
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};
use strand::{Limits, Program, Value, Vm, on_vm_stack};

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

/// Runs a program with all functions compiled, in an engine of its own.
fn live(
    program: &Arc<Program>,
    linking: Linking,
    args: &[i64],
    tier: impl Fn(BytecodeFrontend) -> Result<Tier, ConnectError>,
) -> String {
    let configure = |builder: EngineBuilder, frontend| {
        Ok::<_, ConnectError>(builder.tier(tier(frontend)?.policy(Manual)).inline().capacity(64))
    };
    let tiered = Tiered::with(program, linking, configure).unwrap();
    for &bead in tiered.beads() {
        tiered.engine().promote(bead, TierId::BASELINE).unwrap();
    }
    tiered.engine().run_pending(usize::MAX);
    let run = || {
        let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
        vm.run(args)
    };
    let result = on_vm_stack(run).unwrap();
    result.map(|v: Value| v.to_string()).unwrap_or_else(|e| e.to_string())
}

/// Keeps every program's code in one engine, and runs it in two others.
fn kept_code_gives_the_promised_results(
    tier: impl Fn(&Archive, BytecodeFrontend) -> Result<Tier, ConnectError> + Copy,
) {
    for (file, source) in sources("programs") {
        let program = Arc::new(Program::parse(&file, &source).unwrap_or_else(|e| panic!("{e}")));
        for linking in [Linking::Slots, Linking::Dispatch] {
            let archive = Archive::new(MemoryStore::new());
            for (args, expected) in expectations(&source) {
                archive.set_saving(archive.stats().saved == 0);
                let result = live(&program, linking, &args, |frontend| tier(&archive, frontend));
                assert_eq!(result, expected, "{file}, main{args:?}, {linking:?}, {:?}", archive.stats());
            }
            let (args, expected) = expectations(&source).remove(0);
            let result = live(&program, linking, &args, |frontend| tier(&archive, frontend));
            let stats = archive.stats();
            assert_eq!(result, expected, "{file}, loaded, {stats:?}");
            assert!(stats.saved > 0 && stats.loaded >= stats.saved, "{file}: {stats:?}");
            assert_eq!((stats.unsavable, stats.refused()), (0, 0), "{file}: {stats:?}");
        }
    }
}

#[test]
fn kept_code_of_every_program_gives_the_promised_results_in_another_engine() {
    kept_code_gives_the_promised_results(|archive, frontend| {
        let options = cranelift(CraneliftBackend::builder()).archive(archive.clone());
        Ok(Tier::new(options.build(frontend)?))
    });
}

#[cfg(feature = "_llvm")]
#[test]
fn kept_code_of_every_program_by_llvm_gives_the_promised_results_in_another_engine() {
    kept_code_gives_the_promised_results(|archive, frontend| {
        let options = beadwork_llvm::LlvmBackend::builder().passes(beadwork_llvm::Passes::O2);
        Ok(Tier::new(strand::llvm::llvm(options).archive(archive.clone()).build(frontend)?))
    });
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
