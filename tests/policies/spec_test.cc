// What follows --policy.
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

std::string message_of(const std::string& policies_text) {
  try {
    parse_policies(policies_text);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("policy lists parse into labels and resolved parameters") {
  const auto specs = parse_policies("ewma:halflife=16,cap=200,fixed,oracle-static");
  REQUIRE(specs.size() == 3);
  CHECK(specs[0].label() == "ewma:halflife=16,cap=200");
  CHECK(specs[0].resolved() == "ewma:halflife=16,gamma=0.5,floor=0,residency=16,cap=200,period=8");
  CHECK(specs[0].parameters() == "halflife=16,gamma=0.5,floor=0,residency=16,cap=200,period=8");
  CHECK(specs[2].parameters() == "");
  CHECK(specs[1].label() == "fixed-topk");
  CHECK(specs[2].entry->needs_future);
  CHECK(parse_policies(specs[0].resolved())[0].values == specs[0].values);
}

TEST_CASE("wrong policies, parameters and values are usage errors that say what is valid") {
  using Catch::Matchers::Contains;
  CHECK_THAT(message_of("emwa"), Contains("did you mean 'ewma'") && Contains("oracle-static"));
  CHECK_THAT(message_of("ewma:halflive=3"), Contains("did you mean 'halflife'"));
  CHECK_THAT(message_of("ewma:halflife=0"), Contains("from 1 to 1024, found 0"));
  CHECK_THAT(message_of("ewma:halflife=1.5"), Contains("whole number"));
  CHECK_THAT(message_of("oracle-static:x=1"), Contains("no parameters"));
  CHECK_THAT(message_of("ewma:gamma=1,gamma=1"), Contains("set twice"));
  CHECK_THAT(message_of("fixed,fixed-topk:scope=global"), Contains("given twice"));
  for (const char* bad : {"", ",", "fixed,", "x=1", "ewma:", "ewma:gamma", "ewma:gamma=", "fixed,,",
                          "ewma:gamma=nan", "ewma:gamma=inf", "ewma:gamma=1e999", "=", ":"}) {
    INFO(bad);
    CHECK(message_of(bad) != "");
  }
}
