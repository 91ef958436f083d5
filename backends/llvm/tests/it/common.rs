//! What any compiled backend has to hold.

beadwork_checks::properties!(crate::rig::Llvm);
