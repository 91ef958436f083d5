// A C++ exception that leaves a callback ends the process; it does not go on through frames of the library.
#include "beadwork.h"

#include <cstdio>
#include <stdexcept>

static void compile(void *, bw_job *) { throw std::runtime_error("out of the callback"); }

int main() {
  bw_tier tier = {};
  tier.compile = compile;
  bw_engine_options options = {};
  options.abi = BW_ABI;
  options.is_inline = true;
  options.tiers = &tier;
  options.tier_count = 1;
  bw_engine *engine;
  bw_bead bead;
  if (bw_engine_new(&options, &engine) != BW_STATUS_OK || bw_engine_register(engine, 0, nullptr, &bead) != BW_STATUS_OK) {
    return 2;
  }
  try {
    bw_engine_compile_now(engine, bead, 1, 1000, nullptr);
  } catch (...) {
  }
  std::puts("went on");
  return 0;
}
