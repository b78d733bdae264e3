#include "sim/replay_tables.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/units.h"
#include "sim/answer.h"

namespace thermocline {
namespace {

std::string milliseconds(double value) {
  return value < 0.1 ? fmt::format("{:.4f}", value) : fmt::format("{:.2f}", value);
}

std::string bytes_text(double bytes) { return format_bytes(static_cast<uint64_t>(bytes + 0.5)); }

std::string parameter_line(const PolicyParameter& parameter) {
  std::string range = fmt::format("{}{} to {}", parameter.whole ? "whole, " : "",
                                  parameter.value_min, parameter.value_max);
  if (!parameter.choices.empty()) {
    range.clear();
    for (const std::string& name : parameter.choices) range += (range.empty() ? "" : " | ") + name;
  }
  return fmt::format("    {:<12} {} ({}; {})\n", parameter.name, parameter.meaning, range,
                     value_text(parameter, parameter.value_default));
}

std::string row_line(const ReplayReport& report, size_t i) {
  const ReplayStats& row = report.result.rows[i];
  const TraceHeader& header = *report.header;
  const uint64_t bundle = header.bundle_bytes();
  const double whole = static_cast<double>(ffn_bytes(header.shape, header.ffn_types));
  const double steps = static_cast<double>(std::max<uint64_t>(row.total.step_count, 1));
  const auto tpot = tpot_of(row), ttft = ttft_of(row);
  return fmt::format(
      "{:<28} {:>12} {:>7.1f} {:>7.2f} {:>12} {:>12} {:>12} {:>10} {:>10} {:>10}{}\n",
      row.policy.label() + (row.policy.entry->needs_future ? " (oracle)" : ""),
      format_bytes(row.budget_bytes), 100.0 * static_cast<double>(row.budget_bytes) / whole,
      100.0 * hit_ratio(row.total), bytes_text(moved_bytes_per_token(row.total, bundle)),
      bytes_text(static_cast<double>(row.total.wasted * bundle) / steps),
      format_bytes(row.total.hot_count_peak * bundle), ttft ? milliseconds(ttft->mean) : "-",
      tpot ? milliseconds(tpot->mean) : "-", tpot ? milliseconds(tpot->p95) : "-",
      report.fits[i] ? "" : " *");
}

// Below a row of three tiers: the host's hot set, and what a step needs from where.
std::string host_line(const ReplayReport& report, const ReplayStats& row) {
  if (!row.host) return "";
  const HostHotSet& host = *row.host;
  const uint64_t bundle = report.header->bundle_bytes();
  const double steps = static_cast<double>(std::max<uint64_t>(row.total.step_count, 1));
  const auto per_step = [&](uint64_t count) { return static_cast<double>(count) / steps; };
  return fmt::format(
      "{:<28} {:>12} {:>7.1f} {:>7.2f} {:>12}   a step needs {:.1f} from the device, {:.1f} from "
      "the host, {:.1f} from the disk\n",
      "  (host)", format_bytes(host.budget_bytes),
      100.0 * static_cast<double>(host.budget_bytes) /
          static_cast<double>(ffn_bytes(report.header->shape, report.header->ffn_types)),
      100.0 * hit_ratio(host.total), bytes_text(moved_bytes_per_token(host.total, bundle)),
      per_step(host.needs.device), per_step(host.needs.host), per_step(host.needs.disk));
}

// The row that the trace's own run executed.
std::string executed_line(const ReplayReport& report, const ReplayStats& row) {
  const auto predicted = hidden_tpot_of(row);
  if (!was_executed(report, row) || !predicted) return "";
  const double executed = report.in_tiers->step_ms.mean;
  return fmt::format(
      "{} on device, host and disk: {} ms per token executed (measured), {} ms predicted "
      "(modelled, "
      "migrations hidden), ratio {:.3f}\n",
      row.policy.label(), milliseconds(executed), milliseconds(*predicted), *predicted / executed);
}

std::string conditions_line(const ReplayReport& report) {
  const ReplayOptions& options = *report.options;
  std::string text = fmt::format("{} steps", report.result.step_count);
  if (report.batch > 1) text += fmt::format(", {} requests decode together", report.batch);
  if (options.warmup_steps > 0) text += fmt::format(", {} of warm-up", options.warmup_steps);
  if (options.fill == Fill::demand) return text + ", filled on demand, one pool";
  text += fmt::format(", up to {} moved per step", format_bytes(options.migration_bytes));
  if (options.pools == Pools::layer) text += ", a pool for each layer";
  if (options.pools == Pools::model) text += ", one pool";
  if (options.group > 1) text += fmt::format(", groups of {} neurons", options.group);
  return text;
}

}  // namespace

std::string policy_table() {
  std::string text;
  for (const PolicyEntry* entry : policies().entries()) {
    std::string traits = entry->needs_future ? " (oracle)" : "";
    if (entry->ranked) traits += " (exact curves in one pass)";
    if (entry->make_request != nullptr) traits += " (--fill demand)";
    text += fmt::format("{:<16} {}{}\n", entry->name, entry->summary, traits);
    for (const PolicyParameter& parameter : entry->parameters) text += parameter_line(parameter);
  }
  return text;
}

std::string tuned_table(const ReplayJob& job) {
  if (job.tuned().empty()) return "";
  std::string text = "Tuned on another trace, never on this one:\n";
  for (const Tuned& tuned : job.tuned()) {
    text +=
        fmt::format("  {:<28} -> {:<44} {} settings, score {:.4g} -> {:.4g}\n", tuned.given.label(),
                    tuned.policy.label(), tuned.tried, tuned.score_given, tuned.score);
  }
  return text + "\n";
}

std::string replay_table(const ReplayJob& job) {
  std::string text;
  for (const ReplayReport& report : job.reports()) {
    text += fmt::format(
        "{}{}.\n{:<28} {:>12} {:>7} {:>7} {:>12} {:>12} {:>12} {:>10} {:>10} {:>10}\n",
        text.empty() ? "" : "\n", conditions_line(report), "policy", "budget", "% FFN", "hits %",
        "moved/token", "wasted/token", "peak hot", "TTFT ms", "TPOT ms", "p95 ms");
    for (size_t i = 0; i < report.result.rows.size(); ++i) {
      text += row_line(report, i) + host_line(report, report.result.rows[i]);
    }
  }
  return text;
}

std::string answer_lines(const nlohmann::ordered_json& rows) {
  const bool compared = std::any_of(rows.begin(), rows.end(), [](const auto& row) {
    return row.value("kind", "") == "comparison" && !row.value("oracle", true);
  });
  if (!compared) return "";
  const Results results = parse_results({{"rows", rows}}, "these rows");
  if (results.models.empty()) return "";
  const Answer answer = answer_of(results.models.front());
  std::string text = "\n" + answer.headline + "\n";
  for (const std::string& detail : answer.details) text += detail + "\n";
  return text;
}

std::string replay_notes(const ReplayJob& job) {
  const ReplayReport& report = job.reports().front();
  const auto fits = [](const ReplayReport& one) {
    return std::all_of(one.fits.begin(), one.fits.end(), [](bool fit) { return fit; });
  };
  std::string text = fmt::format(
      "\n{} ({} weights). Hits are counted; times are modelled on {} ({}), reading\n{}.\n",
      report.header->model, report.header->weight_provenance, report.cluster->name,
      report.cluster->measured ? "measured" : "not measured",
      report.gate == "exact" ? "every gate row, up and down rows of active neurons only"
                             : "active neurons only; a predictor's cost is not charged");
  if (!report.cluster->source.empty()) {
    text += fmt::format("Its figures: {}.\n", report.cluster->source);
  }
  if (!std::all_of(job.reports().begin(), job.reports().end(), fits)) {
    text += fmt::format("* does not fit into the memory of {}.\n", report.cluster->name);
  }
  if (report.result.step_count > 0 && !report.result.rows.empty() &&
      !tpot_of(report.result.rows[0])) {
    text += "No TPOT: the trace holds no decode step.\n";
  }
  std::string in_tiers;
  for (const ReplayStats& row : report.result.rows) in_tiers += executed_line(report, row);
  if (!in_tiers.empty()) return text + in_tiers;
  if (!job.executed()) {
    return text +
           fmt::format("No comparison with the recording machine: {}.\n", job.executed_reason());
  }
  const ExecutedComparison& executed = *job.executed();
  return text + fmt::format(
                    "Recording machine: {} ms per token executed, {} ms predicted, ratio {:.3f}\n"
                    "(reading alone: predicted over measured {:.3f}; {} ms of communication and "
                    "waiting as measured).\n",
                    milliseconds(executed.executed_ms.mean),
                    milliseconds(executed.predicted_ms.mean), executed.predicted_over_executed,
                    executed.compute_ratio, milliseconds(executed.measured_overhead_ms));
}

}  // namespace thermocline
