//! The list that GDB reads, and the function it watches.

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

/// GDB's `struct jit_code_entry`.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    prev: *mut Entry,
    symfile: *const u8,
    len: u64,
}

/// GDB's `struct jit_descriptor`.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: *mut Entry,
}

const NO_ACTION: u32 = 0;
const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

// GDB finds both by their names. Weak, since a program can contain another JIT compiler (LLVM defines them, too), and all use one list
// then. In assembly, because stable Rust cannot say weak.
std::arch::global_asm!(
    ".pushsection .text.__jit_debug_register_code, \"ax\", %progbits",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code, %function",
    "__jit_debug_register_code:",
    "ret",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor, \"aw\", %progbits",
    ".balign 8",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor, %object",
    "__jit_debug_descriptor:",
    ".4byte 1, 0",
    ".8byte 0, 0",
    ".size __jit_debug_descriptor, 24",
    ".popsection",
);

unsafe extern "C" {
    fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
}

/// Held while the list is changed.
static LIST: Mutex<()> = Mutex::new(());

/// A symbol file that GDB knows until this is dropped.
pub(super) struct Registered {
    entry: NonNull<Entry>,
    symfile: Box<[u8]>,
}

// SAFETY: the entry is owned, and reached through the list only under its lock.
unsafe impl Send for Registered {}

impl Registered {
    pub(super) fn new(symfile: Box<[u8]>) -> Registered {
        let _list = super::lock(&LIST);
        let len = symfile.len() as u64;
        let entry =
            Box::new(Entry { next: ptr::null_mut(), prev: ptr::null_mut(), symfile: symfile.as_ptr(), len });
        let entry = NonNull::from(Box::leak(entry));
        // SAFETY: the list is ours while it is locked, and its entries live until their owner is dropped, which unlinks them first.
        unsafe {
            let list = &raw mut __jit_debug_descriptor;
            let first = (*list).first;
            (*entry.as_ptr()).next = first;
            if !first.is_null() {
                (*first).prev = entry.as_ptr();
            }
            (*list).first = entry.as_ptr();
            tell(REGISTER, entry);
        }
        Registered { entry, symfile }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _list = super::lock(&LIST);
        let entry = self.entry.as_ptr();
        // SAFETY: as above; afterwards nothing refers to the entry.
        unsafe {
            let list = &raw mut __jit_debug_descriptor;
            let (next, prev) = ((*entry).next, (*entry).prev);
            if prev.is_null() {
                (*list).first = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
            tell(UNREGISTER, self.entry);
            drop(Box::from_raw(entry));
        }
    }
}

/// Lets GDB look at an entry.
///
/// # Safety
/// The list is locked and whole.
unsafe fn tell(action: u32, entry: NonNull<Entry>) {
    // SAFETY: by the contract; the function does nothing, unless a debugger stops in it and reads.
    unsafe {
        let list = &raw mut __jit_debug_descriptor;
        (*list).action = action;
        (*list).relevant = entry.as_ptr();
        __jit_debug_register_code();
        (*list).action = NO_ACTION;
        (*list).relevant = ptr::null_mut();
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registered({} bytes)", self.symfile.len())
    }
}

/// The symbol files GDB would find, for tests.
#[cfg(test)]
pub(super) fn all() -> Vec<Vec<u8>> {
    let _list = super::lock(&LIST);
    let mut found = Vec::new();
    // SAFETY: the list is locked, so its entries and their files are there.
    unsafe {
        let mut entry = (&raw const __jit_debug_descriptor.first).read();
        while !entry.is_null() {
            found.push(std::slice::from_raw_parts((*entry).symfile, (*entry).len as usize).to_vec());
            entry = (*entry).next;
        }
    }
    found
}
