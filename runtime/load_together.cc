#include "runtime/load_together.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "models/error.h"
#include "runtime/host_memory.h"

namespace thermocline {
namespace {

std::string what_to_do(const TierOptions& tiers) {
  const std::string always = ": more hosts, fewer layers, a smaller --model type, or ";
  if (!tiers.folder.empty()) {
    return always + (tiers.host == nullptr ? "a smaller --budget" : "a smaller --host-budget");
  }
  return always + (tiers.host == nullptr ? "--disk-tier" : "--tiers device,host,disk");
}

void refuse_crowded_hosts(Comm& comm, uint64_t needed, const Backend& host,
                          const TierOptions& tiers) {
  const std::vector<RankMemory> ranks =
      gathered(comm, RankMemory{this_host(), needed, host.free_bytes()});
  together(comm, [&] {
    if (comm.rank() != 0) return;  // one says it for all
    const std::string lack = lack_of_host_memory(ranks);
    if (!lack.empty()) throw work_failed(lack + what_to_do(tiers));
  });
}

}  // namespace

LoadedWeights load_together(Comm& comm, const WeightSource& source, const Partition& partition,
                            Backend& backend, bool check_finite, const TierOptions& tiers) {
  std::optional<WeightLoad> load;
  together(comm, [&] {
    load.emplace(source, partition, static_cast<uint32_t>(comm.rank()), backend, check_finite,
                 tiers);
  });
  refuse_crowded_hosts(comm, load->host_bytes(), tiers.host != nullptr ? *tiers.host : backend,
                       tiers);
  together(comm, [&] { load->reserve_bundles(); });
  together(comm, [&] { load->make_bundles(); });
  LoadedWeights loaded;
  together(comm, [&] { loaded.weights = load->load(); });
  const std::vector<uint8_t> made = gathered(comm, uint8_t{load->made_bundles()});
  loaded.made_bundles = std::ranges::find(made, 1) != made.end();
  load->keep_bundles();
  return loaded;
}

}  // namespace thermocline
