// The registry: sorted listing, the nearest valid name, no two entries of one name.
#include "models/registry.h"

#include <catch2/catch.hpp>

#include "tests/models/failures.h"

namespace thermocline::test {
namespace {

using Catch::Contains;
using Names = std::vector<std::string>;

struct Fruit {
  std::string name;
  std::string summary;
};

Registry<Fruit> fruits() {
  Registry<Fruit> registry("fruit");
  registry.add({"pear", "sweet"});
  registry.add({"apple", "crisp"});
  registry.add({"cherry", "small"});
  return registry;
}

TEST_CASE("entries are listed by name, whatever the order of registration") {
  const auto registry = fruits();
  CHECK(registry.names() == Names{"apple", "cherry", "pear"});
  REQUIRE(registry.entries().size() == 3);
  CHECK(registry.entries()[0]->summary == "crisp");
}

TEST_CASE("by_name finds an entry or lists the valid names: by_name_or_null may fail") {
  const auto registry = fruits();
  CHECK(registry.by_name("pear").summary == "sweet");
  CHECK(registry.by_name_or_null("plum") == nullptr);
  const Failure failure = failure_of([&registry] { registry.by_name("chery"); });
  CHECK(failure.kind == ErrorKind::usage);
  CHECK(failure.message ==
        "unknown fruit 'chery'; did you mean 'cherry'? valid: apple, cherry, pear");
}

TEST_CASE("an empty registry still answers") {
  const Registry<Fruit> empty("fruit");
  CHECK(empty.names().empty());
  CHECK_THAT(failure_of([&empty] { empty.by_name("x"); }).message, Contains("unknown fruit 'x'"));
}

TEST_CASE("two entries of one name are a bug") {
  const int twice = outcome_in_child([] {
    auto registry = fruits();
    registry.add({"pear", "again"});
    return 0;
  });
  CHECK(twice == 128 + SIGABRT);
}

TEST_CASE("the nearest name has the fewest edits, and letters of the other case are near") {
  CHECK(nearest_name("ewm", {"ewma", "fixed"}) == "ewma");
  CHECK(nearest_name("fxied", {"ewma", "fixed"}) == "fixed");
  CHECK(nearest_name("GIB", {"GB", "GiB", "MiB"}) == "GiB");
  CHECK(nearest_name("", {"abc", "ab"}) == "ab");
  CHECK(nearest_name("same", {"some", "sane"}) == "some");  // the first of equals
  CHECK(nearest_name("x", {}).empty());
  CHECK(nearest_name(std::string(5000, 'a'), {"ewma"}) == "ewma");
}

}  // namespace
}  // namespace thermocline::test
