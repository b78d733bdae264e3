// Seven tasks of MBPP's form, in tests/short_tasks.jsonl: five of the split test, two of train.
//
// Each is 160 tokens long, less than half of one that is built in: for tests that compare whole
// runs, whose time is that of the kernels.
// Thread-safety: a constant.
#pragma once

namespace thermocline::test {

inline constexpr const char* kShortTasks = THERMOCLINE_SOURCE_DIR "/tests/short_tasks.jsonl";

}  // namespace thermocline::test
