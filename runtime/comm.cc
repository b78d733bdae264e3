// What holds for every Comm: sums in rank order, errors that all ranks share, choosing a Comm.
#include "runtime/comm.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace thermocline {
namespace {

// The first of `names` that the environment sets to a number, else `fallback`.
template <size_t kCount>
int number_from_environment(const std::array<const char*, kCount>& names, int fallback) {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    if (text == nullptr || *text == '\0') continue;
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end == '\0' && value >= 0) return static_cast<int>(value);
  }
  return fallback;
}

// As mpirun, PMI launchers (Hydra) and srun set them; the first two also where srun starts mpirun.
constexpr std::array kRankNames = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"};
constexpr std::array kSizeNames = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};

// Below, one exchange of whole vectors is faster than two of slices: latency counts.
constexpr size_t kWholeGatherCount = size_t{1} << 14;

// total[i] = the sum over ranks of rows[rank * stride + i]; rank order, whoever adds.
void add_rows(const float* rows, size_t size, size_t stride, float* total) {
  std::copy(rows, rows + stride, total);
  for (size_t rank = 1; rank < size; ++rank) {
    for (size_t i = 0; i < stride; ++i) total[i] += rows[rank * stride + i];
  }
}

void sum_gathered(Comm& comm, float* values, size_t count, std::vector<float>& scratch) {
  const auto size = static_cast<size_t>(comm.size());
  scratch.resize(size * count);
  comm.all_gather(values, count * sizeof(float), scratch.data());
  add_rows(scratch.data(), size, count, values);
}

// Rank i sums elements [i*slice, (i+1)*slice), then the slices are gathered; the last slice is
// padded with zeros.
void sum_by_slices(Comm& comm, float* values, size_t count, std::vector<float>& scratch) {
  const auto size = static_cast<size_t>(comm.size());
  const size_t slice = (count + size - 1) / size;
  scratch.resize(2 * size * slice);
  float* mine = scratch.data();
  float* all = mine + size * slice;
  std::memcpy(mine, values, count * sizeof(float));
  std::fill(mine + count, all, 0.0f);
  comm.all_to_all(mine, slice * sizeof(float), all);
  add_rows(all, size, slice, mine);
  comm.all_gather(mine, slice * sizeof(float), all);
  std::memcpy(values, all, count * sizeof(float));
}

}  // namespace

Comm::Comm(int rank, int size) : rank_(rank), world_ranks_(static_cast<size_t>(size)) {
  count_as_job();
}

void Comm::count_as_job() {
  std::iota(world_ranks_.begin(), world_ranks_.end(), 0);
  sent_ = std::make_shared<Sent>();
  sent_->bytes.resize(world_ranks_.size());
}

std::unique_ptr<Comm> Comm::split(int color, int key) {
  std::unique_ptr<Comm> part = do_split(color, key);
  const int mine = world_ranks_[static_cast<size_t>(rank_)];
  part->do_all_gather(&mine, sizeof mine, part->world_ranks_.data());
  part->sent_ = sent_;
  return part;
}

void sum_in_rank_order(Comm& comm, float* values, size_t count, std::vector<float>& scratch) {
  if (comm.size() == 1) return;
  if (count <= kWholeGatherCount) {
    sum_gathered(comm, values, count, scratch);
  } else {
    sum_by_slices(comm, values, count, scratch);
  }
}

void together(Comm& comm, const std::function<void()>& work) {
  int mine = 0;  // exit code of this rank's failure
  std::string message;
  try {
    work();
  } catch (const AgreedError&) {
    throw;  // all ranks are leaving already
  } catch (const Error& error) {
    mine = error.exit_code();
    message = error.what();
  } catch (const std::bad_alloc&) {
    mine = static_cast<int>(ErrorKind::failed);
    message = "rank " + std::to_string(comm.rank()) + ": out of memory";
  }
  const std::vector<int> all = gathered(comm, mine);
  for (int rank = 0; rank < comm.size(); ++rank) {
    const int code = all[static_cast<size_t>(rank)];
    if (code == 0) continue;
    throw AgreedError(static_cast<ErrorKind>(code), rank == comm.rank() ? message : "");
  }
}

void with_ranks(int local_ranks, const std::function<void(Comm&)>& body) {
  if (local_ranks > 0) {
    run_local_ranks(local_ranks, body);
  } else {
    run_launched_rank(body);
  }
}

LaunchedRank launched_rank() {
  return {number_from_environment(kRankNames, 0), number_from_environment(kSizeNames, 1)};
}

void report_before_start(const Error& error) {
  if (launched_rank().size == 1) {
    std::fprintf(stderr, "thermocline: %s\n", error.what());
    return;
  }
  try {
    run_launched_rank(
        [&](Comm& comm) { throw AgreedError(error.kind(), comm.rank() == 0 ? error.what() : ""); });
  } catch (const Error& printed) {
    if (*printed.what() != '\0') std::fprintf(stderr, "thermocline: %s\n", printed.what());
  }
}

HostName this_host() {
  HostName name{};
  ::gethostname(name.data(), name.size() - 1);
  return name;
}

RankOnHost rank_on_this_host(Comm& comm) {
  const HostName mine = this_host();
  const std::vector<HostName> all = gathered(comm, mine);
  const auto count_before = [&](auto end) {
    return static_cast<int>(std::count(all.begin(), end, mine));
  };
  return {count_before(all.begin() + comm.rank()), count_before(all.end())};
}

}  // namespace thermocline
