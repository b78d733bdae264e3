#include "sim/study.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "models/cli.h"
#include "models/embedded.h"
#include "models/error.h"
#include "models/model_spec.h"
#include "models/prompts.h"
#include "models/text.h"
#include "models/toml_reader.h"
#include "models/units.h"
#include "models/weights.h"
#include "sim/cost.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr int64_t kTasksMax = 1 << 20, kStepsMax = int64_t{1} << 40;
const std::string kSplits = "prompt, test, validation, train or all";

std::vector<TomlKey<Study>> top_keys() {
  return {
      name_key("name", &Study::name, "names the study; results go to results/NAME"),
      integer_key("ranks", &Study::ranks, 1, 4096, "1", "processes that share the model"),
      integer_key("threads", &Study::threads, 1, 1024, "1", "threads of each rank"),
      text_key("layout", &Study::layout, "a layout such as \"pp2,tp2\"", "chosen by `run`",
               "pipeline x tensor split over the ranks"),
      text_key("launcher", &Study::launcher, "a command; {ranks} stands for their number",
               "\"" + std::string(kDefaultLauncher) + "\"",
               "starts the ranks; \"none\": ranks are threads of one process"),
      list_key("policies", &Study::policies, "an array of policies, as --policy takes them",
               "[\"fixed\", \"ewma\", \"oracle-static\"]",
               "compared live and in replay; oracles in replay only"),
      text_key("budgets", &Study::budgets, "budgets, as --budget takes them", "\"10%..50%/10%\"",
               "memory for hot neurons, whole model"),
      text_key("live_budgets", &Study::live_budgets, "budgets, as --budget takes them",
               "as budgets", "those at which policies also run live, inside the execution"),
      text_key("migration", &Study::migration, "bytes, such as \"32MiB\"", "\"32MiB\"",
               "what may move into fast memory per step, whole model"),
      text_key("cluster", &Study::cluster, "a cluster file", "that of `replay`",
               "the machines whose times are modelled"),
      text_key("batch", &Study::batch, "numbers of requests, such as \"1,4,16\"", "\"1\"",
               "requests that decode together in replays"),
      integer_key("warmup", &Study::warmup, 0, kStepsMax, "0",
                  "first steps that replays run but do not count"),
      flag_key("tune", &Study::tune, "false",
               "search each policy's parameters first, on the tune split"),
      integer_key("seed", &Study::seed, 0, int64_t{1} << 53, "1", "seed of every random choice"),
      flag_key("teacher_forced", &Study::teacher_forced, "true",
               "feed the reference solutions, so that every run sees the same text"),
      integer_key("max_new_tokens", &Study::max_new_tokens, 0, kTasksMax, "the default of `run`",
                  "tokens decoded per task"),
  };
}

std::vector<TomlKey<StudyPrompts>> prompts_keys() {
  return {
      text_key("path", &StudyPrompts::path, "a .jsonl in MBPP's format", "the embedded tasks",
               "where the tasks come from, seen from the current folder"),
      text_key("profile_split", &StudyPrompts::profile_split, kSplits, "\"train\"",
               "the tasks that policies may learn from"),
      text_key("test_split", &StudyPrompts::test_split, kSplits, "\"test\"",
               "the tasks that policies are judged on"),
      text_key("tune_split", &StudyPrompts::tune_split, kSplits, "\"validation\"",
               "the tasks that parameters are searched on, with `tune`"),
      integer_key("shots", &StudyPrompts::shots, 0, 3, "0", "solved examples in a prompt: 0 or 3"),
      integer_key("profile_limit", &StudyPrompts::profile_limit, 0, kTasksMax, "0",
                  "first N tasks of the profile split; 0: all"),
      integer_key("test_limit", &StudyPrompts::test_limit, 0, kTasksMax, "0",
                  "first N tasks of the test split; 0: all"),
      integer_key("tune_limit", &StudyPrompts::tune_limit, 0, kTasksMax, "0",
                  "first N tasks of the tune split; 0: all"),
  };
}

std::vector<TomlKey<StudyExecute>> execute_keys() {
  return {
      list_key("tiers", &StudyExecute::tiers,
               "an array of \"host,disk\", \"device,host\" and \"device,host,disk\"", "none",
               "layouts in which each policy below is executed at each budget, its hot set in the "
               "faster tier; of three, in both faster ones"),
      list_key("policies", &StudyExecute::policies, "an array of policies, as --policy takes them",
               "[\"fixed-topk\", \"ewma\", \"oracle-static\"]",
               "one run each; an oracle gets the firing counts of the test trace"),
      text_key("budgets", &StudyExecute::budgets, "budgets, as --budget takes them",
               "\"10%..40%/10%\"", "one run each"),
      text_key("host_budgets", &StudyExecute::host_budgets, "budgets, as --budget takes them",
               "none",
               "what host memory holds in device,host,disk, which needs it: one for all budgets, "
               "or one for each, both ascending"),
      text_key("backend", &StudyExecute::backend, "a backend, as --backend takes it",
               "the default of `run`",
               "the device of these runs; \"cpu\": the cores compute its part, too"),
      text_key("cluster", &StudyExecute::cluster, "a cluster file", "this machine, measured",
               "the machine that predicts these runs; layouts with a device need it"),
  };
}

std::vector<TomlKey<StudyModel>> model_keys() {
  return {
      name_key("label", &StudyModel::label, "names the model's folder and section"),
      text_key("model", &StudyModel::model, "a path or preset:NAME, as --model takes it",
               "required", "the model to run"),
      text_key("tokenizer", &StudyModel::tokenizer, "a path, or \"byte\"",
               "the checkpoint's own, else byte", "how text becomes tokens"),
      integer_key("profile_limit", &StudyModel::profile_limit, 0, kTasksMax, "as in [prompts]",
                  "first N tasks of the profile split, for this model"),
      integer_key("test_limit", &StudyModel::test_limit, 0, kTasksMax, "as in [prompts]",
                  "first N tasks of the test split, for this model"),
      integer_key("tune_limit", &StudyModel::tune_limit, 0, kTasksMax, "as in [prompts]",
                  "first N tasks of the tune split, for this model"),
      integer_key("drawn_steps", &StudyModel::drawn_steps, 0, kStepsMax, "0",
                  "steps of a test trace that is drawn by `trace synth`; 0: it is executed"),
      integer_key("drawn_profile_steps", &StudyModel::drawn_profile_steps, 0, kStepsMax,
                  "a fifth of drawn_steps", "steps of the drawn profile"),
      integer_key("drawn_tune_steps", &StudyModel::drawn_tune_steps, 0, kStepsMax,
                  "a fifth of drawn_steps", "steps of the drawn trace for `tune`"),
  };
}

template <class T>
void append_keys(std::vector<StudyKey>& list, const std::string& table,
                 const std::vector<TomlKey<T>>& keys) {
  for (const TomlKey<T>& key : keys) {
    list.push_back({table, key.name, key.expected, key.fallback, key.meaning});
  }
}

std::string model_prefix(size_t index) { return fmt::format("model[{}].", index); }

// The table [name], where there is one.
template <class T>
void read_part(T& part, const std::vector<TomlKey<T>>& keys, const std::string& name, Study& study,
               const toml::value& document, const std::string& origin) {
  if (!document.contains(name)) return;
  const toml::value& table = document.at(name);
  const TomlValue found{table, origin, name};
  if (!table.is_table()) found.reject("a table", describe(table));
  read_table(part, keys, table, origin, name + ".", study.places);
}

void read_models(Study& study, const toml::value& document, const std::string& origin) {
  const std::string expected = "at least one [[model]] table";
  if (!document.contains("model")) throw bad_input(origin, expected, "none");
  const toml::value& list = document.at("model");
  if (!list.is_array()) TomlValue{list, origin, "model"}.reject("[[model]] tables", describe(list));
  std::set<std::string> labels;
  for (const toml::value& table : list.as_array()) {
    if (!table.is_table()) TomlValue{table, origin, "model"}.reject("a table", describe(table));
    StudyModel model;
    const std::string prefix = model_prefix(study.models.size());
    read_table(model, model_keys(), table, origin, prefix, study.places);
    if (!labels.insert(model.label).second) {
      throw bad_input(study.places[prefix + "label"], "a label of its own for each model",
                      "'" + model.label + "' twice");
    }
    study.models.push_back(model);
  }
  if (study.models.empty()) throw bad_input(origin, expected, "none");
}

// Runs `check`; what it throws is said to come from where `key` stands in the file.
template <class Check>
void check_key(const Study& study, const std::string& key, Check check) {
  try {
    check();
  } catch (const Error& error) {
    const auto place = study.places.find(key);
    const std::string where = place == study.places.end() ? "the default" : place->second;
    throw Error(ErrorKind::input, where + ": " + key + ": " + error.what());
  }
}

void check_policies(const Study& study) {
  if (live_policies(study).empty()) {
    throw bad_usage("expected a policy that can run live, found oracles only");
  }
}

void check_prompts(const Study& study, const std::string& split) {
  PromptOptions options;
  options.path = study.prompts.path;
  options.split = split;
  options.shots = static_cast<int>(study.prompts.shots);
  make_prompts(options);
}

struct BundleSize {
  uint64_t full_bytes, bundle_bytes, read_bytes;  // read: the up and the down row
};

BundleSize bundle_size(const StudyModel& model) {
  const auto source = open_weights(parse_model_spec(model.model));
  const BundleTypes types = bundle_types(*source);
  const uint64_t dim = source->shape().model_dim;
  return {ffn_bytes(source->shape(), types), bundle_bytes(source->shape(), types),
          bytes_of(types.up, dim) + bytes_of(types.down_t, dim)};
}

bool three_tiers(const StudyExecute& execute) {
  return std::ranges::find(execute.tiers, kDeviceHostDisk) != execute.tiers.end();
}

void check_executed_tiers(const StudyExecute& execute) {
  const std::vector<std::string> valid{std::string(kHostDisk), std::string(kDeviceHost),
                                       std::string(kDeviceHostDisk)};
  for (const std::string& tiers : execute.tiers) {
    if (std::ranges::find(valid, tiers) == valid.end()) {
      throw unknown_name("layout of tiers", tiers, valid);
    }
    if (tiers != kHostDisk && execute.cluster.empty()) {
      throw bad_usage(
          tiers +
          " is predicted for the machine of 'execute.cluster': expected its file, found none");
    }
  }
  if (!three_tiers(execute) || !execute.host_budgets.empty()) return;
  throw bad_usage(
      "device,host,disk needs 'execute.host_budgets', for what is hot in host memory; "
      "'execute.budgets' are the device's");
}

// Budgets of the host, one for each of the device's.
std::vector<uint64_t> host_budgets_of(const StudyExecute& execute, const BundleSize& size,
                                      size_t budget_count) {
  std::vector<uint64_t> host =
      parse_budgets(execute.host_budgets, size.full_bytes, size.bundle_bytes);
  if (host.size() == 1) host.resize(budget_count, host.front());
  if (host.size() == budget_count) return host;
  throw bad_usage(
      fmt::format("expected one budget, or one for each of the {} of 'execute.budgets', found {}",
                  budget_count, host.size()));
}

void check_host_budgets(const StudyExecute& execute, const BundleSize& size) {
  if (execute.host_budgets.empty()) return;
  if (!three_tiers(execute)) {
    throw bad_usage(
        "is what host memory holds between a device and a disk: expected \"device,host,disk\" in "
        "'execute.tiers'");
  }
  const auto budgets = parse_budgets(execute.budgets, size.full_bytes, size.bundle_bytes);
  host_budgets_of(execute, size, budgets.size());
}

void check_executed_policies(const StudyExecute& execute) {
  for (const PolicySpec& policy : parse_policies(joined(execute.policies, ','))) {
    if (!policy.entry->needs_future_uses) continue;
    throw bad_usage("expected policies that can be executed, found '" + policy.label() +
                    "', which looks up single uses in the future");
  }
}

void check_execute(const Study& study) {
  const StudyExecute& execute = study.execute;
  if (execute.tiers.empty()) return;
  check_key(study, "execute.tiers", [&] { check_executed_tiers(execute); });
  check_key(study, "execute.policies", [&] { check_executed_policies(execute); });
  check_key(study, "execute.cluster", [&] {
    if (execute.cluster.empty()) return;
    const Cluster cluster = open_cluster(execute.cluster);
    if (three_tiers(execute)) require_three_tiers(cluster);
  });
}

void check_drawn(const StudyModel& model) {
  if (model.drawn() && !parse_model_spec(model.model).synthetic()) {
    throw bad_usage("expected preset:NAME where steps are drawn, found a checkpoint");
  }
}

void check_model(const Study& study, size_t index) {
  BundleSize size{};
  check_key(study, model_prefix(index) + "drawn_steps", [&] { check_drawn(study.models[index]); });
  check_key(study, model_prefix(index) + "model", [&] { size = bundle_size(study.models[index]); });
  const auto check_budgets = [&](const std::string& key, const std::string& text) {
    check_key(study, key, [&] { parse_budgets(text, size.full_bytes, size.bundle_bytes); });
  };
  check_budgets("budgets", study.budgets);
  if (!study.live_budgets.empty()) check_budgets("live_budgets", study.live_budgets);
  if (study.execute.tiers.empty()) return;
  check_budgets("execute.budgets", study.execute.budgets);
  check_key(study, "execute.host_budgets", [&] { check_host_budgets(study.execute, size); });
}

}  // namespace

std::vector<StudyKey> study_keys() {
  std::vector<StudyKey> list;
  append_keys(list, "", top_keys());
  append_keys(list, "prompts", prompts_keys());
  append_keys(list, "execute", execute_keys());
  append_keys(list, "model", model_keys());
  return list;
}

std::string study_keys_markdown() {
  std::string text = "| key | expected | default | meaning |\n|---|---|---|---|\n";
  for (const StudyKey& key : study_keys()) {
    const std::string name = key.table.empty() ? key.name : key.table + "." + key.name;
    text += fmt::format("| `{}` | {} | {} | {} |\n", name, key.expected, key.fallback, key.meaning);
  }
  return text;
}

Study parse_study(std::string_view bytes, const std::string& origin) {
  const toml::value document = parse_toml(bytes, origin);
  Study study;
  study.launcher = kDefaultLauncher;
  read_table(study, top_keys(), document, origin, "", study.places,
             {"prompts", "execute", "model"});
  read_part(study.prompts, prompts_keys(), "prompts", study, document, origin);
  read_part(study.execute, execute_keys(), "execute", study, document, origin);
  read_models(study, document, origin);
  return study;
}

std::string study_text(const std::string& path) {
  return path == kDemoStudy ? std::string(demo_study_text()) : read_file(path);
}

Study open_study(const std::string& path) { return open_study(path, {}); }

Study open_study(const std::string& path, const StudyExtras& extras) {
  Study study = parse_study(study_text(path), path);
  if (!extras.prompts.empty()) study.prompts.path = extras.prompts;
  if (!extras.model.empty()) {
    StudyModel own;
    own.label = kOwnModelLabel;
    own.model = extras.model;
    own.tokenizer = extras.tokenizer;
    study.models.insert(study.models.begin(), own);
  }
  check_key(study, "policies", [&] { check_policies(study); });
  check_key(study, "migration", [&] { parse_bytes(study.migration); });
  check_key(study, "cluster", [&] {
    if (!study.cluster.empty()) open_cluster(study.cluster);
  });
  check_execute(study);
  const StudyPrompts& prompts = study.prompts;
  check_key(study, "prompts.profile_split", [&] { check_prompts(study, prompts.profile_split); });
  check_key(study, "prompts.test_split", [&] { check_prompts(study, prompts.test_split); });
  if (study.tune) {
    check_key(study, "prompts.tune_split", [&] { check_prompts(study, prompts.tune_split); });
  }
  for (size_t i = 0; i < study.models.size(); ++i) check_model(study, i);
  return study;
}

std::vector<std::string> live_policies(const Study& study) {
  std::vector<std::string> live;
  for (const PolicySpec& spec : parse_policies(joined(study.policies, ','))) {
    if (!spec.entry->needs_future) live.push_back(spec.label());
  }
  return live;
}

ExecuteSizes execute_sizes(const Study& study, const StudyModel& model) {
  const BundleSize size = bundle_size(model);
  ExecuteSizes sizes;
  sizes.budgets = parse_budgets(study.execute.budgets, size.full_bytes, size.bundle_bytes);
  if (three_tiers(study.execute)) {
    sizes.host_budgets = host_budgets_of(study.execute, size, sizes.budgets.size());
  }
  sizes.read_bytes = size.read_bytes;
  return sizes;
}

}  // namespace thermocline
