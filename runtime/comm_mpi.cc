// MpiComm: ranks as processes that mpirun or srun started. The only file that includes mpi.h.
#include <chrono>
#include <cstdio>
#include <limits>
#include <thread>

#include "runtime/comm.h"

#ifdef THERMOCLINE_HAVE_MPI
#define OMPI_SKIP_MPICXX 1  // the C++ bindings that MPI 3 removed warn under -Wextra
#include <mpi.h>
#endif

namespace thermocline {

#ifdef THERMOCLINE_HAVE_MPI
namespace {

// Every MPI call passes here. MPI_ERRORS_RETURN gives a code, which becomes a message.
void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw work_failed(std::string(call) + ": " + std::string(text, static_cast<size_t>(length)));
}

int count_of(size_t bytes) {
  TC_CHECK(bytes <= static_cast<size_t>(std::numeric_limits<int>::max()),
           std::to_string(bytes) + " bytes in one message");
  return static_cast<int>(bytes);
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  check(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

class MpiComm final : public Comm {
 public:
  explicit MpiComm(MPI_Comm comm, bool owned)
      : Comm(rank_in(comm), size_of(comm)), comm_(comm), owned_(owned) {
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  ~MpiComm() override {
    MPI_Waitall(static_cast<int>(sends_.size()), sends_.data(), MPI_STATUSES_IGNORE);
    if (owned_) MPI_Comm_free(&comm_);
  }

  void barrier() override { check(MPI_Barrier(comm_), "MPI_Barrier"); }

  void advance_sends() override {
    int done = 0;
    if (sends_.empty()) return;
    check(MPI_Testall(static_cast<int>(sends_.size()), sends_.data(), &done, MPI_STATUSES_IGNORE),
          "MPI_Testall");
    if (done != 0) sends_.clear();
  }
  void finish_sends() override {
    check(MPI_Waitall(static_cast<int>(sends_.size()), sends_.data(), MPI_STATUSES_IGNORE),
          "MPI_Waitall");
    sends_.clear();
  }

  void receive_asleep(int from, void* data, size_t bytes) override {
    for (int here = 0;;) {
      check(MPI_Iprobe(from, 0, comm_, &here, MPI_STATUS_IGNORE), "MPI_Iprobe");
      if (here != 0) return do_receive(from, data, bytes);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

 private:
  void do_send(int to, const void* data, size_t bytes) override {
    check(MPI_Send(data, count_of(bytes), MPI_BYTE, to, 0, comm_), "MPI_Send");
  }
  void do_start_send(int to, const void* data, size_t bytes) override {
    sends_.push_back(MPI_REQUEST_NULL);
    check(MPI_Isend(data, count_of(bytes), MPI_BYTE, to, 0, comm_, &sends_.back()), "MPI_Isend");
  }
  void do_receive(int from, void* data, size_t bytes) override {
    check(MPI_Recv(data, count_of(bytes), MPI_BYTE, from, 0, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
  }
  void do_all_gather(const void* mine, size_t bytes, void* all) override {
    check(MPI_Allgather(mine, count_of(bytes), MPI_BYTE, all, count_of(bytes), MPI_BYTE, comm_),
          "MPI_Allgather");
  }
  void do_all_to_all(const void* mine, size_t bytes, void* all) override {
    check(MPI_Alltoall(mine, count_of(bytes), MPI_BYTE, all, count_of(bytes), MPI_BYTE, comm_),
          "MPI_Alltoall");
  }
  std::unique_ptr<Comm> do_split(int color, int key) override {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    return std::make_unique<MpiComm>(part, true);
  }

  MPI_Comm comm_;
  bool owned_;
  std::vector<MPI_Request> sends_;  // that were started
};

// MPI_Init to MPI_Finalize. Only the thread that runs a rank calls MPI.
class MpiSession {
 public:
  MpiSession() {
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
      throw work_failed("MPI_Init_thread failed");
    }
  }
  ~MpiSession() { MPI_Finalize(); }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

[[noreturn]] void abort_job(const Comm& comm, const std::exception& error, int code) {
  std::fprintf(stderr, "thermocline: rank %d: %s\n", comm.rank(), error.what());
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, code);
  std::abort();  // MPI_Abort does not return
}

// Ends in an Error only where all ranks end in it: rank by rank the message is printed, and then
// all finalize, so that mpirun passes the exit code on.
void run_as_mpi_rank(const std::function<void(Comm&)>& body) {
  const MpiSession session;
  MpiComm comm(MPI_COMM_WORLD, false);
  try {
    body(comm);
  } catch (const AgreedError& error) {
    if (*error.what() != '\0') std::fprintf(stderr, "thermocline: %s\n", error.what());
    std::fflush(stderr);
    comm.barrier();
    throw AgreedError(error.kind(), "");
  } catch (const Error& error) {
    abort_job(comm, error, error.exit_code());
  } catch (const std::exception& error) {
    abort_job(comm, error, static_cast<int>(ErrorKind::failed));
  }
}

}  // namespace

void run_launched_rank(const std::function<void(Comm&)>& body) {
  // One rank needs no MPI, and MPI_Init without a launcher costs 0.1 s and a daemon.
  if (launched_rank().size == 1) return run_local_ranks(1, body);
  run_as_mpi_rank(body);
}

#else

void run_launched_rank(const std::function<void(Comm&)>& body) {
  if (launched_rank().size > 1) {
    throw bad_usage("started with " + std::to_string(launched_rank().size) +
                    " ranks, but this thermocline is built without MPI: configure with "
                    "-DTHERMOCLINE_MPI=ON, or use --local-ranks N");
  }
  run_local_ranks(1, body);
}

#endif

}  // namespace thermocline
