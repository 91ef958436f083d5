//! Code that outlives its engine: kept by one, run by another in which every address and handle is another one.

use super::{Rig, Tested};
use beadwork::{Archive, BailoutInfo};

/// Functions 4 to 6 of a program contain what an engine gives: the handle of function 1 and the version, both added; a count of block 2
/// of 3, which answers x; and x + 50, with a loop entry at site 5 that answers 500 more than the second word of its frame.
pub fn what_code_has_of_an_engine_is_of_this_one<T: Tested>(rig: &Rig<T>) {
    let version = i64::from(rig.engine.version(rig.beads[4]).unwrap());
    assert_eq!(rig.call(4, 10), rig.beads[1].to_bits().cast_signed() + version + 10);
    let blocks = || rig.engine.profile(rig.beads[5]).unwrap().unwrap().blocks().to_vec();
    let before = blocks()[2];
    assert_eq!((rig.call(5, 10), blocks()), (10, vec![0, 0, before + 1]));
    assert_eq!((rig.call(6, 10), rig.enter(6, 5, &mut [0_i64, 7])), (60, 507));
}

/// `rig` has its code from the archive.
pub fn code_that_failed_is_compiled_anew_and_not_loaded_again<T: Tested>(rig: &Rig<T>, archive: &Archive) {
    let (before, bead) = (archive.stats(), rig.beads[0]);
    assert!(before.loaded > 0);
    let version = rig.engine.version(bead).unwrap();
    rig.engine.bailout(bead, BailoutInfo::new(version)).unwrap();
    rig.engine.run_pending(usize::MAX);
    assert!(rig.is_native(0));
    assert_eq!(archive.stats(), before);
}
