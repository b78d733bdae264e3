// The one translation unit that holds Catch2's main: it takes seconds to compile.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdlib>

// What the programs under test inherit. Open MPI: as root, with more ranks than cores, and with
// ranks that yield while they wait, since busy polling on 2 cores costs 400 times. Its shared
// memory confuses the leak check of a sanitized program.
int main(int argc, char** argv) {
  constexpr const char* kEnvironment[][2] = {
      {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
      {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
      {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
      {"OMPI_MCA_mpi_yield_when_idle", "1"},
      {"ASAN_OPTIONS", "detect_leaks=0"},
#ifdef THERMOCLINE_PROGRAM_PATH
      {"THERMOCLINE_PROGRAM", THERMOCLINE_PROGRAM_PATH},
#endif
  };
  for (const auto& [name, value] : kEnvironment) ::setenv(name, value, 0);
  return Catch::Session().run(argc, argv);
}
