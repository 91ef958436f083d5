//! What C hands over to be kept: a pointer of its own, and how to let go of it.

use std::ffi::c_void;

/// Lets go of something C handed over, once.
pub type bw_free_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void)>;

/// A pointer of the VM's, freed when this is dropped.
pub(crate) struct UserData {
    data: *mut c_void,
    free: bw_free_fn,
}

// SAFETY: the header says that callbacks come on any thread and that `data` has to be good for that.
unsafe impl Send for UserData {}
// SAFETY: as above: and by several threads at once.
unsafe impl Sync for UserData {}

impl UserData {
    pub(crate) fn new(data: *mut c_void, free: bw_free_fn) -> UserData {
        UserData { data, free }
    }

    pub(crate) fn get(&self) -> *mut c_void {
        self.data
    }

    /// Gives the pointer up: it is not freed here any more.
    pub(crate) fn release(mut self) -> *mut c_void {
        self.free = None;
        self.data
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the VM gave both together, and this is the one call.
            unsafe { free(self.data) }
        }
    }
}
