//! Calls between functions of the engine, and of the VM's runtime.

use crate::rig::{Rig, all_passes, body, call, call_symbol, options, plus, word};
use beadwork_llvm::LlvmBackend;

#[test]
fn runtime_symbols_are_called_and_their_addresses_are_values() {
    extern "C" fn thirteen_times(x: i64) -> i64 {
        x * 13
    }
    extern "C" fn never(_: i64) -> i64 {
        unreachable!("was replaced")
    }
    static DATUM: i64 = 1 << 50;
    for passes in all_passes() {
        let options = LlvmBackend::builder()
            .passes(passes)
            .symbol("times", never as *const u8)
            .symbol("times", thirteen_times as *const u8)
            .symbol("datum", (&raw const DATUM).cast());
        let calls = body(|unit, x, _| {
            let once = call_symbol(unit, "times", x)?;
            let datum = unit.symbol_address("datum");
            let datum = unit.builder().build_load(word(unit), datum, "")?.into_int_value();
            let twice = call_symbol(unit, "times", once)?;
            Ok(unit.builder().build_int_add(twice, datum, "")?)
        });
        let rig = Rig::new(options, vec![calls]);
        rig.compile([0]);
        assert_eq!(rig.call(0, 3), 3 * 13 * 13 + DATUM);
    }
}

#[test]
fn a_library_function_given_as_a_symbol_is_the_one_that_is_called() {
    extern "C" fn floor(x: f64) -> f64 {
        x + 1000.0
    }
    let rounds = body(|unit, x, _| {
        let double = unit.context().f64_type();
        // Without SSE4.1 the intrinsic is a call of `floor`.
        let floor =
            unit.module().add_function("llvm.floor.f64", double.fn_type(&[double.into()], false), None);
        let value = unit.builder().build_signed_int_to_float(x, double, "")?;
        let value = unit.builder().build_float_mul(value, double.const_float(1.5), "")?;
        let value = unit.builder().build_call(floor, &[value.into()], "")?;
        let value = value.try_as_basic_value().unwrap_basic().into_float_value();
        Ok(unit.builder().build_float_to_signed_int(value, word(unit), "")?)
    });
    let plain = options().cpu("x86-64").symbol("floor", floor as *const u8);
    let rig = Rig::new(plain, vec![rounds]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 4), 1006);
}

#[test]
fn a_runtime_symbol_may_be_called_anything() {
    extern "C" fn plus_five(x: i64) -> i64 {
        x + 5
    }
    let names = [
        "data",
        "counted",
        "beadwork.entry",
        "beadwork.body.0",
        "beadwork.embed.0",
        "a b",
        "\u{e4}\"$",
        "\u{1}odd",
        "llvm.odd",
        "main",
        ".text",
        ".L0",
        "0",
        "",
    ];
    for name in names {
        let uses = body(move |unit, x, all| {
            let text = unit.data(&[7; 16], 8);
            let text = unit.builder().build_load(unit.context().i8_type(), text, "")?.into_int_value();
            let text = unit.builder().build_int_z_extend(text, word(unit), "")?;
            unit.include(all[1]);
            let x = call(unit, all[1], x)?;
            let x = unit.builder().build_int_add(x, text, "")?;
            call_symbol(unit, name, x)
        });
        let rig = Rig::new(options().symbol(name, plus_five as *const u8), vec![uses, plus(100)]);
        rig.compile([0]);
        assert!(rig.is_native(0), "{name:?}: {:?}", rig.failure(0));
        assert_eq!(rig.call(0, 1), 113, "{name:?}");
    }
}
