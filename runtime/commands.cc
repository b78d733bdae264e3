// thermocline run and calibrate; model synth is in runtime/synth_command.cc.
#include "runtime/commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "models/units.h"
#include "runtime/backend.h"
#include "runtime/disk_bench.h"
#include "runtime/machine_bench.h"
#include "runtime/metrics_server.h"
#include "runtime/node_facts.h"
#include "runtime/partition_table.h"
#include "runtime/predictor.h"
#include "runtime/run.h"
#include "runtime/run_partition.h"
#include "runtime/run_report.h"
#include "runtime/synth_command.h"

namespace thermocline {
namespace {

constexpr uint32_t kLocalRanksMax = 256;
constexpr uint32_t kRanksMax = 4096;  // of --print-partition
constexpr uint32_t kThreadsMax = 1024;
constexpr uint32_t kBatchMax = 1024;
constexpr uint32_t kSamplesPerTaskMax = 1024;
constexpr double kLingerMax = 1e6;  // seconds

// What can be said before the ranks meet: each finds it by itself.
void check_limits(const RunOptions& options) {
  if (options.local_ranks > 0 && launched_rank().size > 1) {
    throw bad_usage("--local-ranks is for a run without mpirun or srun");
  }
  if (options.local_ranks > kLocalRanksMax) {
    throw bad_usage(
        fmt::format("--local-ranks {}: expected at most {}", options.local_ranks, kLocalRanksMax));
  }
  if (options.ranks > kRanksMax) {
    throw bad_usage(fmt::format("--ranks {}: expected at most {}", options.ranks, kRanksMax));
  }
  if (options.threads > kThreadsMax) {
    throw bad_usage(fmt::format("--threads {}: expected at most {}", options.threads, kThreadsMax));
  }
  if (options.batch > kBatchMax) {
    throw bad_usage(fmt::format("--batch {}: expected at most {}", options.batch, kBatchMax));
  }
  if (options.samples_per_task > kSamplesPerTaskMax) {
    throw bad_usage(fmt::format("--samples-per-task {}: expected at most {}",
                                options.samples_per_task, kSamplesPerTaskMax));
  }
  if (options.max_new_tokens == 0) {
    throw bad_usage("--max-new-tokens 0: expected at least 1");
  }
  if (!options.listen.empty()) (void)parse_listen_address(options.listen);
  if (options.linger != 0 && options.listen.empty()) {
    throw bad_usage("--linger goes on serving what --listen serves: give --listen HOST:PORT, too");
  }
  if (!(options.linger >= 0 && options.linger <= kLingerMax)) {
    throw bad_usage(
        fmt::format("--linger {}: expected seconds from 0 to {}", options.linger, kLingerMax));
  }
}

// Every rank finds the same, one prints it.
void print_partition(const RunOptions& options) {
  const RunPlan plan = make_run_plan(options, ranks_to_print(options));
  if (launched_rank().rank != 0) return;
  if (options.json != "-") {
    fmt::print("{}\n", describe(plan));
    for (const std::string& note : plan.notes) fmt::print("{}\n", note);
    print_partition(stdout, plan);
  }
  if (!options.json.empty()) write_json(options.json, "run", partition_rows(plan));
}

void run(const RunOptions& options) {
  check_limits(options);
  if (options.print_partition) return print_partition(options);
  if (options.ranks > 0) {
    throw bad_usage(
        "--ranks is what --print-partition asks about: a run has mpirun -n or "
        "--local-ranks");
  }
  install_interrupt_handler();
  with_ranks(static_cast<int>(options.local_ranks), [&](Comm& comm) { run_rank(comm, options); });
}

// Whether only the machine is asked about.
bool names_no_work(const CLI::App& command) {
  for (const char* option : {"--model", "--prompt", "--prompts", "--record", "--policy",
                             "--samples", "--predictor", "--audit-predictor", "--listen"}) {
    if (command.count(option) > 0) return false;
  }
  return true;
}

void bench_alone(const RunOptions& options) {
  check_limits(options);
  if (options.local_ranks > 0 || launched_rank().size > 1) {
    throw bad_usage("--bench measures this machine in one process; with ranks, name a --model");
  }
  install_interrupt_handler();
  bench_machine(options);
}

void add_input_options(CLI::App& command, RunOptions& options) {
  command
      .add_option("--model", options.model,
                  "PATH of a checkpoint, preset:demo (trained, small, built in), or synthetic "
                  "weights: preset:NAME[,layers=N][,type=q4_0][,seed=S]")
      ->capture_default_str();
  command.add_option("--tokenizer", options.tokenizer,
                     "PATH, or byte; default: the checkpoint's own, else byte");
  command.add_option("--prompt", options.prompt, "text to continue");
  command.add_option("--prompts", options.prompts.path,
                     "MBPP's .jsonl; default: the tasks that are built in");
  command.add_option("--split", options.prompts.split, "prompt, test, validation, train or all")
      ->capture_default_str();
  command.add_option("--shots", options.prompts.shots, "solved examples before the task: 0 or 3")
      ->capture_default_str();
  command.add_option("--limit", options.prompts.limit, "only the first N tasks of the split");
  command.add_option("--max-new-tokens", options.max_new_tokens, "tokens to decode per task")
      ->capture_default_str();
  command.add_flag("--teacher-forced", options.teacher_forced,
                   "feed the reference solutions token by token instead of decoding");
}

void add_decoding_options(CLI::App& command, RunOptions& options) {
  command
      .add_option("--temperature", options.temperature,
                  "sample from softmax(logits / T); 0: greedy, always the likeliest token")
      ->capture_default_str();
  command
      .add_option("--top-p", options.top_p,
                  "sample from the fewest likeliest tokens that have this probability together")
      ->capture_default_str();
  command
      .add_option("--samples-per-task", options.samples_per_task,
                  "decode each task N times, each with random numbers of its own")
      ->capture_default_str();
  command
      .add_option("--stop", options.stop,
                  "end a text before TEXT, in which \\n, \\t and \\\\ are escapes; may be given "
                  "again; '' for none; default: [DONE] and what MBPP's harnesses stop at, none "
                  "with --prompt")
      ->allow_extra_args(false);
  command.add_option("--samples", options.samples,
                     "write each text as a line of JSON that EvalPlus reads: evalplus.evaluate "
                     "--dataset mbpp --samples FILE.jsonl");
}

void add_output_options(CLI::App& command, RunOptions& options) {
  command.add_option("--record", options.record, "write the activation trace, HDF5");
  command.add_flag(
      "--resume", options.resume,
      "go on with an interrupted recording at its last complete task, if there is one");
  command.add_flag("--overwrite", options.overwrite,
                   "start an interrupted recording over; with --resume, only that of another run");
  command
      .add_option("--record-magnitudes", options.record_magnitudes,
                  "log8 or f16, :every=K for each K-th step: record |act(gate)| of all neurons "
                  "too, to move the activation threshold afterwards")
      ->capture_default_str();
  command.add_option("--logits", options.logits,
                     "write .npy, f32, step x vocabulary; steps as the trace has them");
  command.add_option("--json", options.json, "write the rows of the tables; - is standard output");
  command.add_flag("--bench", options.bench,
                   "alone: how fast this machine runs each operation, beside its limits, in a "
                   "minute; with a model or prompts: time and GB/s of each part of a layer, too");
  command
      .add_option("--activation-threshold", options.activation_threshold,
                  "SiLU: a neuron is recorded as active where |silu(gate)| exceeds this; pNN: "
                  "each layer's percentile over the first prompt")
      ->capture_default_str();
  command
      .add_option("--predictor", options.predictor,
                  "NAME[:key=value,...]: which neurons' gates to compute; " + predictor_help())
      ->capture_default_str();
  command.add_flag("--audit-predictor", options.audit_predictor,
                   "hold the predictor to the exact gate, and the logits to an exact decoder's, "
                   "fed with the same tokens: recall, precision, cost, logit error");
}

void add_listen_options(CLI::App& command, RunOptions& options) {
  command.add_option("--listen", options.listen,
                     "HOST:PORT of this machine (127.0.0.1:9100, [::1]:0; 0: any free port): serve "
                     "live counters over HTTP: /metrics for Prometheus, /counters.json");
  command
      .add_option("--linger", options.linger,
                  "SECONDS for which --listen goes on after the end; Ctrl-C ends it")
      ->capture_default_str();
}

void add_policy_options(CLI::App& command, RunOptions& options) {
  command.add_option("--policy", options.policies,
                     "NAME[:key=value,...][,NAME...]: run these live; they change no result");
  command
      .add_option(
          "--budget", options.budgets,
          "BYTES, PERCENT, FROM..TO/STEP, A+B+... (each rank or each node its own), cluster "
          "(what its fast tiers have left) or auto")
      ->capture_default_str();
  command.add_option("--profile", options.profile, "the trace that policies start from");
  command.add_option("--future", options.future,
                     "for oracles: an earlier recording of this very run, whose firing counts they "
                     "know; the run ends in an error where it was not one");
  command.add_option("--migration", options.migration, "BYTES that may move per step, or none")
      ->capture_default_str();
  command.add_option(
      "--tiers", options.tiers,
      "device,host: all FFN bundles lie in host memory, the hot ones of the one "
      "--policy on the GPU too, under the one --budget; the GPU computes these while "
      "the cores compute the others (with --backend cpu one after the other, for "
      "tests). host,disk: what --disk-tier FOLDER means. device,host,disk: with --disk-tier "
      "FOLDER; "
      "the GPU holds what is hot under --budget, host memory what is hot under --host-budget, the "
      "file all");
  command.add_option("--host-budget", options.host_budget,
                     "BYTES, PERCENT or A+B+... of host memory for hot bundles, with --tiers "
                     "device,host,disk; --budget is the GPU's");
  command.add_option("--disk-tier", options.disk_tier,
                     "FOLDER: up and down rows of the FFN lie in a file there, which is made once; "
                     "the hot ones of the one --policy are in memory too, under the one --budget; "
                     "without a policy, none");
  command
      .add_option("--disk-reads", options.disk_reads,
                  "auto, io_uring or threads: how --disk-tier is read")
      ->capture_default_str();
  command.add_option("--read-ahead", options.read_ahead,
                     "a predictor, as --predictor takes it, that says in front of each layer's "
                     "attention what to read of --disk-tier; changes no result");
  command.add_option(
      "--cluster", options.cluster,
      "cluster file: without --layout and --rank-weights each rank gets what its node can do, or "
      "nothing; policies may weigh its rates (default: those of replay's); keys: " +
          std::string("see replay --help; ranks = N of a node: how many run there"));
}

// "cpu (what it is), cuda (what it is; built, but unusable here: why)"
std::string backend_help() {
  std::string text;
  for (const BackendEntry* entry : backends().entries()) {
    const std::string reason = entry->unusable();
    text += (text.empty() ? "" : ", ") + entry->name + " (" + entry->summary +
            (reason.empty() ? ")" : "; built, but unusable here: " + reason + ")");
  }
  return text;
}

void add_machine_options(CLI::App& command, RunOptions& options) {
  command.add_option("--backend", options.backend, "auto, " + backend_help())
      ->capture_default_str();
  command.add_option("--device", options.device, "which GPU of several; default: the rank's turn");
  command.add_flag("--check-finite", options.check_finite,
                   "look for NaN and infinity in weights and activations, and name the first");
  command.add_option("--layout", options.layout,
                     "ppN,tpM: pipeline stages x ranks that share a layer; default: tp first");
  command.add_option("--rank-weights", options.rank_weights,
                     "2,1,1: how much each rank takes, relative to the others");
  command.add_flag("--print-partition", options.print_partition,
                   "say what each rank of --ranks or of the cluster would hold and take, and why; "
                   "run nothing");
  command.add_option("--ranks", options.ranks, "of --print-partition; default: the cluster's");
  command.add_option("--active-share", options.active_share,
                     "share of the neurons that --cluster expects to be active for a token; "
                     "default: 25%, with SiLU 100%");
  command.add_option("--threads", options.threads, "per rank; default: the rank's share of cores");
  command.add_option("--local-ranks", options.local_ranks,
                     "ranks as threads of this process, without mpirun");
  command
      .add_option("--batch", options.batch,
                  "tasks in flight: they share each pass over the weights; their tokens are the "
                  "same for any N")
      ->capture_default_str();
  command.add_option("--seed", options.seed, "of sampling; recorded with the results")
      ->capture_default_str();
}

void add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand(
      "run", "execute prompts on one or many ranks; record a trace, evaluate policies live");
  command->footer(
      "Example: mpirun -n 4 thermocline run --model preset:relullama-70b,layers=2 "
      "--teacher-forced --limit 1 --record trace.h5");
  add_input_options(*command, *options);
  add_decoding_options(*command, *options);
  add_output_options(*command, *options);
  add_listen_options(*command, *options);
  add_policy_options(*command, *options);
  add_machine_options(*command, *options);
  command->callback([options, command] {
    if (options->bench && names_no_work(*command)) return bench_alone(*options);
    run(*options);
  });
}

struct CalibrateOptions {
  uint32_t threads = 0;
  std::string disk, read_bytes = "9KiB", disk_reads = "auto";
  std::string out, json;
};

constexpr double kCalibrateSeconds = 0.5;      // per thread count
constexpr double kCalibrateDiskSeconds = 2.0;  // a disk's rate swings more

struct Calibration {
  std::vector<double> rates;  // bytes read a second with 1, 2, ... threads
  std::optional<DiskRate> disk;
  uint64_t disk_bytes = 0;  // free there
};

// A cluster file of this one node, as `replay --cluster` reads it.
std::string cluster_toml(const Calibration& measured, const CalibrateOptions& options,
                         uint64_t memory_bytes, const std::string& host) {
  std::string text = "# Measured: bytes read per second, by number of threads.\n";
  double best = 0;
  for (size_t i = 0; i < measured.rates.size(); ++i) {
    text += fmt::format("#   {:>3} threads: {:.2f} GB/s\n", i + 1, measured.rates[i] * 1e-9);
    best = std::max(best, measured.rates[i]);
  }
  if (measured.disk.has_value()) {
    text +=
        fmt::format("# The disk: pieces of {}, many at a time, by {}{}.\n", options.read_bytes,
                    measured.disk->engine, measured.disk->direct ? "" : ", through the page cache");
  }
  text += fmt::format(
      "[cluster]\nname = \"{}\"\nsource = \"thermocline calibrate\"\n"
      "measured = true\n\n[[node]]\nname = \"{}\"\n"
      "host = {{memory = \"{}B\", bandwidth = \"{:.0f}B/s\"}}\n",
      host, host, memory_bytes, best);
  if (!measured.disk.has_value()) return text;
  const double rate = measured.disk->bytes_per_second;
  return text + fmt::format(
                    "disk = {{memory = \"{}B\", bandwidth = \"{:.0f}B/s\"}}\n"
                    "migration = {{bandwidth = \"{:.0f}B/s\", latency = \"0us\"}}\n",
                    measured.disk_bytes, rate, rate);
}

void calibrate(const CalibrateOptions& options) {
  if (options.threads > kThreadsMax) {
    throw bad_usage(fmt::format("--threads {}: expected at most {}", options.threads, kThreadsMax));
  }
  const uint64_t read_bytes = parse_bytes(options.read_bytes);
  const uint32_t threads = options.threads != 0 ? options.threads : cores_of_process(1);
  Calibration measured;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (uint32_t count = 1; count <= threads; ++count) {
    measured.rates.push_back(measure_read_bandwidth(count, 1, kCalibrateSeconds));
    rows.push_back({{"kind", "calibration"},
                    {"threads", count},
                    {"read_bytes_per_second", measured.rates.back()},
                    {"source", "measured"}});
  }
  if (!options.disk.empty()) {
    measured.disk =
        measure_disk_reads(options.disk, read_bytes, kCalibrateDiskSeconds, options.disk_reads);
    measured.disk_bytes = std::filesystem::space(options.disk).available;
    rows.push_back({{"kind", "calibration"},
                    {"disk", options.disk},
                    {"piece_bytes", read_bytes},
                    {"read_bytes_per_second", measured.disk->bytes_per_second},
                    {"engine", measured.disk->engine},
                    {"direct", measured.disk->direct},
                    {"source", "measured"}});
  }
  const auto machine = machine_facts();
  const std::string toml =
      cluster_toml(measured, options, machine.at("memory_bytes").get<uint64_t>(),
                   machine.at("host").get<std::string>());
  if (options.json != "-") fmt::print("{}", toml);
  if (!options.out.empty()) write_file(options.out, toml);
  if (!options.json.empty()) write_json(options.json, "calibrate", rows);
}

void add_calibrate(CLI::App& app) {
  auto options = std::make_shared<CalibrateOptions>();
  CLI::App* command = app.add_subcommand(
      "calibrate", "measure what this node reads from memory and disk, as a cluster file");
  command->footer("Example: thermocline calibrate --disk /scratch --out node.toml");
  command->add_option("--threads", options->threads, "measure with 1 to N; default: all cores");
  command->add_option("--disk", options->disk,
                      "also a disk tier: the folder of --disk-tier, where a file of up to 1 GiB is "
                      "made and removed");
  command->add_option("--read-bytes", options->read_bytes,
                      "what one read of it takes: up and down rows of a neuron (default 9KiB, of a "
                      "70B model in 4 bits)");
  command->add_option("--disk-reads", options->disk_reads, "auto, io_uring or threads");
  command->add_option("--out", options->out, "also write the TOML here");
  command->add_option("--json", options->json, "write the rows; - is standard output");
  command->callback([options] { calibrate(*options); });
}

}  // namespace

void add_runtime_commands(CLI::App& app) {
  add_run(app);
  add_calibrate(app);
  add_synth_command(*app.get_subcommand("model"));
}

}  // namespace thermocline
