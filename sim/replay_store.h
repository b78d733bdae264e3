// Finished rows of a replay as bytes: for other processes, and on disk for a replay that goes on.
//
// Goals: exact (CBOR holds integers and doubles as they are), so that rows that were kept give the
//   same results to the byte; whatever a file holds is checked when it is read.
// Non-goals: a format for people (sim/replay_rows.h).
// Thread-safety: plain functions; a ReplayStore belongs to one thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "sim/replay.h"

namespace thermocline {

// Rows by their index in the result.
using KeptRows = std::map<size_t, ReplayStats>;

std::string bytes_of(const KeptRows& rows);
// `like` has the rows' policies and budgets; a row that does not fit is an input Error naming
// `origin`.
KeptRows parse_kept_rows(std::string_view bytes, const ReplayResult& like,
                         const std::string& origin);

// PATH holds the finished rows of one replay, which `key` names: everything that its counters
// depend on. Written anew, whole, with each save().
class ReplayStore {
 public:
  // Empty path: keeps nothing.
  ReplayStore(std::string path, std::string key);
  // Rows of an earlier run with this key; none where there is no such file, or one of another key.
  KeptRows load(const ReplayResult& like) const;
  void add(const KeptRows& rows) { rows_.insert(rows.begin(), rows.end()); }
  void save() const;
  void remove() const;  // when the results are written

 private:
  std::string path_, key_;
  KeptRows rows_;
};

}  // namespace thermocline
