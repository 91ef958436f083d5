//! Failures are one function's, and say why.

use crate::rig::{Body, Rig, body, call, call_symbol, number, options, plus, signature, word};
use beadwork::{CompileError, Engine, Manual, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_llvm::inkwell::InlineAsmDialect;
use beadwork_llvm::inkwell::values::FunctionValue;
use beadwork_llvm::{BuildError, FunctionUnit, LlvmBackend, LlvmError, NullSymbol, Passes};
use std::sync::{Arc, Mutex};

/// Uses a value where it is not defined, which inkwell's builder lets through.
fn invalid() -> Body {
    body(|unit, x, _| {
        let (head, other) = (unit.append_block("head")?, unit.append_block("other")?);
        unit.builder().build_unconditional_branch(head)?;
        unit.builder().position_at_end(other);
        let here = unit.builder().build_int_add(x, number(unit, 1), "here")?;
        unit.builder().build_unconditional_branch(head)?;
        unit.builder().position_at_end(head);
        // Defined in a block that does not come before this one.
        Ok(unit.builder().build_int_add(here, x, "")?)
    })
}

fn unresolved() -> Body {
    body(|unit, x, _| {
        let signature = signature(unit);
        let function = unit.module().add_function("nobody", signature, None);
        let call = unit.builder().build_call(function, &[x.into()], "")?;
        Ok(call.try_as_basic_value().unwrap_basic().into_int_value())
    })
}

fn writes_a_global() -> Body {
    body(|unit, x, _| {
        let counter = unit.module().add_global(word(unit), None, "counter");
        counter.set_initializer(&number(unit, 5));
        unit.builder().build_store(counter.as_pointer_value(), x)?;
        Ok(x)
    })
}

fn wrong_assembly() -> Body {
    body(|unit, x, _| {
        let ty = unit.context().void_type().fn_type(&[], false);
        let wrong = unit.context().create_inline_asm(
            ty,
            "nosuchinstruction".to_owned(),
            String::new(),
            true,
            false,
            Some(InlineAsmDialect::ATT),
            false,
        );
        unit.builder().build_indirect_call(ty, wrong, &[], "")?;
        Ok(x)
    })
}

fn thread_local_data() -> Body {
    body(|unit, _, _| {
        let global = unit.module().add_global(word(unit), None, "mine");
        global.set_thread_local(true);
        global.set_initializer(&number(unit, 5));
        Ok(unit.builder().build_load(word(unit), global.as_pointer_value(), "")?.into_int_value())
    })
}

#[test]
fn each_kind_of_failure_fails_its_own_function_and_says_what_was_wrong() {
    let bodies: Vec<(Body, Option<&[&str]>)> = vec![
        (plus(1), None),
        (body(|_, _, _| Err(BuildError::failed("no such opcode"))), Some(&["no such opcode"])),
        (invalid(), Some(&["function_2", "invalid IR", "dominate"])),
        (
            body(|unit, x, _| call_symbol(unit, "missing_thing", x)),
            Some(&["unknown runtime symbol `missing_thing`", "LlvmBuilder::symbol"]),
        ),
        (body(|unit, x, all| call(unit, all[13], x)), Some(&["callee", "13v1", "not live"])),
        (unresolved(), Some(&["function_5", "`nobody`", "LlvmBuilder::symbol"])),
        (body(|unit, x, _| Ok(unit.data(b"x", 3)).map(|_| x)), Some(&["aligned to 3"])),
        (writes_a_global(), Some(&["function_7", ".data", "LlvmBuilder::symbol"])),
        (wrong_assembly(), Some(&["function_8", "nosuchinstruction"])),
        (thread_local_data(), Some(&["function_9", "written at run time"])),
        (
            body(|unit, x, _| {
                let signature = signature(unit);
                unit.begin(signature);
                Ok(x)
            }),
            Some(&["begin was called twice"]),
        ),
        (
            body(|unit, x, _| {
                let nothing = unit.context().void_type().fn_type(&[], false);
                unit.symbol("known", nothing);
                call_symbol(unit, "known", x)
            }),
            Some(&["`known`", "two types"]),
        ),
        (plus(12), None),
        (plus(13), None),
    ];
    let expected: Vec<_> = bodies.iter().map(|(_, words)| *words).collect();
    let options = options().symbol("known", std::ptr::without_provenance(16));
    let rig = Rig::new(options, bodies.into_iter().map(|(body, _)| body).collect());
    rig.engine.remove(rig.beads[13]).unwrap();
    rig.compile(0..13);
    for (number, words) in expected.into_iter().enumerate().take(13) {
        match words {
            None => assert_eq!(rig.call(number, 0), [1, 12][usize::from(number == 12)]),
            Some(words) => {
                let failure = rig.failure(number).unwrap_or_else(|| panic!("{number} did not fail"));
                assert!(words.iter().all(|word| failure.contains(word)), "{number}: {failure}");
                assert!(!rig.is_native(number));
            }
        }
    }
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.failed, stats.split, stats.arena.live_blocks), (2, 11, 0, 2));
    assert!(stats.batches < 13, "the failing functions had company: {stats:?}");
}

/// What a frontend's only function fails with.
fn failure<F>(frontend: F) -> String
where
    F: Fn(&mut FunctionUnit<'_, '_>) -> Result<(), BuildError> + Send + Sync + 'static,
{
    let log = Arc::new(Mutex::new(String::new()));
    let heard = log.clone();
    let tier = Tier::new(options().build(frontend).unwrap()).policy(Manual);
    let engine = Engine::builder().inline().capacity(16).tier(tier).on_event(move |event| {
        if let beadwork::Event::Failed { error, .. } = event {
            *heard.lock().unwrap() = error.to_string();
        }
    });
    let engine = engine.build().unwrap();
    let bead = engine.register(0.into()).unwrap();
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(1);
    log.lock().unwrap().clone()
}

fn begin(unit: &mut FunctionUnit<'_, '_>) {
    let nothing = unit.context().void_type().fn_type(&[], false);
    unit.begin(nothing);
}

#[test]
fn a_function_that_was_not_begun_or_not_ended_fails_with_that_reason() {
    assert!(failure(|_| Ok(())).contains("FunctionUnit::begin"));
    assert!(
        failure(|unit| unit.append_block("early").map(drop).map_err(Into::into))
            .contains("FunctionUnit::begin")
    );
    let unpositioned = failure(|unit| {
        unit.builder().build_unreachable()?;
        Ok(())
    });
    assert!(unpositioned.contains("position"), "{unpositioned}");
    let open = failure(|unit| {
        begin(unit);
        Ok(())
    });
    assert!(open.contains("invalid IR") && open.contains("terminator"), "{open}");
}

#[test]
fn a_panic_in_a_frontend_leaves_the_thread_able_to_compile() {
    let rig = Rig::new(options(), vec![plus(1), body(|_, _, _| panic!("a bug")), plus(3)]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 1), rig.call(2, 1)), (2, 4));
    assert!(rig.failure(1).unwrap().contains("a bug"));
}

#[test]
fn a_frame_larger_than_the_limit_is_refused() {
    let large = |bytes: u32| {
        body(move |unit, x, _| {
            let b = unit.builder();
            let array = unit.context().i8_type().array_type(bytes);
            let place = b.build_alloca(array, "")?;
            // Escapes, so that it is not optimized away.
            let address = b.build_ptr_to_int(place, word(unit), "")?;
            let kept = call_symbol(unit, "identity", address)?;
            let kept = unit.builder().build_int_sub(kept, address, "")?;
            Ok(unit.builder().build_int_add(kept, x, "")?)
        })
    };
    extern "C" fn identity(x: i64) -> i64 {
        x
    }
    let options = options().max_frame_bytes(4096).symbol("identity", identity as *const u8);
    let rig = Rig::new(options, vec![large(1000), large(8000)]);
    rig.compile(0..2);
    assert_eq!(rig.call(0, 5), 5);
    let failure = rig.failure(1).unwrap();
    assert!(failure.contains("function_1") && failure.contains("4096"), "{failure}");
}

#[test]
fn any_limit_of_frames_is_one() {
    for limit in [0, u32::MAX as usize, u32::MAX as usize + 1, usize::MAX] {
        let rig = Rig::new(options().max_frame_bytes(limit), vec![plus(1)]);
        rig.compile([0]);
        assert!(rig.is_native(0), "{limit}: {:?}", rig.failure(0));
    }
}

#[test]
fn a_large_frame_touches_every_page_of_the_stack() {
    let probes = body(|unit, x, _| {
        let array = unit.context().i8_type().array_type(1 << 20);
        let place = unit.builder().build_alloca(array, "")?;
        let address = unit.builder().build_ptr_to_int(place, word(unit), "")?;
        let same = call_symbol(unit, "identity", address)?;
        let zero = unit.builder().build_int_sub(same, address, "")?;
        Ok(unit.builder().build_int_add(zero, x, "")?)
    });
    extern "C" fn identity(x: i64) -> i64 {
        x
    }
    let rig = Rig::new(options().symbol("identity", identity as *const u8), vec![probes]);
    rig.compile([0]);
    // Two megabytes are below the pages that were touched before; the kernel grows the stack page by page.
    assert_eq!(rig.call(0, 9), 9);
    assert!(rig.installs()[0].1 > 64, "a loop over the pages");
}

#[test]
fn full_executable_memory_fails_functions_and_not_the_engine() {
    let arena = Arena::builder().max_bytes(Some(8192)).region_bytes(4096).build().unwrap();
    let large = body(|unit, x, _| {
        let kept = unit.data(&[9; 9000], 8);
        let kept = unit.builder().build_ptr_to_int(kept, word(unit), "")?;
        Ok(unit.builder().build_xor(kept, x, "")?)
    });
    let rig = Rig::new(options().arena(arena), vec![plus(1), large, plus(3)]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 1), rig.call(2, 1)), (2, 4));
    let failure = rig.failure(1).unwrap();
    assert!(failure.contains("function_1") && failure.contains("max_bytes"), "{failure}");
    assert_eq!(rig.backend.stats().split, 1);
}

#[test]
fn what_cannot_be_built_is_refused_by_the_builder() {
    let build = |options: beadwork_llvm::LlvmBuilder| {
        options.build(|_: &mut FunctionUnit<'_, '_>| Ok(())).map(drop).unwrap_err()
    };
    let passes = |text: &str| build(LlvmBackend::builder().passes(Passes::Text(text.to_owned())));
    for text in ["nosuchpass", "function(sroa", "default<O7>"] {
        let error = passes(text);
        assert!(matches!(error, LlvmError::Passes { .. }), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(passes("a\0b"), LlvmError::Nul { what: "pass pipeline" });
    assert_eq!(build(options().cpu("a\0b")), LlvmError::Nul { what: "name of the processor" });
    assert_eq!(build(options().features("a\0b")), LlvmError::Nul { what: "list of features" });
    let hole = build(options().symbol("hole", std::ptr::null()));
    assert_eq!(hole, NullSymbol { name: "hole".to_owned() }.into());
    let cut = build(options().symbol("cut\0off", std::ptr::without_provenance(16)));
    assert_eq!(cut, LlvmError::Nul { what: "name of a runtime symbol" });
}

#[test]
fn errors_of_builder_and_engine_become_the_functions_error() {
    let own = CompileError::failed("as it is");
    assert_eq!(CompileError::from(BuildError::from(own.clone())), own);
    let _: fn(&FunctionUnit<'static, 'static>) -> Result<FunctionValue<'static>, CompileError> =
        FunctionUnit::function;
}

#[test]
fn a_processor_without_64_bits_does_not_end_the_process() {
    for options in [
        options().cpu("i686"),
        options().cpu("pentium4"),
        options().features("-64bit"),
        options().features("-64bit-mode,+32bit-mode"),
    ] {
        let rig = Rig::new(options, vec![plus(1)]);
        rig.compile([0]);
        assert_eq!(rig.call(0, 1), 2);
    }
}
