//! What code contains of this process.

use crate::error::BuildError;
use crate::unit::FunctionUnit;
use beadwork::{Bead, CompileError};
use beadwork_object::{Embed, Of};
use inkwell::attributes::AttributeLoc;
use inkwell::values::{CallSiteValue, IntValue, PointerValue};

/// An address or number of this process, by a name that means the same in another one.
pub(crate) struct Embedded {
    pub(crate) name: String,
    pub(crate) now: u64,
}

/// What the names in LLVM's object begin with. Those names count, since what things are called may be any text.
const PREFIX: &str = "beadwork.embed.";

impl Embedded {
    /// What a symbol of an object stands for.
    pub(crate) fn find<'e>(all: &'e [Embedded], symbol: &str) -> Option<&'e Embedded> {
        all.get(symbol.strip_prefix(PREFIX)?.parse::<usize>().ok()?)
    }
}

impl<'c> FunctionUnit<'c, '_> {
    /// A function's handle as a number of 64 bits. Code that is to be [kept](crate::LlvmBuilder::archive) takes it from here: it is
    /// another number in another process.
    ///
    /// Fails this function after the frontend returned if the builder has no position.
    pub fn bits(&mut self, bead: Bead) -> IntValue<'c> {
        let of = Of::bead(bead, self.job());
        self.embed(Embed::Bits { of }, bead.to_bits())
    }

    /// The [version](beadwork::Job::version) the code will have, as a number of 64 bits. Code that is to be
    /// [kept](crate::LlvmBuilder::archive) takes it from here.
    ///
    /// Fails this function after the frontend returned if the builder has no position.
    pub fn version(&mut self) -> IntValue<'c> {
        let version = self.job().version();
        self.embed(Embed::Version, version.into())
    }

    /// An address or number that is another one in another process.
    pub(crate) fn embed(&mut self, embed: Embed, now: u64) -> IntValue<'c> {
        match self.env.keeper {
            None => self.context().i64_type().const_int(now, false),
            Some(_) => self.embed_named(embed.named().to_string(), now),
        }
    }

    /// The same, as an address.
    pub(crate) fn embed_address(&mut self, embed: Embed, now: u64) -> PointerValue<'c> {
        match self.env.keeper {
            None => self.address(now),
            Some(_) => {
                let address = self.embed_named(embed.named().to_string(), now);
                self.pointer_to(address)
            }
        }
    }

    /// The address of a runtime symbol.
    pub(crate) fn embed_symbol(&mut self, name: &str, now: u64) -> PointerValue<'c> {
        match self.env.keeper {
            None => self.address(now),
            Some(_) => {
                let address = self.embed_named(name.to_owned(), now);
                self.pointer_to(address)
            }
        }
    }

    fn embed_named(&mut self, name: String, now: u64) -> IntValue<'c> {
        let number = self.embeds.iter().position(|known| known.name == name && known.now == now);
        let number = number.unwrap_or_else(|| {
            self.embeds.push(Embedded { name, now });
            self.embeds.len() - 1
        });
        self.constant(&format!("{PREFIX}{number}")).unwrap_or_else(|error| {
            self.defer(CompileError::because(error));
            self.context().i64_type().const_zero()
        })
    }

    /// A constant that the linker fills in: the same instruction as for a number that is known. A global's address would be loaded from
    /// a table, and LLVM would hold it for something that is never null and lies apart from all else.
    fn constant(&self, symbol: &str) -> Result<IntValue<'c>, BuildError> {
        let ty = self.context().i64_type().fn_type(&[], false);
        let (text, result) = (format!("movabsq $${symbol}, $0"), "=r".to_owned());
        let load = self.context().create_inline_asm(ty, text, result, false, false, None, false);
        let call = self.builder().build_indirect_call(ty, load, &[], "")?;
        // It touches no memory and always ends, so it may be moved, merged and left out, like a constant.
        for (name, value) in [("memory", 0), ("nounwind", 0), ("willreturn", 0)] {
            self.attribute_call(call, name, value);
        }
        match call.try_as_basic_value().basic() {
            Some(value) => Ok(value.into_int_value()),
            None => Err(BuildError::failed("inkwell gave no value for a constant")),
        }
    }

    pub(crate) fn attribute_call(&self, call: CallSiteValue<'c>, name: &str, value: u64) {
        call.add_attribute(AttributeLoc::Function, self.enum_attribute(name, value));
    }

    fn pointer_to(&mut self, address: IntValue<'c>) -> PointerValue<'c> {
        let pointer = self.context().ptr_type(inkwell::AddressSpace::default());
        self.builder().build_int_to_ptr(address, pointer, "").unwrap_or_else(|error| {
            self.defer(CompileError::because(BuildError::from(error)));
            pointer.const_null()
        })
    }
}
