//! Handles: boxes that say what they are, and the values C passes in their place.

use crate::status::{Error, Result, bw_status};
use beadwork::{Assumption, Bead, Group, TierId};
use std::ffi::{CStr, c_char};

/// A function, as a number: what registration answers. 0 is none. Copy it freely; it never comes to mean another function.
pub type bw_bead = u64;

/// A kind of handle. The type itself is only the name C knows it by; what lies at the address is a [`Tagged`].
pub(crate) trait Handle {
    /// What is there.
    type Inner;
    /// Different for each kind.
    const TAG: u32;
    /// In messages.
    const NAME: &'static str;
}

/// What a handle points at. The tag comes first, whatever the kind.
#[repr(C)]
pub(crate) struct Tagged<T> {
    tag: u32,
    inner: T,
}

impl<T> Tagged<T> {
    /// Where what the handle is for begins.
    pub(crate) const INNER: usize = std::mem::offset_of!(Tagged<T>, inner);

    pub(crate) fn new<H: Handle<Inner = T>>(inner: T) -> Tagged<T> {
        Tagged { tag: H::TAG, inner }
    }
}

/// The tag of what was freed: seen only as long as nobody uses the memory again.
const FREED: u32 = 0xdead_bead;

/// # Safety
/// `pointer` is null or a handle of whatever kind.
#[inline(always)]
unsafe fn check<H: Handle>(pointer: *const H) -> Result<*mut Tagged<H::Inner>> {
    let there = pointer.cast_mut().cast::<Tagged<H::Inner>>();
    if there.is_null() || !there.is_aligned() {
        return Err(wrong(there.is_null(), None, H::NAME));
    }
    // SAFETY: by the contract; the tag is at the same place in every kind.
    let tag = unsafe { (*there).tag };
    if tag == H::TAG { Ok(there) } else { Err(wrong(false, Some(tag), H::NAME)) }
}

#[cold]
fn wrong(is_null: bool, tag: Option<u32>, wanted: &str) -> Error {
    match tag {
        None if is_null => Error::null(wanted),
        None => Error::new(bw_status::Handle, format_args!("no handle has such an address: {wanted} wanted")),
        Some(FREED) => Error::new(bw_status::Handle, format_args!("this was freed: {wanted} wanted")),
        Some(_) => Error::new(bw_status::Handle, format_args!("this is something else: {wanted} wanted")),
    }
}

/// The handle C passed.
///
/// # Safety
/// The header's contract: null or a handle, which is not freed while `'h` lasts.
#[inline(always)]
pub(crate) unsafe fn borrow<'h, H: Handle>(pointer: *const H) -> Result<&'h H::Inner> {
    // SAFETY: of that kind by the check; C holds no references, and this crate makes only shared ones.
    unsafe { Ok(&(*check(pointer)?).inner) }
}

/// Takes a handle back from C, to be freed; `None` for null.
///
/// # Safety
/// As [`borrow`]; the caller does not use it any more, and no other thread does.
pub(crate) unsafe fn take<H: Handle>(pointer: *mut H) -> Result<Option<H::Inner>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: handles that C may free are made by `give`, and this is the last use by the contract.
    unsafe {
        let there = check(pointer)?;
        (*there).tag = FREED;
        Ok(Some(Box::from_raw(there).inner))
    }
}

/// Hands a handle to C.
///
/// # Safety
/// `out` is null or may be written.
pub(crate) unsafe fn give<H: Handle>(out: *mut *mut H, make: impl FnOnce() -> Result<H::Inner>) -> Result {
    if out.is_null() {
        return Err(Error::null("the place for the handle"));
    }
    // SAFETY: by the contract. Null first, so that an error leaves no garbage there.
    unsafe { out.write(std::ptr::null_mut()) };
    let made = Box::new(Tagged::new::<H>(make()?));
    // SAFETY: as above.
    unsafe { out.write(Box::into_raw(made).cast()) };
    Ok(())
}

/// Declares a kind of handle.
macro_rules! handle {
    ($kind:ident, $inner:ty, $tag:expr, $name:literal) => {
        impl crate::handle::Handle for $kind {
            type Inner = $inner;
            const TAG: u32 = u32::from_be_bytes(*$tag);
            const NAME: &'static str = $name;
        }
    };
}
pub(crate) use handle;

/// Writes an answer, if it is wanted.
///
/// # Safety
/// `out` is null or may be written.
pub(crate) unsafe fn answer<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: by the contract.
        unsafe { out.write(value) };
    }
}

/// Writes as many of `values` as there is room for.
///
/// # Safety
/// `out` is null or has room for so many.
pub(crate) unsafe fn copy_out<T: Copy>(values: &[T], out: *mut T, room: usize) {
    if !out.is_null() {
        // SAFETY: by the contract; the place is the caller's and not in `values`.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), out, values.len().min(room)) }
    }
}

/// Writes as much of a text as there is room for, with a NUL at the end; answers how long all of it is.
///
/// # Safety
/// `out` is null or has room for so many bytes.
pub(crate) unsafe fn text_out(text: &str, out: *mut c_char, room: usize) -> usize {
    if room > 0 && !out.is_null() {
        let cut = text.len().min(room - 1);
        // SAFETY: by the contract there is room for the bytes and the NUL.
        unsafe {
            copy_out(&text.as_bytes()[..cut], out.cast(), cut);
            out.add(cut).write(0);
        }
    }
    text.len()
}

/// An array C passed; null is fine if it is empty.
///
/// # Safety
/// `pointer` is null or to `len` values, which do not change while `'a` lasts.
pub(crate) unsafe fn array<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Error::null(what));
    }
    if len > isize::MAX as usize / size_of::<T>().max(1) || !pointer.is_aligned() {
        return Err(Error::argument(format_args!("{what}: {len} values at {pointer:p} cannot be an array")));
    }
    // SAFETY: not null, aligned, no larger than an object can be, and by the contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Options C passed.
///
/// # Safety
/// `pointer` is null or to a value that does not change while `'a` lasts.
pub(crate) unsafe fn options<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: an array of one.
    Ok(unsafe { &array(pointer, 1, what)?[0] })
}

/// A string C passed; `None` for null. What is not UTF-8 is replaced.
///
/// # Safety
/// `pointer` is null or to a C string, which does not change while `'a` lasts.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Option<std::borrow::Cow<'a, str>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by the contract.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy())
}

pub(crate) fn bead(bits: bw_bead) -> Result<Bead> {
    Bead::from_bits(bits).ok_or_else(|| {
        Error::new(bw_status::Stale, format_args!("{bits:#x} is no bead; use what a registration answered"))
    })
}

pub(crate) fn tier(number: u32) -> Result<TierId> {
    u8::try_from(number)
        .ok()
        .and_then(TierId::new)
        .ok_or_else(|| Error::argument(format_args!("there is no tier {number}; tiers are 0 to 15")))
}

pub(crate) fn group(bits: u32) -> Result<Group> {
    Group::from_bits(bits)
        .ok_or_else(|| Error::new(bw_status::NoSuchGroup, "0 is no group; make one with Engine::group"))
}

pub(crate) fn no_group(bits: u32) -> Error {
    Error::new(bw_status::NoSuchGroup, format_args!("group {bits} has ended or is not one of this engine's"))
}

pub(crate) fn assumption(number: u64) -> Result<Assumption> {
    Assumption::from_number(number)
        .ok_or_else(|| Error::argument("0 is no assumption; make one with Engine::assumption"))
}
