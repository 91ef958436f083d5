//! The runtime functions Cranelift may call by itself.

use cranelift_codegen::ir::LibCall;

/// The address of a library function, `None` for those only a VM or a linker can give.
///
/// They are the standard library's, so nothing depends on what the process's dynamic symbol table shows.
pub(crate) fn address(call: LibCall) -> Option<u64> {
    let pointer: *const u8 = match call {
        LibCall::CeilF32 => ceil_f32 as *const u8,
        LibCall::CeilF64 => ceil_f64 as *const u8,
        LibCall::FloorF32 => floor_f32 as *const u8,
        LibCall::FloorF64 => floor_f64 as *const u8,
        LibCall::TruncF32 => trunc_f32 as *const u8,
        LibCall::TruncF64 => trunc_f64 as *const u8,
        LibCall::NearestF32 => nearest_f32 as *const u8,
        LibCall::NearestF64 => nearest_f64 as *const u8,
        LibCall::FmaF32 => fma_f32 as *const u8,
        LibCall::FmaF64 => fma_f64 as *const u8,
        LibCall::Memcpy => libc::memcpy as *const u8,
        LibCall::Memset => libc::memset as *const u8,
        LibCall::Memmove => libc::memmove as *const u8,
        LibCall::Memcmp => libc::memcmp as *const u8,
        #[cfg(target_arch = "x86_64")]
        LibCall::X86Pshufb => x86_pshufb as *const u8,
        _ => return None,
    };
    Some(pointer.expose_provenance() as u64)
}

/// The name under which a VM can give or replace a library function as a runtime symbol; cranelift-jit uses the same.
pub(crate) fn name(call: LibCall) -> String {
    cranelift_module::default_libcall_names()(call)
}

/// The address of the library function with that name.
pub(crate) fn address_by_name(wanted: &str) -> Option<u64> {
    LibCall::all_libcalls().iter().find(|&&call| name(call) == wanted).and_then(|&call| address(call))
}

extern "C" fn ceil_f32(x: f32) -> f32 {
    x.ceil()
}
extern "C" fn ceil_f64(x: f64) -> f64 {
    x.ceil()
}
extern "C" fn floor_f32(x: f32) -> f32 {
    x.floor()
}
extern "C" fn floor_f64(x: f64) -> f64 {
    x.floor()
}
extern "C" fn trunc_f32(x: f32) -> f32 {
    x.trunc()
}
extern "C" fn trunc_f64(x: f64) -> f64 {
    x.trunc()
}
extern "C" fn nearest_f32(x: f32) -> f32 {
    x.round_ties_even()
}
extern "C" fn nearest_f64(x: f64) -> f64 {
    x.round_ties_even()
}
extern "C" fn fma_f32(x: f32, y: f32, z: f32) -> f32 {
    x.mul_add(y, z)
}
extern "C" fn fma_f64(x: f64, y: f64, z: f64) -> f64 {
    x.mul_add(y, z)
}

/// `pshufb` for processors (or flags) without SSSE3: each byte of `lanes` picks a byte of `table`, or 0 if its top bit
/// is set.
#[cfg(target_arch = "x86_64")]
#[allow(improper_ctypes_definitions)] // Cranelift passes the vectors in registers, as this ABI does.
extern "C" fn x86_pshufb(
    table: core::arch::x86_64::__m128i,
    lanes: core::arch::x86_64::__m128i,
) -> core::arch::x86_64::__m128i {
    use core::arch::x86_64::__m128i;
    // SAFETY: a `__m128i` is sixteen bytes, all of whose values are valid; so in the other direction.
    let bytes = |vector| unsafe { core::mem::transmute::<__m128i, [u8; 16]>(vector) };
    let (table, lanes) = (bytes(table), bytes(lanes));
    let picked = lanes.map(|lane| if lane & 0x80 != 0 { 0 } else { table[usize::from(lane & 0xf)] });
    // SAFETY: as above.
    unsafe { core::mem::transmute::<[u8; 16], __m128i>(picked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_function_has_an_address_or_only_a_linker_can_give_one() {
        for &call in LibCall::all_libcalls() {
            let linkers =
                matches!(call, LibCall::Probestack | LibCall::ElfTlsGetAddr | LibCall::ElfTlsGetOffset);
            let foreign = call == LibCall::X86Pshufb && !cfg!(target_arch = "x86_64");
            assert_eq!(address(call).is_none(), linkers || foreign, "{call}");
        }
    }
}
