#include "runtime/run_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/units.h"
#include "runtime/kv_cache.h"
#include "runtime/run_partition.h"
#include "traces/interrupted.h"
#include "traces/magnitude_codes.h"

namespace thermocline {
namespace {

std::unique_ptr<Tokenizer> choose_tokenizer(const RunOptions& options, const ModelSpec& spec,
                                            uint32_t vocab_size) {
  if (!options.tokenizer.empty()) return open_tokenizer(options.tokenizer, vocab_size);
  if (spec.synthetic()) return open_tokenizer("byte", vocab_size);
  return tokenizer_of(*open_checkpoint(spec.path));
}

std::vector<Prompt> choose_prompts(const RunOptions& options, RunPlan& plan) {
  if (options.prompt.has_value()) {
    if (options.teacher_forced) {
      throw bad_usage(
          "--teacher-forced needs solutions: give --prompts FILE, or neither --prompt "
          "nor --prompts for the built-in tasks");
    }
    plan.prompts_text = "--prompt";
    return {{0, *options.prompt, ""}};
  }
  const std::string& path = options.prompts.path;
  plan.prompts_text =
      fmt::format("{}, {}, {} shots", path.empty() ? "embedded" : path.substr(path.rfind('/') + 1),
                  options.prompts.split, options.prompts.shots);
  return make_prompts(options.prompts);
}

// Prompt and solution are one text to the tokenizer; the prompt's tokens are those that do not
// depend on the solution.
TaskInput tokenized(const Prompt& prompt, const RunOptions& options, const Tokenizer& tokenizer) {
  TaskInput task;
  task.task_id = prompt.task_id;
  task.prompt = tokenizer.encode(prompt.prompt);
  if (options.teacher_forced) {
    const auto whole = tokenizer.encode(prompt.prompt + prompt.solution);
    const auto split =
        std::mismatch(task.prompt.begin(), task.prompt.end(), whole.begin(), whole.end());
    task.forced.assign(split.second, whole.end());
    task.prompt.erase(split.first, task.prompt.end());
  } else {
    task.new_token_max = options.max_new_tokens;
  }
  const bool needs_bos = task.prompt.empty() && tokenizer.bos_id() >= 0;
  if (tokenizer.adds_bos() || needs_bos) {
    task.prompt.insert(task.prompt.begin(), tokenizer.bos_id());
  }
  if (task.prompt.empty())
    throw bad_usage("a prompt that is not empty: the model has no BOS token");
  return task;
}

// Positions that the task takes: every token that is fed. The last greedy token is not.
uint64_t positions_of(const TaskInput& task, uint32_t context_length) {
  const uint64_t wanted = task.forced.empty() ? task.prompt.size() + task.new_token_max - 1
                                              : task.prompt.size() + task.forced.size();
  return task.forced.empty() ? std::min<uint64_t>(wanted, context_length) : wanted;
}

void choose_tasks(const RunOptions& options, RunPlan& plan) {
  const std::vector<Prompt> prompts = choose_prompts(options, plan);
  const uint32_t context = plan.shape.context_length;
  plan.prompts_hash = hash_of(prompts);
  for (const Prompt& prompt : prompts) {
    TaskInput task = tokenized(prompt, options, *plan.tokenizer);
    const uint64_t needed = task.prompt.size() + task.forced.size();
    if (needed > context) {
      plan.notes.push_back(fmt::format("task {} skipped: {} tokens overflow the context of {}",
                                       prompt.task_id, needed, context));
      continue;
    }
    const uint64_t positions = positions_of(task, context);
    plan.position_max = std::max(plan.position_max, static_cast<uint32_t>(positions));
    for (task.sample = 0; task.sample < options.samples_per_task; ++task.sample) {
      task.index = static_cast<uint32_t>(plan.tasks.size());
      plan.tasks.push_back(task);
    }
  }
  if (plan.tasks.empty()) {
    throw bad_usage(
        fmt::format("no task fits into the context of {} tokens: {}", context, plan.notes.back()));
  }
}

// Tiers hold the hot set of one policy, each under one budget. Without a policy nothing is hot: so
// the first profile of a model that does not fit is recorded.
void require_one_hot_set(const LivePolicyOptions& live, TierLayout tiers) {
  if (live.policies.empty()) return;
  if (live.policies.size() == 1 && live.budgets.size() == 1) return;
  throw bad_usage(fmt::format(
      "tiers {}: expected one --policy at one --budget, found {} at {}: what they keep hot is "
      "what lies in the faster tier",
      name_of(tiers), live.policies.size(), live.budgets.size()));
}

// The host's hot set is the same policy's as the device's, at another budget.
void add_host_budget(const RunOptions& options, RunPlan& plan, uint32_t rank_count) {
  const HotBudget host = host_budget_of(options, plan, rank_count);
  const uint64_t device_bytes = plan.live.budgets.front().bytes;
  plan.live.budgets.push_back(host);
  if (host.bytes > device_bytes) return;
  plan.notes.push_back(fmt::format(
      "--host-budget {} is not above --budget {}: a policy keeps the same bundles hot in both, so "
      "host memory has little that the device has not",
      format_bytes(host.bytes), format_bytes(device_bytes)));
}

// A teacher leaves nothing to choose.
void check_nothing_chosen(const RunOptions& options) {
  const std::pair<bool, const char*> wanted[] = {
      {options.temperature != 0, "--temperature"},
      {options.top_p != 1, "--top-p"},
      {options.samples_per_task != 1, "--samples-per-task"},
      {!options.stop.empty(), "--stop"},
      {!options.samples.empty(), "--samples"},
  };
  for (const auto& [given, option] : wanted) {
    if (!given) continue;
    throw bad_usage(
        fmt::format("--teacher-forced feeds the reference solutions: expected no {}", option));
  }
}

// How the next token is chosen, and what ends a text.
void choose_decoding(const RunOptions& options, RunPlan& plan) {
  plan.sampling = {options.temperature, options.top_p, options.seed};
  check_sampling(plan.sampling);
  if (options.samples_per_task == 0) {
    throw bad_usage("--samples-per-task 0: expected at least 1");
  }
  if (options.teacher_forced) check_nothing_chosen(options);
  plan.whole_programs = !options.prompt.has_value();
  if (options.samples_per_task > 1 && plan.sampling.greedy()) {
    plan.notes.push_back(
        "all samples of a task are the same: with --temperature 0 decoding is greedy");
  }
  plan.stop.tokenizer = plan.tokenizer.get();
  plan.stop.tokens = {plan.tokenizer->eos_id(), plan.tokenizer->bos_id()};
  if (options.stop.empty() && plan.whole_programs) plan.stop.strings = mbpp_stop_strings();
  for (const std::string& text : options.stop) {
    if (!text.empty()) plan.stop.strings.push_back(parse_stop_string(text));
  }
}

void check_foresight(const RunOptions& options, const PolicySpec& policy) {
  const PolicyEntry& entry = *policy.entry;
  if (entry.needs_future_uses) {
    throw bad_usage("policy '" + policy.label() +
                    "' looks up single uses in the future: use it with replay");
  }
  if (!entry.needs_future || !options.future.empty()) return;
  throw bad_usage("policy '" + policy.label() +
                  "' needs the future: --future TRACE, an earlier recording of this very run, or "
                  "use it with replay");
}

LivePolicyOptions choose_policies(const RunOptions& options, const ModelShape& shape,
                                  const BundleTypes& ffn_types) {
  LivePolicyOptions live;
  if (options.policies.empty()) return live;
  live.policies = parse_policies(options.policies);
  for (const PolicySpec& policy : live.policies) check_foresight(options, policy);
  live.migration_bytes =
      options.migration == "none" ? ffn_bytes(shape, ffn_types) : parse_bytes(options.migration);
  if (options.profile.empty()) {
    throw bad_usage("--policy needs --profile TRACE, recorded on other prompts");
  }
  return live;
}

// An interrupted recording is neither lost by a slip nor gone on with by chance.
void check_resume(const RunOptions& options) {
  if (options.resume && options.record.empty()) {
    throw bad_usage("--resume needs --record TRACE: the recording that was interrupted");
  }
  if (options.resume && !options.logits.empty()) {
    throw bad_usage("--resume: logits of what ran before are not kept; expected no --logits");
  }
  if (options.record.empty() || options.resume || options.overwrite) return;
  if (!has_interrupted(options.record)) return;
  throw bad_usage(options.record +
                  ": an interrupted recording is there; --resume goes on with it, --overwrite "
                  "starts over");
}

// How many tasks are in flight, and what that takes.
void choose_batch(const RunOptions& options, RunPlan& plan) {
  if (options.batch == 0) throw bad_usage("--batch 0: expected at least 1");
  plan.batch = static_cast<uint32_t>(std::min<size_t>(options.batch, plan.tasks.size()));
  if (options.batch == 1) return;
  const ModelShape& shape = plan.shape;
  const uint64_t slot_bytes = kv_slot_bytes(uint64_t{shape.layer_count} * shape.kv_head_count,
                                            shape.head_dim, plan.position_max);
  plan.notes.push_back(fmt::format(
      "batch {}: the KV cache takes up to {} over all ranks, {} for each task in flight "
      "({} positions)",
      plan.batch, format_bytes(plan.batch * slot_bytes), format_bytes(slot_bytes),
      plan.position_max));
}

void choose_magnitudes(const RunOptions& options, RunPlan& plan) {
  plan.magnitudes = parse_magnitudes(options.record_magnitudes);
  if (plan.magnitudes.format != MagnitudeFormat::none && options.record.empty()) {
    throw bad_usage("--record-magnitudes needs --record TRACE, which they are a part of");
  }
}

void choose_predictor(const RunOptions& options, RunPlan& plan) {
  plan.predictor = parse_predictor_spec(options.predictor);
  plan.predictor.entry->check(plan.predictor.values, plan.spec, plan.shape);
  if (plan.magnitudes.format != MagnitudeFormat::none && !plan.predictor.exact()) {
    throw bad_usage(
        "--record-magnitudes needs --predictor exact: neurons that are no candidates have no gate");
  }
  if (options.read_ahead.empty()) return;
  if (options.disk_tier.empty()) {
    throw bad_usage("--read-ahead needs --disk-tier FOLDER, from which it reads");
  }
  plan.read_ahead = parse_predictor_spec(options.read_ahead);
  if (plan.read_ahead->exact()) {
    throw bad_usage("--read-ahead exact: expected a predictor that names fewer than all neurons");
  }
  plan.read_ahead->entry->check(plan.read_ahead->values, plan.spec, plan.shape);
}

}  // namespace

MagnitudeSampling parse_magnitudes(std::string_view text) {
  const size_t colon = text.find(':');
  MagnitudeSampling sampling{magnitude_format_by_name(text.substr(0, colon)), 1};
  if (sampling.format == MagnitudeFormat::none) sampling.every = 0;
  if (colon == std::string_view::npos) return sampling;
  constexpr std::string_view kEvery = "every=";
  const std::string_view rest = text.substr(colon + 1);
  const uint64_t every = rest.starts_with(kEvery) ? parse_count(rest.substr(kEvery.size())) : 0;
  if (every == 0 || every > std::numeric_limits<uint32_t>::max() || sampling.every == 0) {
    throw bad_usage(fmt::format(
        "--record-magnitudes {}: expected log8 or f16, and behind it at most :every=K, K from 1",
        text));
  }
  sampling.every = static_cast<uint32_t>(every);
  return sampling;
}

ActivationThreshold parse_activation_threshold(std::string_view text) {
  ActivationThreshold threshold;
  const bool percentile = text.starts_with('p');
  const double value = parse_number(percentile ? text.substr(1) : text);
  if (value < 0 || (percentile && value >= 100)) {
    throw bad_usage(
        fmt::format("--activation-threshold {}: expected a number from 0, or a "
                    "percentile from p0 to p99",
                    text));
  }
  if (percentile) {
    threshold.percent = value;
  } else {
    threshold.value = static_cast<float>(value);
  }
  return threshold;
}

RunPlan make_run_plan(const RunOptions& options, uint32_t rank_count) {
  RunPlan plan;
  plan.spec = parse_model_spec(options.model);
  plan.threshold = parse_activation_threshold(options.activation_threshold);
  plan.source = open_weights(plan.spec);
  plan.shape = plan.source->shape();
  plan.ffn_types = bundle_types(*plan.source);
  plan.weight_provenance = plan.source->provenance();
  plan.weight_hash = plan.source->hash();
  const ModelShape& shape = plan.shape;
  plan.live = choose_policies(options, shape, plan.ffn_types);
  plan.tiers = parse_tier_layout(options.tiers, options.disk_tier);
  check_host_budget(plan.tiers, options.host_budget, !options.policies.empty());
  if (plan.tiers != TierLayout::one && options.audit_predictor) {
    throw bad_usage(
        "--audit-predictor runs a second decoder beside the first: not with "
        "--tiers or --disk-tier, whose hot set is one decoder's");
  }
  plan.tokenizer = choose_tokenizer(options, plan.spec, shape.vocab_size);
  choose_decoding(options, plan);
  choose_tasks(options, plan);
  check_resume(options);
  choose_batch(options, plan);
  place_ranks(options, plan, rank_count);
  if (plan.tiers != TierLayout::one) require_one_hot_set(plan.live, plan.tiers);
  if (!options.host_budget.empty()) add_host_budget(options, plan, rank_count);
  forecast_known_budgets(options, plan, rank_count);
  choose_magnitudes(options, plan);
  choose_predictor(options, plan);
  const bool watched = !options.record.empty() || !options.policies.empty();
  if (shape.activation == FfnActivation::silu && watched && plan.threshold.value == 0 &&
      !plan.threshold.percent.has_value()) {
    plan.notes.push_back(
        "SiLU has no zeros: with an activation threshold of 0 every neuron counts as active "
        "(--activation-threshold p90 counts the largest tenth)");
  }
  return plan;
}

}  // namespace thermocline
