#include "runtime/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "models/npy_file.h"
#include "runtime/backend.h"
#include "runtime/kv_cache.h"
#include "runtime/listening.h"
#include "runtime/load_together.h"
#include "runtime/node_facts.h"
#include "runtime/partition_table.h"
#include "runtime/predictor_audit.h"
#include "runtime/recorder.h"
#include "runtime/resume.h"
#include "runtime/run_header.h"
#include "runtime/run_report.h"
#include "runtime/samples_file.h"
#include "runtime/text_output.h"
#include "runtime/used_ranks.h"

namespace thermocline {
namespace {

constexpr double kMeasureSeconds = 0.2;

// Shows on rank 0 how far the steps are.
class ProgressObserver final : public StepObserver {
 public:
  explicit ProgressObserver(uint64_t step_total) : progress_("run", step_total, "steps") {}
  void on_step(const StepInfo&, const StepTimes&, const StepData&) override {
    progress_.update(++done_);
  }

 private:
  Progress progress_;
  uint64_t done_ = 0;
};

void require_folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  if (folder.empty() || std::filesystem::is_directory(folder)) return;
  throw work_failed(path + ": the folder " + folder.string() + " does not exist");
}

// One run on one rank, in the order in which it happens.
class RankRun {
 public:
  RankRun(Comm& comm, const RunOptions& options, RunPlan plan)
      : comm_(comm), options_(options), plan_(std::move(plan)) {}

  void run() {
    together(comm_, [&] {
      check_outputs();
      listen();
    });
    if (root()) announce();
    together(comm_, [&] { open_profile(); });
    const RankOnHost place = rank_on_this_host(comm_);
    const auto process_count = static_cast<uint32_t>(place.count);
    outcome_.thread_count =
        options_.threads != 0 ? options_.threads : cores_of_process(process_count);
    outcome_.one_process = options_.local_ranks > 0;
    measure(process_count);  // before the pool binds this thread, whose cores others inherit
    together(comm_, [&] { make_backend(place); });
    Decoder decoder = load();
    place_threshold(decoder);
    decoder.use_predictor(std::move(predictor_));
    if (lookahead_ != nullptr) decoder.use_lookahead(std::move(lookahead_));
    saying_what_is_left([&] {
      make_observers(decoder);
      if (options_.audit_predictor) begin_audit(decoder);
      if (execute(decoder)) leave_interrupted();
      finish();
    });
    report(decoder);
    if (listening_.has_value()) linger();
  }

 private:
  bool root() const { return comm_.rank() == 0; }
  // Standard output belongs to the JSON where --json - asks for it.
  std::FILE* text_out() const { return options_.json == "-" ? stderr : stdout; }

  const RankShare& share() const {
    return plan_.partition.ranks[static_cast<size_t>(comm_.rank())];
  }

  // A folder that is not there is better found now than when the work is done.
  void check_outputs() const {
    require_folder_of(options_.record);
    if (!root()) return;  // what only rank 0 writes
    require_folder_of(options_.logits);
    require_folder_of(options_.samples);
    if (options_.json != "-") require_folder_of(options_.json);
  }

  // A port that another process has is better found now, too.
  void listen() {
    if (!options_.listen.empty()) listening_.emplace(comm_, plan_, options_);
  }

  void open_profile() {
    if (plan_.live.policies.empty()) return;
    const auto counts_of = [&](const std::string& path) {
      return load_profile(path, share().pool(), plan_.shape, plan_.weight_hash);
    };
    known_.profile = counts_of(options_.profile);
    if (!options_.future.empty()) known_.future = counts_of(options_.future);
  }

  void announce() const {
    fmt::print(text_out(), "{}\n", describe(plan_));
    for (const std::string& note : plan_.notes) fmt::print(text_out(), "{}\n", note);
    if (listening_.has_value()) fmt::print(text_out(), "listen   {}\n", listening_->url());
    if (plan_.solved.has_value()) print_partition(text_out(), plan_);
    std::fflush(text_out());
  }

  void measure(uint32_t process_count) {
    comm_.barrier();  // all at once: what each gets while the others read too
    facts_.read_bandwidth =
        measure_read_bandwidth(outcome_.thread_count, process_count, kMeasureSeconds);
    comm_.barrier();  // ranks that are threads share the peak
    reset_peak_rss();
  }

  // Ranks of a host take its devices in turn, from the one that was asked for.
  void make_backend(RankOnHost place) {
    const BackendEntry& entry = choose_backend(options_.backend);
    const bool side_by_side = has_device_tier(plan_.tiers);
    if (side_by_side) require_device_tier(plan_.tiers, options_.backend, entry);
    const int device = static_cast<int>(options_.device) + place.index;
    const auto threads = static_cast<int>(outcome_.thread_count);
    // First, as its threads take their cores where this thread may run; a GPU then wants none.
    if (side_by_side) host_ = backends().by_name("cpu").make({threads, place, 0});
    const bool on_cores = !side_by_side || entry.name == "cpu";
    backend_ = entry.make({on_cores ? threads : 1, place, device});
    outcome_.backend = entry.name;
    outcome_.device = backend_->describe();
    if (!root()) return;
    fmt::print(text_out(), "backend  {} ({})\n", entry.name, outcome_.device);
    if (host_ != nullptr) {
      fmt::print(text_out(), "         cpu ({}) computes what is cold\n", host_->describe());
    }
    const uint32_t cores = cores_of_process(static_cast<uint32_t>(place.count));
    if (outcome_.thread_count > cores) {
      fmt::print(text_out(),
                 "         {} threads for {} cores: they sleep between jobs, and more of them than "
                 "cores gain nothing\n",
                 outcome_.thread_count, cores);
    }
    for (const BackendEntry* other : backends().entries()) {
      const std::string reason = other->unusable();
      if (reason.empty()) continue;
      fmt::print(text_out(), "         {} is built, but unusable here: {}\n", other->name, reason);
    }
    std::fflush(text_out());
  }

  Decoder load() {
    LoadedWeights loaded = load_together(comm_, *plan_.source, plan_.partition, *backend_,
                                         options_.check_finite, tier_options());
    made_bundles_ = loaded.made_bundles;
    together(comm_, [&] {
      const PredictorContext context{*plan_.source, plan_.spec, share(), *backend_, row_max()};
      const auto made = [&](const PredictorSpec& spec) {
        return spec.entry->make(spec.values, context);
      };
      predictor_ = made(plan_.predictor);
      if (plan_.read_ahead.has_value()) lookahead_ = made(*plan_.read_ahead);
      plan_.source.reset();
    });
    return {comm_,
            plan_.shape,
            plan_.partition,
            std::move(loaded.weights),
            make_activation_rule(plan_.shape, plan_.threshold.value),
            *backend_,
            decoder_options(options_.audit_predictor)};
  }

  uint32_t row_max() const { return std::max(kChunkMax, plan_.batch); }

  // What is audited runs sublayer by sublayer, on any backend.
  DecoderOptions decoder_options(bool audit_gate) const {
    return {row_max(),
            plan_.position_max,
            plan_.batch,
            options_.bench || options_.audit_predictor,
            options_.check_finite,
            audit_gate};
  }

  // A second decoder of the same weights runs beside the first, without a predictor.
  void begin_audit(Decoder& decoder) {
    exact_.emplace(comm_, plan_.shape, plan_.partition, decoder.weights(), decoder.rule(),
                   *backend_, decoder_options(false));
    audit_.emplace(comm_, plan_.partition, plan_.shape, decoder, *exact_);
    hooks_.on_pass = [this](std::span<const DecoderRow> rows) { audit_->on_pass(rows); };
  }

  TierOptions tier_options() const {
    if (plan_.tiers == TierLayout::one) return {};
    const std::vector<HotBudget>& budgets = plan_.live.budgets;  // of hot tiers, where any is hot
    return {options_.disk_tier,
            budgets.empty() ? HotBudget(0) : budgets.front(),
            plan_.weight_hash,
            bundle_bytes(plan_.shape, plan_.ffn_types),
            options_.disk_reads,
            host_.get(),
            plan_.batch * kv_slot_bytes(uint64_t{share().layers.count} * share().kv_heads.count,
                                        plan_.shape.head_dim, plan_.position_max),
            budgets.empty() ? HotBudget(0) : budgets.back()};
  }

  // Tiers hold what the policy starts with, before anything is timed: the host first, from which
  // the device takes its own.
  void begin_tiers(const RankWeights& weights) {
    if (!live_.has_value()) return;
    if (weights.tiers != nullptr) {
      begin_tier(*weights.tiers, live_->hot(hot_tiers(plan_.tiers).size() - 1));
    }
    if (weights.device_tier != nullptr) begin_tier(*weights.device_tier, live_->hot(0));
  }
  template <class Tier>
  static void begin_tier(Tier& tier, const HotSet& hot) {
    tier.set_hot(&hot);
    tier.begin_pass();
    tier.wait_for_moves();
  }

  // A percentile of the first prompt, layer by layer, before anything is recorded.
  void place_threshold(Decoder& decoder) {
    const ModelShape& shape = plan_.shape;
    if (shape.activation == FfnActivation::silu && plan_.threshold.percent.has_value()) {
      ActivationRule rule = decoder.rule();
      rule.thresholds = measured_thresholds(decoder, *plan_.threshold.percent);
      decoder.set_rule(std::move(rule));
    }
    outcome_.activation_thresholds = decoder.rule().thresholds;
    if (predictor_ != nullptr) outcome_.predictor_threshold = predictor_->threshold();
  }

  std::vector<float> measured_thresholds(Decoder& decoder, double percent) {
    MagnitudeHistogram histogram(plan_.shape.layer_count);
    decoder.observe_magnitudes(&histogram);
    const std::span<const int32_t> prompt(plan_.tasks[0].prompt);
    std::vector<DecoderRow> chunk;
    std::vector<uint64_t> words;
    for (uint32_t position = 0; position < prompt.size();) {
      chunk.clear();
      for (; position < prompt.size() && chunk.size() < kChunkMax; ++position) {
        chunk.push_back({prompt[position], position, 0});
      }
      words.resize(chunk.size() * decoder.neuron_pool().words_per_step());
      decoder.forward(chunk, words);
    }
    decoder.observe_magnitudes(nullptr);
    std::vector<uint64_t>& counts = histogram.counts();
    std::vector<uint64_t> all(counts.size() * static_cast<size_t>(comm_.size()));
    comm_.all_gather(counts.data(), counts.size() * sizeof(uint64_t), all.data());
    std::fill(counts.begin(), counts.end(), 0);
    for (size_t i = 0; i < all.size(); ++i) counts[i % counts.size()] += all[i];
    std::vector<float> thresholds;
    for (uint32_t layer = 0; layer < histogram.layer_count(); ++layer) {
      thresholds.push_back(histogram.percentile(layer, percent));
    }
    return thresholds;
  }

  void describe_rank(const Decoder& decoder) {
    const RankWeights& weights = decoder.weights();
    facts_.weight_bytes = weights.total_bytes();
    facts_.head_bytes = weights.head.byte_count();
    facts_.attention_bytes = weights.dense_bytes() - facts_.head_bytes;
    outcome_.ranks.resize(static_cast<size_t>(comm_.size()));
    comm_.all_gather(&facts_, sizeof facts_, outcome_.ranks.data());
  }

  void make_observers(const Decoder& decoder) {
    describe_rank(decoder);
    const TraceHeader header = run_header(options_, plan_, outcome_, decoder.rule());
    if (options_.resume) resume_.emplace(comm_, options_.record, header, options_.overwrite);
    together(comm_, [&] {
      if (!options_.record.empty()) {
        recorder_.emplace(options_.record, header, static_cast<uint32_t>(comm_.rank()),
                          resume_.has_value() ? &*resume_ : nullptr);
        hooks_.observers.push_back(&*recorder_);
      }
      if (!plan_.live.policies.empty()) {
        live_.emplace(plan_.live, std::move(known_), plan_.shape, plan_.ffn_types, share().rank);
        hooks_.observers.push_back(&*live_);
      }
      begin_tiers(decoder.weights());
      hooks_.all_logits = !options_.logits.empty();
      if (root()) make_root_hooks();
    });
    if (listening_.has_value()) begin_listening(decoder);
  }

  void begin_listening(const Decoder& decoder) {
    listening_->begin(decoder, live_.has_value() ? &*live_ : nullptr);
    hooks_.observers.push_back(&*listening_);
    hooks_.on_report = [this](const PassReport& report) { listening_->on_report(report); };
  }

  void make_root_hooks() {
    if (hooks_.all_logits) {
      logits_.emplace(options_.logits, kNpyF32, std::vector<uint64_t>{plan_.shape.vocab_size});
      hooks_.on_logits = [this](std::span<const float> row) { logits_->append(row); };
    }
    if (options_.teacher_forced) {
      uint64_t total = 0;
      for (const TaskInput& task : plan_.tasks) total += task.prompt.size() + task.forced.size();
      progress_.emplace(total);
      hooks_.observers.push_back(&*progress_);
      return;
    }
    texts_.emplace(text_out(), plan_.stop, options_.prompt, options_.samples_per_task);
    hooks_.tokens = &*texts_;
    if (options_.samples.empty()) return;
    samples_.emplace(options_.samples, plan_);
    hooks_.observers.push_back(&*samples_);
  }

  void linger() {
    std::fflush(text_out());  // a file or a pipe would get the tables when it is over
    listening_->linger(options_.linger);
  }

  // What an interrupted run recorded goes to the observers first. Returns where this one begins.
  ResumePoint take_over() {
    if (!resume_.has_value()) return {};
    const ResumePoint point = resume_->point();
    together(comm_, [&] { resume_->replay(hooks_.observers); });
    if (root() && resume_->found()) {
      fmt::print(text_out(), "resume   {} steps of {} tasks are taken over, {} tasks are left\n",
                 point.step_count, point.task_count, plan_.tasks.size() - point.task_count);
    }
    return point;
  }

  // True if the run was interrupted.
  bool execute(Decoder& decoder) {
    const ResumePoint point = take_over();
    Engine engine(comm_, plan_.shape, plan_.partition, decoder, hooks_,
                  {plan_.stop, plan_.shape.context_length, kChunkMax, interrupted, plan_.batch,
                   plan_.magnitudes.every, static_cast<uint32_t>(point.step_count),
                   point.pass_count, plan_.sampling});
    bool stopped = false;
    const std::span<const TaskInput> tasks(plan_.tasks);
    for (const TaskResult& result : engine.run(tasks.subspan(point.task_count))) {
      if (result.step_count == 0) continue;  // interrupted before it began
      stopped = stopped || result.interrupted;
      outcome_.step_count += result.step_count;
      outcome_.ttft_ms.push_back(static_cast<double>(result.ttft_ns) * 1e-6);
      for (const uint64_t ns : result.tpot_ns) {
        outcome_.tpot_ms.push_back(static_cast<double>(ns) * 1e-6);
      }
    }
    if (texts_.has_value()) {
      texts_->finish();
      outcome_.texts = texts_->texts();
    }
    progress_.reset();
    facts_.sums = engine.sums();
    sent_ = engine.sent();
    return stopped;
  }

  // A full disk or a lost device ends a run, not what it recorded.
  template <class Work>
  void saying_what_is_left(Work work) {
    try {
      work();
    } catch (const AgreedError& error) {
      close_recording();
      throw AgreedError(error.kind(), with_what_is_left(error));
    } catch (const Error& error) {
      recorder_.reset();
      throw Error(error.kind(), with_what_is_left(error));
    }
  }

  // All ranks are leaving. The shard stays a partial file, unless nobody has use for it.
  void close_recording() {
    const bool made_shard = recorder_.has_value();
    recorder_.reset();
    if (!options_.record.empty()) drop_shards_of_no_use(comm_, options_.record, made_shard);
  }

  // A message that another rank has stays empty.
  std::string with_what_is_left(const Error& error) const {
    const std::string message = error.what();
    return message.empty() ? message : message + of_the_recording() + of_the_bundles();
  }

  std::string of_the_recording() const {
    if (options_.record.empty()) return "";
    const std::string path = partial_path(options_.record, static_cast<uint32_t>(comm_.rank()));
    if (!std::filesystem::exists(path)) return "";  // finished, or of no use
    return fmt::format(
        "; the steps so far are in {} (--allow-partial reads them); the same command with --resume "
        "goes on from the last complete task",
        path);
  }

  std::string of_the_bundles() const {
    if (!made_bundles_) return "";
    return fmt::format("; the bundles of the weights stay in {}, where the next run finds them",
                       options_.disk_tier);
  }

  [[noreturn]] void leave_interrupted() {
    logits_.reset();
    std::string message = fmt::format("interrupted after {} steps of {} tasks", outcome_.step_count,
                                      plan_.tasks.size());
    together(comm_, [&] {
      if (samples_.has_value()) message += samples_->keep_partial();
    });
    throw AgreedError(ErrorKind::failed, root() ? message : "");
  }

  void finish() {
    if (recorder_.has_value()) outcome_.trace_hash = recorder_->finish(comm_);
    if (live_.has_value()) outcome_.policies = live_->results(comm_);
    if (listening_.has_value()) listening_->finish(sent_);
    if (audit_.has_value()) outcome_.audit = audit_->finish();
    together(comm_, [&] {
      if (logits_.has_value()) logits_->finish();
      if (samples_.has_value()) samples_->finish();
      if (live_.has_value()) live_->check_future(options_.future);
    });
  }

  void report(const Decoder& decoder) {
    facts_.ffn_bytes = ffn_bytes_read(decoder);
    facts_.peak_rss_bytes = peak_rss_bytes();
    if (const BundleStore* store = decoder.weights().tiers.get(); store != nullptr) {
      facts_.store = {store->counters(), store->hot_bytes(), store->staging_bytes(),
                      store->passage_bytes()};
      outcome_.disk_reads = store->engine();
    }
    if (const SideBySide* parts = decoder.side_by_side(); parts != nullptr) {
      facts_.device_counters = parts->tier().counters();
      facts_.device_tier = parts->tier().size();
      facts_.side_by_side = parts->times();
    }
    comm_.all_gather(&facts_, sizeof facts_, outcome_.ranks.data());
    outcome_.sent = gather_sent(comm_, sent_);
    together(comm_, [&] {
      if (!root()) return;
      if (options_.json != "-") print_run(options_, plan_, outcome_);
      if (!options_.json.empty()) {
        write_json(options_.json, "run", run_rows(options_, plan_, outcome_));
      }
    });
  }

  // Mean per decode pass: gate rows of the candidates, and what named them; up and down rows of the
  // neurons that were computed.
  uint64_t ffn_bytes_read(const Decoder& decoder) const {
    if (facts_.sums.pass_count == 0) return 0;
    const NeuronPool& pool = decoder.neuron_pool();
    const uint64_t gate_bytes = bytes_of(plan_.ffn_types.gate, plan_.shape.model_dim);
    const uint64_t others = bundle_bytes(plan_.shape, plan_.ffn_types) - gate_bytes;
    const DecodeSums& sums = facts_.sums;
    const ActivationPredictor* predictor = decoder.predictor();
    const uint64_t looked_at =
        predictor == nullptr ? pool.total() : sums.candidates / sums.pass_count;
    const uint64_t computed =
        decoder.rule().dense() ? looked_at : sums.needed_neurons / sums.pass_count;
    return looked_at * gate_bytes + computed * others +
           (predictor == nullptr ? 0 : predictor->byte_count());
  }

  Comm& comm_;
  const RunOptions& options_;
  RunPlan plan_;
  RunOutcome outcome_;
  std::unique_ptr<Backend> host_;  // of what is cold, where that is apart
  std::unique_ptr<Backend> backend_;
  RankFacts facts_{};
  SentBytes sent_;
  bool made_bundles_ = false;                                   // of a disk tier, by this run
  std::unique_ptr<ActivationPredictor> predictor_, lookahead_;  // until the decoder takes them
  KnownActivity known_;                                         // until live policies take it
  std::optional<Listening> listening_;
  EngineHooks hooks_;
  std::optional<Resume> resume_;  // outlives the recorder
  std::optional<Recorder> recorder_;
  std::optional<LivePolicies> live_;
  std::optional<Decoder> exact_;  // of the audit
  std::optional<PredictorAudit> audit_;
  std::optional<NpyWriter> logits_;
  std::optional<ProgressObserver> progress_;
  std::optional<TextOutput> texts_;
  std::optional<SamplesFile> samples_;
};

}  // namespace

void run_rank(Comm& comm, const RunOptions& options) {
  RunPlan plan;
  together(comm, [&] { plan = make_run_plan(options, static_cast<uint32_t>(comm.size())); });
  std::vector<uint32_t> used;
  for (const RankShare& share : plan.partition.ranks) used.push_back(plan.job_rank(share.rank));
  with_used_ranks(comm, used, [&](Comm& ranks) { RankRun(ranks, options, std::move(plan)).run(); });
}

}  // namespace thermocline
