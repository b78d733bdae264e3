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

class MpiComm final : public Comm {
 public:
  explicit MpiComm(MPI_Comm comm, bool owned) : comm_(comm), owned_(owned) {
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }
  ~MpiComm() override {
    if (owned_) MPI_Comm_free(&comm_);
  }
  MpiComm(const MpiComm&) = delete;
  MpiComm& operator=(const MpiComm&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void barrier() override { check(MPI_Barrier(comm_), "MPI_Barrier"); }

  void send(int to, const void* data, size_t bytes) override {
    check(MPI_Send(data, count_of(bytes), MPI_BYTE, to, 0, comm_), "MPI_Send");
  }
  void receive(int from, void* data, size_t bytes) override {
    check(MPI_Recv(data, count_of(bytes), MPI_BYTE, from, 0, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
  }
  void receive_asleep(int from, void* data, size_t bytes) override {
    for (int here = 0;;) {
      check(MPI_Iprobe(from, 0, comm_, &here, MPI_STATUS_IGNORE), "MPI_Iprobe");
      if (here != 0) return receive(from, data, bytes);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  void all_gather(const void* mine, size_t bytes, void* all) override {
    check(MPI_Allgather(mine, count_of(bytes), MPI_BYTE, all, count_of(bytes), MPI_BYTE, comm_),
          "MPI_Allgather");
  }
  void all_to_all(const void* mine, size_t bytes, void* all) override {
    check(MPI_Alltoall(mine, count_of(bytes), MPI_BYTE, all, count_of(bytes), MPI_BYTE, comm_),
          "MPI_Alltoall");
  }
  using Comm::split;
  std::unique_ptr<Comm> split(int color, int key) override {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    return std::make_unique<MpiComm>(part, true);
  }

 private:
  MPI_Comm comm_;
  bool owned_;
  int rank_ = 0;
  int size_ = 1;
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
