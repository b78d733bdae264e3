// A cluster of one node with a device, a host and a disk.
//
// Thread-safety: a constant.
#pragma once

namespace thermocline::test {

inline constexpr const char* kThreeTiers = R"([cluster]
name = "three"
[[node]]
name = "n"
device = {memory = "1GB", bandwidth = "100GB/s"}
host = {memory = "1GB", bandwidth = "10GB/s"}
disk = {memory = "1GB", bandwidth = "1GB/s"}
migration = {bandwidth = "10GB/s"}
)";

}  // namespace thermocline::test
