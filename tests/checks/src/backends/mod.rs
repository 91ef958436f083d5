//! What a compiled backend has to hold, whatever its IR is: properties of a [`Tested`] one, which the tests of the backends call.

pub mod artifacts;
pub mod calls;
pub mod counting;
pub mod lifetime;
pub mod loops;
pub mod parallel;
mod rig;
pub mod units;
pub mod unwind;

pub use rig::{KEYS, Rig, Seen};

use beadwork::{Backend, Bead, CompileError};
use beadwork_arena::Arena;
use beadwork_object::{BackendStats, Entry};
use std::time::Duration;

/// Far more than any of these tests takes; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A backend, with a frontend that builds a list of functions.
pub trait Tested: Sized + 'static {
    type Backend: Backend;
    type Options: Clone;
    /// Builds one function, `i64 -> i64`.
    type Body;

    /// What most tests use: they are about the backend and not about what optimizations do.
    fn options() -> Self::Options;
    /// From few optimizations to many, with what they are called.
    fn levels() -> Vec<(String, Self::Options)>;
    fn with(options: Self::Options, choice: With) -> Self::Options;

    /// A function that gets its parameter and all functions, and answers the result.
    fn body(
        build: impl Fn(&mut dyn Ir, Value, &[Bead]) -> Result<Value, CompileError> + Send + Sync + 'static,
    ) -> Self::Body;
    /// `for i in 0..n { for j in 0..i { sum = sum * 31 + j } }`, as a function of `n` or from the frame `[n, sum, i, j]` at the header of
    /// the outer (site 1) or the inner loop (site 2).
    fn nest() -> Self::Body;
    /// A function's core is its number.
    fn backend(options: Self::Options, bodies: Vec<Self::Body>, seen: Seen) -> Self::Backend;
    fn stats(backend: &Self::Backend) -> BackendStats;
}

/// An option that all backends have.
#[derive(Debug)]
pub enum With {
    Symbol(&'static str, *const u8),
    Arena(Arena),
    CalleeBits,
}

/// A word in the code that is built.
#[derive(Clone, Copy, Debug)]
pub struct Value(pub usize);

/// Builds code of 64-bit words, by whichever IR. Panics where that refuses.
pub trait Ir {
    fn number(&mut self, n: i64) -> Value;
    fn add(&mut self, a: Value, b: Value) -> Value;
    fn mul(&mut self, a: Value, b: Value) -> Value;
    fn xor(&mut self, a: Value, b: Value) -> Value;
    /// `if x == 0 { at_zero } else { otherwise() }`
    fn unless_zero(
        &mut self,
        x: Value,
        at_zero: i64,
        otherwise: &mut dyn FnMut(&mut dyn Ir) -> Value,
    ) -> Value;

    fn call(&mut self, callee: Bead, x: Value) -> Value;
    fn call_symbol(&mut self, name: &str, x: Value) -> Value;
    fn code_pointer(&mut self, callee: Bead) -> Value;
    /// The address of so many bytes.
    fn data(&mut self, bytes: &[u8]) -> Value;

    fn include(&mut self, body: Bead) -> bool;
    /// Whether it is the function itself that is built, and not a body in it.
    fn is_root(&mut self) -> bool;
    fn call_sites(&mut self, count: u32) -> bool;

    fn entry(&self) -> Entry;
    fn add_loop_entry(&mut self, site: u64);
    /// Words of a frame at these offsets.
    fn load_live(&mut self, frame: Value, offsets: &[i32]) -> Vec<Value>;

    fn plus(&mut self, x: Value, n: i64) -> Value {
        let n = self.number(n);
        self.add(x, n)
    }
}

/// A function that answers its parameter plus `n`.
pub fn plus<T: Tested>(n: i64) -> T::Body {
    T::body(move |ir, x, _| Ok(ir.plus(x, n)))
}

/// A test for each property, in modules by subject. (What takes more than a backend, the tests of that call themselves.)
#[macro_export]
macro_rules! properties {
    ($tested:ty) => {
        $crate::properties! { $tested:
            calls {
                recursion_goes_through_the_functions_own_slot
                a_callee_without_code_is_reached_through_the_fallback_and_learned_from_its_bits
                mutual_recursion_runs_natively_once_both_are_compiled
                an_invalidated_callee_is_interpreted_again_by_callers_that_stay_as_they_are
                a_recompiled_callee_is_reached_by_callers_that_stay_as_they_are
                a_removed_callee_leaves_the_fallback_to_callers_that_embed_its_slot
                a_slot_is_read_at_every_call
                without_a_fallback_a_code_pointer_is_null_until_there_is_code
                two_tiers_of_one_engine_share_an_arena
            }
            lifetime {
                the_engine_hears_the_size_and_compile_time_of_each_function
                code_is_freed_per_function_while_its_batch_lives_on
                code_waits_for_every_mutator_before_it_is_freed
                a_superseded_result_frees_its_code_at_once
                a_request_superseded_while_its_batch_is_compiled_costs_no_compile
                code_outlives_the_backend_and_goes_with_the_engine
            }
            loops {
                a_nest_entered_at_any_iteration_of_any_loop_ends_with_the_functions_result
                all_entries_of_a_compile_are_one_block_and_go_with_it_once
                sites_are_any_numbers_and_asking_twice_is_asking_once
                a_frontend_that_asks_for_no_loop_entry_is_asked_for_none
                a_frontend_that_does_not_look_which_entry_it_builds_gets_no_loop_entry
                a_loop_entry_that_has_no_place_leaves_the_function_its_own
                a_panic_passes_through_a_loop_entry_and_profilers_know_its_name
                loop_entries_call_through_slots_and_take_the_hidden_argument_like_functions
            }
            units {
                included_callees_are_part_of_the_code_and_need_none_of_their_own
                the_code_goes_with_a_redefinition_of_what_it_contains_and_comes_back_with_the_new_body
                functions_that_call_each_other_and_themselves_are_direct_calls_within_a_unit
                a_unit_with_a_function_that_cannot_be_built_is_compiled_without
                a_unit_that_is_overtaken_by_a_redefinition_is_discarded_and_no_failure
                a_callee_that_is_gone_fails_the_function_whether_it_is_built_with_bodies_or_without
                a_unit_with_a_body_that_panics_is_compiled_without_and_the_next_one_with
                a_function_that_panics_with_bodies_of_others_in_it_is_compiled_without
                call_sites_are_recorded_for_the_function_and_never_for_a_body_in_it
            }
            unwind {
                a_panic_passes_through_compiled_frames_to_the_vms_catch
                a_backtrace_reaches_through_compiled_frames
                a_batch_is_one_unwind_table_and_none_is_left_when_its_code_is_gone
            }
        }
    };
    ($tested:ty: $($module:ident { $($name:ident)* })*) => {
        $(mod $module {
            $(
                #[test]
                fn $name() {
                    $crate::backends::$module::$name::<$tested>();
                }
            )*
        })*
    };
}
