#ifndef BEADWORK_INLINE_H
#define BEADWORK_INLINE_H

/*
 * The hot path, for the compiler to inline: one load of the code word, an xor and a compare where there is code. The layout it relies
 * on is that of BW_ABI.
 *
 * The word of a bead (from the top: generation - 1 in 15 bits, a flag, the entry in 48) is cut out of the column by a mask, so no bead,
 * however forged, reaches outside. `mutator` is not checked: it is a mutator, of the calling thread, and not NULL.
 */
static inline const void *bw_dispatch(const bw_mutator *mutator, bw_bead bead) {
#if defined(__GNUC__) || defined(__clang__)
  const bw_mutator_head *head = (const bw_mutator_head *)(const void *)mutator;
  /* Acquire, edge PUBLISH of the engine's protocol: who gets the entry sees the code. */
  uint64_t word = __atomic_load_n(head->code + ((uint32_t)bead & head->mask), __ATOMIC_ACQUIRE);
  uint64_t rest = word ^ (((bead >> 32) - 1) << 49);
  if (rest - 1 < (UINT64_C(1) << 48) - 1) {
    return (const void *)(uintptr_t)rest;
  }
#endif
  return bw_mutator_dispatch(mutator, bead);
}

#endif  /* BEADWORK_INLINE_H */
