#include "models/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "models/registry.h"
#include "models/text.h"

namespace thermocline {
namespace {

// Decimal texts are held as integers, so that "0.3" and "30%" are exact and no listing of budgets
// depends on how a machine rounds.
__extension__ using Wide = unsigned __int128;

constexpr int kFractionDigitsMax = 9;
constexpr uint64_t kFractionScale = 1'000'000'000;  // 10^kFractionDigitsMax
constexpr uint64_t kBudgetCountMax = 10'000;

struct ByteUnit {
  std::string_view name;
  uint64_t bytes;
};

constexpr auto kByteUnits = std::to_array<ByteUnit>({
    {"B", 1},
    {"kB", 1'000},
    {"KB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
    {"KiB", uint64_t{1} << 10},
    {"MiB", uint64_t{1} << 20},
    {"GiB", uint64_t{1} << 30},
    {"TiB", uint64_t{1} << 40},
});

Error not_a(std::string_view what, std::string_view text, std::string_view why = "") {
  return bad_usage(
      fmt::format("expected {}, found '{}'{}{}", what, text, why.empty() ? "" : ": ", why));
}

constexpr std::string_view kBytesForm = "bytes such as 4096, 4KiB, 1.5GiB or 10MB";
constexpr std::string_view kRateForm = "bytes per second such as 42GB/s or 1.5GiB/s";
constexpr std::string_view kBudgetForm =
    "a budget such as 4GiB, 10%, 4GiB..40GiB/4GiB, 10%..90%/20%, a comma list of these, or auto";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

uint64_t byte_unit(std::string_view name) {
  for (const ByteUnit& unit : kByteUnits) {
    if (unit.name == name) return unit.bytes;
  }
  std::vector<std::string> valid;
  valid.reserve(kByteUnits.size());
  for (const ByteUnit& unit : kByteUnits) valid.emplace_back(unit.name);
  throw unknown_name("unit of bytes", name, valid);
}

// A decimal at the start of a text, and what follows it.
struct Decimal {
  Wide scaled;  // the value times kFractionScale
  bool whole;   // written without a fraction
  std::string_view rest;
};

// Digits, optionally a point and up to nine digits more. `form` says what was expected.
Decimal take_decimal(std::string_view text, std::string_view form, std::string_view all) {
  const auto take_digits = [&text] {
    const auto end = std::find_if_not(text.begin(), text.end(), is_digit);
    const std::string_view digits = text.substr(0, static_cast<size_t>(end - text.begin()));
    text.remove_prefix(digits.size());
    return digits;
  };
  const std::string_view integer = take_digits();
  if (integer.empty()) throw not_a(form, all);
  uint64_t value = 0;
  const auto parsed = std::from_chars(integer.data(), integer.data() + integer.size(), value);
  if (parsed.ec != std::errc()) throw not_a(form, all, "the number is above 2^64");
  Decimal decimal{Wide{value} * kFractionScale, true, text};
  if (!text.starts_with('.')) return decimal;
  text.remove_prefix(1);
  const std::string_view fraction = take_digits();
  if (fraction.empty()) throw not_a(form, all);
  if (fraction.size() > kFractionDigitsMax) throw not_a(form, all, "more than nine decimals");
  uint64_t weight = kFractionScale;
  for (const char digit : fraction) {
    weight /= 10;
    decimal.scaled += Wide{weight} * static_cast<unsigned>(digit - '0');
  }
  decimal.whole = false;
  decimal.rest = text;
  return decimal;
}

// The nearest whole number of bytes.
uint64_t bytes_in(std::string_view text, std::string_view form, std::string_view all) {
  const Decimal decimal = take_decimal(text, form, all);
  std::string_view unit = decimal.rest;
  if (unit.starts_with(' ')) unit.remove_prefix(1);  // as format_bytes writes it
  const uint64_t factor = unit.empty() && decimal.rest.empty() ? 1 : byte_unit(unit);
  if (factor == 1 && !decimal.whole) throw not_a(form, all, "a byte has no parts");
  const Wide bytes = (decimal.scaled * factor + kFractionScale / 2) / kFractionScale;
  if (bytes > UINT64_MAX) throw not_a(form, all, "more than 2^64 bytes");
  return static_cast<uint64_t>(bytes);
}

// One budget in parts of 10^-11 bytes: fine enough that percentages stay exact until the end.
constexpr uint64_t kPartsPerByte = 100 * kFractionScale;

struct BudgetContext {
  std::string_view item;
  uint64_t full_bytes;
  uint64_t bundle_bytes;
};

Wide parts_of(std::string_view text, const BudgetContext& context) {
  if (!text.ends_with('%')) return Wide{bytes_in(text, kBudgetForm, context.item)} * kPartsPerByte;
  const Decimal percent = take_decimal(text, kBudgetForm, context.item);
  if (percent.rest != "%") throw not_a(kBudgetForm, context.item);
  // Above the model anyway; and the product below must not overflow.
  if (percent.scaled > Wide{1000} * kFractionScale) {
    throw not_a("a budget of at most 100%", context.item);
  }
  return percent.scaled * context.full_bytes;
}

uint64_t checked_budget(Wide parts, const BudgetContext& context) {
  const Wide bytes = parts / kPartsPerByte;
  if (bytes < context.bundle_bytes) {
    throw not_a(fmt::format("a budget of at least one bundle ({} bytes)", context.bundle_bytes),
                context.item, fmt::format("{} bytes", static_cast<uint64_t>(bytes)));
  }
  if (bytes > context.full_bytes) {
    throw not_a(fmt::format("a budget within all the FFN bundles of the model ({} bytes, {})",
                            context.full_bytes, format_bytes(context.full_bytes)),
                context.item);
  }
  return static_cast<uint64_t>(bytes);
}

void add_range(std::set<uint64_t>& budgets, size_t dots, const BudgetContext& context) {
  const std::string_view item = context.item;
  const size_t slash = item.find('/', dots);
  if (slash == std::string_view::npos) throw not_a("a range FROM..TO/STEP", item, "no /STEP");
  const Wide from = parts_of(item.substr(0, dots), context);
  const Wide to = parts_of(item.substr(dots + 2, slash - dots - 2), context);
  const Wide step = parts_of(item.substr(slash + 1), context);
  if (step == 0) throw not_a("a range FROM..TO/STEP", item, "STEP is zero");
  if (from > to) throw not_a("a range FROM..TO/STEP", item, "FROM is above TO");
  if ((to - from) / step >= kBudgetCountMax) {
    throw not_a(fmt::format("a range of at most {} budgets", kBudgetCountMax), item);
  }
  checked_budget(to, context);
  for (Wide parts = from; parts <= to; parts += step) {
    budgets.insert(checked_budget(parts, context));
  }
}

}  // namespace

uint64_t parse_bytes(std::string_view text) { return bytes_in(text, kBytesForm, text); }

double parse_bytes_per_second(std::string_view text) {
  if (!text.ends_with("/s")) throw not_a(kRateForm, text);
  const uint64_t bytes = bytes_in(text.substr(0, text.size() - 2), kRateForm, text);
  if (bytes == 0) throw not_a(kRateForm, text, "a rate of zero");
  return static_cast<double>(bytes);
}

uint64_t parse_count(std::string_view text) {
  uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    throw not_a("a whole number from 0 to 2^64 - 1", text);
  }
  return value;
}

double parse_number(std::string_view text) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole_text = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (!whole_text || !std::isfinite(value)) throw not_a("a finite decimal number", text);
  return value;
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kNames[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t name = 0;
  // 1023.995 would be printed as 1024.00.
  while (value >= 1023.995 && name + 1 < std::size(kNames)) {
    value /= 1024;
    ++name;
  }
  return fmt::format("{:.2f} {}", value, kNames[name]);
}

std::vector<uint64_t> parse_budgets(std::string_view text, uint64_t full_bytes,
                                    uint64_t bundle_bytes) {
  TC_CHECK(bundle_bytes > 0 && bundle_bytes <= full_bytes, "a model has at least one bundle");
  std::set<uint64_t> budgets;
  for (const std::string_view written : split(text, ',')) {
    const BudgetContext context{written == "auto" ? "10%..90%/20%" : written, full_bytes,
                                bundle_bytes};
    const size_t dots = context.item.find("..");
    if (dots != std::string_view::npos) {
      add_range(budgets, dots, context);
    } else {
      budgets.insert(checked_budget(parts_of(context.item, context), context));
    }
  }
  return {budgets.begin(), budgets.end()};
}

}  // namespace thermocline
