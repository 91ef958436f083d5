//! The runtime functions LLVM may call by itself.

/// Defines what is looked up: names of the C library and of the compiler's runtime, which every program links anyway.
macro_rules! functions {
    ($($name:ident)*) => {
        mod c {
            // Only their addresses are taken, so they are declared alike.
            unsafe extern "C" {
                $(pub(super) fn $name();)*
            }
        }

        /// The address of a library function, `None` for those only a VM can give.
        ///
        /// They are linked, so nothing depends on what the process's dynamic symbol table shows.
        pub(crate) fn address(name: &str) -> Option<u64> {
            let pointer: *const u8 = match name {
                // Rust calls these by itself, and so knows them by their types.
                "memcpy" => libc::memcpy as *const u8,
                "memmove" => libc::memmove as *const u8,
                "memset" => libc::memset as *const u8,
                "memcmp" => libc::memcmp as *const u8,
                "strlen" => libc::strlen as *const u8,
                $(stringify!($name) => c::$name as *const u8,)*
                _ => return None,
            };
            Some(pointer.expose_provenance() as u64)
        }

        #[cfg(test)]
        const NAMES: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "strlen", $(stringify!($name)),*];
    };
}

functions! {
    bcmp
    floor floorf ceil ceilf trunc truncf rint rintf nearbyint nearbyintf round roundf
    sqrt sqrtf fma fmaf fmod fmodf fmin fminf fmax fmaxf fabs fabsf copysign copysignf
    sin sinf cos cosf tan tanf asin asinf acos acosf atan atanf atan2 atan2f sinh sinhf cosh coshf tanh tanhf
    exp expf exp2 exp2f log logf log2 log2f log10 log10f pow powf ldexp ldexpf frexp frexpf modf modff
    lround lroundf llround llroundf lrint lrintf llrint llrintf
    __divti3 __modti3 __udivti3 __umodti3
    __floattidf __floattisf __floatuntidf __floatuntisf __fixdfti __fixsfti __fixunsdfti __fixunssfti
    __powidf2 __powisf2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_function_has_an_address_of_its_own_name() {
        for name in NAMES {
            assert_ne!(address(name), None, "{name}");
        }
        assert_ne!(address("sin"), address("cos"));
        assert_eq!((address("sinus"), address("")), (None, None));
    }
}
