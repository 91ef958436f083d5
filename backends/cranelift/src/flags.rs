//! Cranelift's flags by name, with the defaults that suit code placed in an arena.

use crate::error::CraneliftError;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable, Flags, OptLevel, SetError, Setting, SettingKind};

/// What is set before the flags that were asked for.
///
/// The first two make every reference to the outside an absolute 8-byte field, so code can lie at any distance from
/// what it calls. Large frames touch each page, so that a runaway recursion meets the guard page and cannot jump over it.
const DEFAULTS: [(&str, &str); 6] = [
    ("is_pic", "false"),
    ("use_colocated_libcalls", "false"),
    ("unwind_info", "true"),
    ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ("enable_probestack", "true"),
    ("probestack_strategy", "inline"),
];

const REGISTER_ALLOCATOR: &str = "regalloc_algorithm";

/// The code generator for this machine, with `asked` applied in order.
pub(crate) fn host_isa(
    opt_level: OptLevel,
    asked: &[(String, String)],
) -> Result<OwnedTargetIsa, CraneliftError> {
    let mut flags = FlagSet {
        shared: settings::builder(),
        host: cranelift_native::builder().map_err(|reason| CraneliftError::Host { reason })?,
    };
    for (name, value) in DEFAULTS {
        flags.set(name, value)?;
    }
    flags.set("opt_level", &opt_level.to_string())?;
    for (name, value) in asked {
        flags.set(name, value)?;
    }
    // Who optimizes nothing wants compile speed, unless told otherwise; the level may have been given by name too.
    let level = Flags::new(flags.shared.clone()).opt_level();
    if level == OptLevel::None && !asked.iter().any(|(name, _)| name == REGISTER_ALLOCATOR) {
        flags.set(REGISTER_ALLOCATOR, "single_pass")?;
    }
    let refused =
        |error: cranelift_codegen::CodegenError| CraneliftError::Flags { reason: error.to_string() };
    flags.host.finish(Flags::new(flags.shared)).map_err(refused)
}

struct FlagSet {
    shared: settings::Builder,
    host: isa::Builder,
}

impl FlagSet {
    fn set(&mut self, name: &str, value: &str) -> Result<(), CraneliftError> {
        let find = |mut all: Box<dyn Iterator<Item = Setting>>| all.find(|setting| setting.name == name);
        if let Some(setting) = find(Box::new(self.shared.iter())) {
            set(&mut self.shared, &setting, value)
        } else if let Some(setting) = find(Box::new(self.host.iter())) {
            set(&mut self.host, &setting, value)
        } else {
            let known = self.shared.iter().chain(self.host.iter()).map(|setting| setting.name).collect();
            Err(CraneliftError::UnknownFlag { name: name.to_owned(), known })
        }
    }
}

fn set(flags: &mut dyn Configurable, setting: &Setting, value: &str) -> Result<(), CraneliftError> {
    let done = match setting.kind {
        // A preset is a set of processor features under the name of a processor: it can only be switched on.
        SettingKind::Preset if value == "true" => flags.enable(setting.name),
        SettingKind::Preset => Err(SetError::BadType),
        _ => flags.set(setting.name, value),
    };
    done.map_err(|_| {
        let known = match setting.kind {
            SettingKind::Enum => setting.values.unwrap_or_default().to_vec(),
            SettingKind::Num => vec!["a number from 0 to 255"],
            SettingKind::Bool => vec!["true", "false"],
            SettingKind::Preset => vec!["true"],
        };
        CraneliftError::BadFlagValue { name: setting.name.to_owned(), value: value.to_owned(), known }
    })
}
