// A table of named things that register themselves: policies, checkpoint formats, backends.
//
// Goals: one file and one line extend the program; help, errors, sweeps and contract tests are
//   read off the table, which is sorted by name so that no listing depends on link order.
// Non-goals: plug-ins at run time, dependency injection.
// Thread-safety: filled before main(), read-only afterwards.
// Registering objects must be linked from an OBJECT library: a STATIC one drops them silently.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/error.h"

namespace thermocline {

// The name in `valid` with the fewest edits to `name`; empty if `valid` is.
std::string nearest_name(std::string_view name, const std::vector<std::string>& valid);

// "unknown WHAT 'NAME'; did you mean 'x'? valid: a, b, c".
Error unknown_name(std::string_view what, std::string_view name,
                   const std::vector<std::string>& valid);

template <class Entry>  // Entry has std::string name, summary
class Registry {
 public:
  explicit Registry(std::string what) : what_(std::move(what)) {}

  bool add(Entry entry) {
    const std::string name = entry.name;
    const bool inserted = entries_.emplace(name, std::move(entry)).second;
    TC_CHECK(inserted, "two entries named '" + name + "' in the registry of " + what_);
    return true;
  }

  // The entry, or a usage Error that lists the valid names.
  const Entry& by_name(std::string_view name) const {
    const Entry* entry = by_name_or_null(name);
    if (entry == nullptr) throw unknown_name(what_, name, names());
    return *entry;
  }

  const Entry* by_name_or_null(std::string_view name) const {
    const auto found = entries_.find(std::string(name));
    return found == entries_.end() ? nullptr : &found->second;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : entries_) names.push_back(name);
    return names;
  }

  std::vector<const Entry*> entries() const {
    std::vector<const Entry*> list;
    for (const auto& [name, entry] : entries_) list.push_back(&entry);
    return list;
  }

 private:
  std::string what_;
  std::map<std::string, Entry> entries_;
};

}  // namespace thermocline
