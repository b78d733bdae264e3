#include "runtime/backend.h"

#include "models/error.h"

namespace thermocline {

void Backend::scale_by_rows(const WeightView&, const NeuronMask&, const float*, float*) {
  TC_CHECK(false, "rows in tiers are for a backend that has them");
}

Registry<BackendEntry>& backends() {
  static Registry<BackendEntry> registry("backend");
  return registry;
}

const BackendEntry& choose_backend(std::string_view name) {
  if (name == "auto") {
    const BackendEntry* cuda = backends().by_name_or_null("cuda");
    return cuda != nullptr && cuda->unusable().empty() ? *cuda : backends().by_name("cpu");
  }
  const BackendEntry& entry = backends().by_name(name);
  if (const std::string reason = entry.unusable(); !reason.empty()) {
    throw bad_usage("--backend " + entry.name + ": built, but unusable here: " + reason);
  }
  return entry;
}

}  // namespace thermocline
