// A GGUF model cut into several files, PREFIX-00001-of-00003.gguf and so on (llama.cpp's
// gguf-split).
//
// Each part is a whole GGUF file with the keys split.no (from 0), split.count and
//   split.tensors.count (of all parts together); the first part has all other keys.
// Goals: whichever part the user names, all are opened; counts are checked. Non-goals: meaning.
// Thread-safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/gguf_file.h"

namespace thermocline {

struct GgufPart {
  CheckpointFile file;
  GgufFile gguf;
};

// The parts in order; the file alone where it is not split. Errors: a name of another form, a part
// that is missing or says something else than the first.
std::vector<GgufPart> open_gguf_parts(const CheckpointFile& file, const Neighbours& neighbours,
                                      std::string_view magic);

// "PREFIX-00002-of-00003.gguf"; `index` from 0.
std::string gguf_part_name(const std::string& prefix, uint32_t index, uint32_t count);

}  // namespace thermocline
