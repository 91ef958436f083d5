//! What else a function's words could look like, in loops by hand: the column `beadwork` is the layout it has, `raw` the other.

use super::{Case, Row, Scale, once, only, size};
use crate::contender::Who;
use crate::measure::{busy_nanos, call, shuffled, together, trivial_entry};
use memmap2::{Advice, MmapMut};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let (many, most) = (1_000_000, scale.pick(4_000_000, 2_000_000));
    let sizes = [250_000, many, most];
    let mut rows = vec![Row::nanos(format!("{} functions: a word, not a row of 16 bytes", size(many)))];
    rows.extend(sizes.map(|n| Row::nanos(format!("{} functions: huge pages, not small ones", size(n)))));
    rows.push(Row::nanos("two threads on neighbours: dense, not spread"));
    rows.push(Row::nanos(format!(
        "{} functions, called with their neighbours: dense, not spread",
        size(most)
    )));
    let counts = scale.pick(1 << 24, 1 << 21);
    let measure = move |row: f64, huge, apart, dense| {
        let mut nanos = vec![row];
        nanos.extend(sizes.map(|n| words(n, huge, Order::Random)));
        nanos.extend([neighbours(counts, apart), words(most, true, Order::Groups { dense })]);
        Ok(nanos)
    };
    let own = move || once(move || measure(words(many, false, Order::Random), true, 1, true));
    let other = move || once(move || measure(rows_of_16(many), false, 16, false));
    let subjects = move || only(vec![(Who::Beadwork, own()), (Who::Raw, other())], "has a layout of its own");
    vec![Case::new("layout", vec![rows], subjects).at_most(scale.pick(7, 1))]
}

/// In which order functions are called.
#[derive(Clone, Copy)]
enum Order {
    Random,
    /// By groups of [`GROUP`] that were registered together, the groups in random order. What is not dense lies apart, as if indices were
    /// swizzled.
    Groups {
        dense: bool,
    },
}

/// Words of a cache line.
const GROUP: usize = 8;

impl Order {
    fn places(self, functions: usize) -> Vec<usize> {
        match self {
            Order::Random => shuffled((0..functions).collect()),
            Order::Groups { dense } => {
                let groups = functions / GROUP;
                let place =
                    |group, member| if dense { group * GROUP + member } else { member * groups + group };
                let groups = shuffled((0..groups).collect::<Vec<_>>()).into_iter();
                groups.flat_map(|group| (0..GROUP).map(move |member| place(group, member))).collect()
            }
        }
    }
}

/// Calls the code that `code` finds at each place.
fn visit(order: &[usize], code: impl Fn(usize) -> usize) -> f64 {
    let pass = || {
        let mut x = 0;
        for &place in order {
            x = call(std::ptr::with_exposed_provenance(code(place)), x);
        }
        black_box(x);
    };
    pass();
    busy_nanos(order.len(), pass)
}

/// A tag and a pointer in 64 bits.
fn words(functions: usize, huge: bool, order: Order) -> f64 {
    let mut map = MmapMut::map_anon(functions * 8).expect("there is memory");
    if huge {
        // Advice only.
        let _ = map.advise(Advice::HugePage);
    }
    let words: &mut [u64] = bytemuck::cast_slice_mut(&mut map);
    let tag = black_box(5u64 << 49);
    words.fill(trivial_entry().expose_provenance() as u64 | tag);
    visit(&order.places(functions), |place| {
        let rest = words[place] ^ tag;
        assert!(rest < 1 << 48);
        rest as usize
    })
}

/// A pointer, a generation and flags beside each other.
fn rows_of_16(functions: usize) -> f64 {
    let rows = vec![(trivial_entry().expose_provenance(), 5u32, 0u32); functions];
    let generation = black_box(5);
    visit(&Order::Random.places(functions), |place| {
        let (code, of, flags) = rows[place];
        assert!(of == generation && flags == 0);
        code
    })
}

/// Two threads that each count in a counter of their own, `apart` counters from the other's.
fn neighbours(counts: usize, apart: usize) -> f64 {
    let counters: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
    let count = |counter: &mut &AtomicU32| {
        (0..counts).for_each(|_| counter.store(counter.load(Relaxed) + 1, Relaxed));
    };
    together(&[16, 16 + apart], |&place| black_box(&counters[place]), count).busy / counts as f64
}
