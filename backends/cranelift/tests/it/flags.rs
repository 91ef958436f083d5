//! Flags by name, and what is set when none is given.

use beadwork_cranelift::cranelift_codegen::settings::RegallocAlgorithm;
use beadwork_cranelift::{
    CraneliftBackend, CraneliftBuilder, CraneliftError, FunctionUnit, NullSymbol, OptLevel,
};

fn build(
    options: CraneliftBuilder,
) -> Result<CraneliftBackend<impl beadwork_cranelift::Frontend>, CraneliftError> {
    options.build(|_: &mut FunctionUnit<'_, '_>| Ok(()))
}

fn refused(options: CraneliftBuilder) -> CraneliftError {
    build(options).map(drop).unwrap_err()
}

#[test]
fn an_unknown_flag_is_refused_with_its_name_and_the_names_there_are() {
    let error = refused(CraneliftBackend::builder().flag("opt_levle", "speed"));
    let CraneliftError::UnknownFlag { name, known } = &error else { panic!("{error:?}") };
    assert_eq!(name, "opt_levle");
    assert!(known.contains(&"opt_level"), "{known:?}");
    let text = error.to_string();
    assert!(text.contains("`opt_levle`") && text.contains("enable_verifier"), "{text}");
    #[cfg(target_arch = "x86_64")]
    assert!(known.contains(&"has_avx2"), "the processor's flags are listed too: {known:?}");
}

#[test]
fn a_wrong_value_is_refused_with_the_flag_and_the_values_there_are() {
    let cases = [
        ("opt_level", "fast", "none, speed, speed_and_size"),
        ("enable_verifier", "perhaps", "true, false"),
        ("probestack_size_log2", "many", "a number from 0 to 255"),
    ];
    for (flag, value, known) in cases {
        let error = refused(CraneliftBackend::builder().flag(flag, value));
        assert!(matches!(&error, CraneliftError::BadFlagValue { name, .. } if name == flag), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(flag) && text.contains(value) && text.contains(known), "{text}");
    }
}

#[test]
fn a_shared_flag_set_by_name_takes_effect() {
    let options = CraneliftBackend::builder()
        .flag("enable_nan_canonicalization", "true")
        .flag("probestack_size_log2", "14")
        .flag("opt_level", "speed_and_size");
    let backend = build(options).unwrap();
    let flags = backend.isa().flags();
    assert!(flags.enable_nan_canonicalization());
    assert_eq!(flags.probestack_size_log2(), 14);
    assert_eq!(flags.opt_level(), OptLevel::SpeedAndSize);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_flag_of_the_processor_and_a_preset_set_by_name_take_effect() {
    let has = |backend: &CraneliftBackend<_>, name: &str| {
        let flags = backend.isa().isa_flags();
        flags.iter().find(|flag| flag.name == name).and_then(|flag| flag.as_bool()).unwrap()
    };
    let popcnt = |value: &str| build(CraneliftBackend::builder().flag("has_popcnt", value)).unwrap();
    assert!(!has(&popcnt("false"), "has_popcnt"));
    assert!(has(&popcnt("true"), "has_popcnt"));
    let preset = CraneliftBackend::builder().flag("has_popcnt", "false").flag("nehalem", "true");
    assert!(has(&build(preset).unwrap(), "has_popcnt"));
    let error = refused(CraneliftBackend::builder().flag("nehalem", "false"));
    assert!(error.to_string().contains("`nehalem`"), "{error}");
}

#[test]
fn defaults_suit_code_in_an_arena() {
    let backend = build(CraneliftBackend::builder()).unwrap();
    let flags = backend.isa().flags();
    assert_eq!(flags.opt_level(), OptLevel::Speed);
    assert!(!flags.is_pic() && !flags.use_colocated_libcalls());
    assert!(flags.unwind_info() && flags.enable_probestack());
    assert_eq!(flags.enable_verifier(), cfg!(debug_assertions));
}

#[test]
fn no_optimization_means_single_pass_register_allocation_unless_told_otherwise() {
    let algorithm = |options| build(options).unwrap().isa().flags().regalloc_algorithm();
    let builder = CraneliftBackend::builder;
    assert_eq!(algorithm(builder()), RegallocAlgorithm::Backtracking);
    assert_eq!(algorithm(builder().opt_level(OptLevel::None)), RegallocAlgorithm::SinglePass);
    assert_eq!(algorithm(builder().flag("opt_level", "none")), RegallocAlgorithm::SinglePass);
    let told = builder().opt_level(OptLevel::None).flag("regalloc_algorithm", "backtracking");
    assert_eq!(algorithm(told), RegallocAlgorithm::Backtracking);
}

#[test]
fn a_null_symbol_is_refused_by_name() {
    let error = refused(CraneliftBackend::builder().symbol("print", std::ptr::null()));
    assert_eq!(error, NullSymbol { name: "print".to_owned() }.into());
}

#[test]
fn a_module_builder_is_refused_for_the_same_reasons() {
    let error = |options: CraneliftBuilder| options.jit_builder().map(drop).unwrap_err();
    let builder = CraneliftBackend::builder;
    assert!(matches!(error(builder().flag("no_such", "1")), CraneliftError::UnknownFlag { .. }));
    assert!(matches!(error(builder().symbol("f", std::ptr::null())), CraneliftError::NullSymbol(_)));
    assert!(matches!(error(builder().flag("is_pic", "true")), CraneliftError::Flags { .. }));
}
