// MountedFolder: a folder with a small file system of its own, for tests of disks that are full or
// may not be written to.
//
// Goals: the machine never sees the mount, whatever becomes of the test: it is made in a mount
//   namespace of the test's own, which ends with its last process.
// Thread-safety: the namespace is that of the thread that made the first one, and of the threads
//   and processes that it starts from then on.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include "tests/support.h"

namespace thermocline::test {

class MountedFolder {
 public:
  // 1 MiB of memory. flags: as ::mount takes them.
  explicit MountedFolder(unsigned long flags = 0) {
    mounted_ = have_own_mounts() &&
               ::mount("tmpfs", folder_.path().c_str(), "tmpfs", flags, "size=1m") == 0;
    if (!mounted_) WARN("skipped: a small file system cannot be mounted here");
  }
  ~MountedFolder() {
    if (mounted_) ::umount(folder_.path().c_str());
  }
  MountedFolder(const MountedFolder&) = delete;
  MountedFolder& operator=(const MountedFolder&) = delete;

  bool mounted() const { return mounted_; }  // false where that is not permitted
  std::string path() const { return folder_.path(); }
  std::string operator/(const std::string& name) const { return folder_ / name; }

  // Whether who started this process has the mount too.
  bool seen_outside() const {
    std::ifstream in("/proc/" + std::to_string(::getppid()) + "/mountinfo");
    REQUIRE(in.good());
    const std::string mounts{std::istreambuf_iterator<char>(in), {}};
    return mounts.find(path()) != std::string::npos;
  }

 private:
  // From here on this thread, and what it starts, alone see what it mounts.
  static bool have_own_mounts() {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  }

  TempDir folder_;
  bool mounted_ = false;
};

}  // namespace thermocline::test
