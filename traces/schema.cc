#include "traces/schema.h"

#include "models/error.h"
#include "traces/magnitude_codes.h"

namespace thermocline {
namespace {

constexpr uint64_t kRankCountMax = 16384;

struct TextField {
  const char* name;
  std::string TraceHeader::*field;
};
constexpr TextField kTextFields[] = {
    {"version", &TraceHeader::version},
    {"model", &TraceHeader::model},
    {"weight_provenance", &TraceHeader::weight_provenance},
    {"weight_hash", &TraceHeader::weight_hash},
    {"activation_rule", &TraceHeader::activation_rule},
    {"prompts", &TraceHeader::prompts},
    {"prompts_hash", &TraceHeader::prompts_hash},
    {"layout", &TraceHeader::layout},
    {"config_json", &TraceHeader::config_json},
};

struct DimensionField {
  const char* name;
  uint32_t ModelShape::*field;
};
constexpr DimensionField kDimensionFields[] = {
    {"layer_count", &ModelShape::layer_count},
    {"model_dim", &ModelShape::model_dim},
    {"ffn_dim", &ModelShape::ffn_dim},
    {"head_count", &ModelShape::head_count},
    {"kv_head_count", &ModelShape::kv_head_count},
    {"head_dim", &ModelShape::head_dim},
    {"vocab_size", &ModelShape::vocab_size},
    {"context_length", &ModelShape::context_length},
};

struct NumberField {
  const char* name;
  float ModelShape::*field;
};
constexpr NumberField kNumberFields[] = {
    {"fatrelu_threshold", &ModelShape::fatrelu_threshold},
    {"rope_theta", &ModelShape::rope_theta},
    {"norm_epsilon", &ModelShape::norm_epsilon},
};

bool overlap(uint64_t begin, uint64_t count, uint64_t other_begin, uint64_t other_count) {
  return begin < other_begin + other_count && other_begin < begin + count;
}

bool overlap(const NeuronPool& one, const NeuronPool& other) {
  return overlap(one.layer_begin, one.layer_count, other.layer_begin, other.layer_count) &&
         overlap(one.neuron_begin, one.neuron_count, other.neuron_begin, other.neuron_count);
}

std::string rank_text(size_t rank) { return "rank " + std::to_string(rank); }

void validate_pool(const TraceHeader& header, size_t rank, const std::string& origin) {
  const NeuronPool& pool = header.pools[rank];
  const uint64_t layer_end = uint64_t{pool.layer_begin} + pool.layer_count;
  const uint64_t neuron_end = uint64_t{pool.neuron_begin} + pool.neuron_count;
  const bool within = layer_end <= header.shape.layer_count && neuron_end <= header.shape.ffn_dim;
  if (pool.total() == 0 || !within) {
    throw bad_input(origin, "neurons of " + rank_text(rank) + " within the model",
                    "layers " + std::to_string(pool.layer_begin) + " to " +
                        std::to_string(layer_end) + ", neurons " +
                        std::to_string(pool.neuron_begin) + " to " + std::to_string(neuron_end));
  }
  const bool whole_bytes = neuron_end % 8 == 0 || neuron_end == header.shape.ffn_dim;
  if (pool.neuron_begin % 8 != 0 || !whole_bytes) {
    throw bad_input(
        origin, rank_text(rank) + " meeting its neighbours at multiples of 8 neurons",
        "neurons " + std::to_string(pool.neuron_begin) + " to " + std::to_string(neuron_end));
  }
}

void write_pools(Hdf5File& file, const std::vector<NeuronPool>& pools) {
  std::vector<uint32_t> rows;
  for (const NeuronPool& pool : pools) {
    rows.insert(rows.end(),
                {pool.layer_begin, pool.layer_count, pool.neuron_begin, pool.neuron_count});
  }
  const Extent extent = {pools.size(), 4};
  file.create({dataset::kPools, Element::u32, extent, {}})->write<uint32_t>({0, 0}, extent, rows);
}

std::unique_ptr<Hdf5Dataset> open_fixed(const Hdf5File& file, const char* name, Element element,
                                        size_t rank) {
  auto dataset = file.open(name);
  const bool plain = dataset->element() == element && dataset->extent().size() == rank;
  if (!plain) throw bad_input(file.path(), std::string("dataset ") + name, "another type or rank");
  return dataset;
}

std::vector<NeuronPool> read_pools(const Hdf5File& file) {
  const auto dataset = open_fixed(file, dataset::kPools, Element::u32, 2);
  const Extent extent = dataset->extent();
  if (extent[0] == 0 || extent[0] > kRankCountMax || extent[1] != 4) {
    throw bad_input(file.path(), "pools of 1 to " + std::to_string(kRankCountMax) + " ranks",
                    std::to_string(extent[0]) + " x " + std::to_string(extent[1]));
  }
  std::vector<uint32_t> rows(extent[0] * 4);
  dataset->read<uint32_t>({0, 0}, extent, rows);
  std::vector<NeuronPool> pools;
  for (size_t i = 0; i < rows.size(); i += 4) {
    pools.push_back({rows[i], rows[i + 1], rows[i + 2], rows[i + 3]});
  }
  return pools;
}

std::vector<float> read_thresholds(const Hdf5File& file, uint32_t layer_count) {
  const auto dataset = open_fixed(file, dataset::kThresholds, Element::f32, 1);
  if (dataset->extent()[0] != layer_count) {
    throw bad_input(file.path(), std::to_string(layer_count) + " activation thresholds",
                    std::to_string(dataset->extent()[0]));
  }
  std::vector<float> thresholds(layer_count);
  dataset->read<float>({0}, {layer_count}, thresholds);
  return thresholds;
}

ModelShape read_shape(const Hdf5File& file) {
  ModelShape shape;
  for (const DimensionField& dimension : kDimensionFields) {
    shape.*dimension.field = file.read_number<uint32_t>(dimension.name);
  }
  for (const NumberField& number : kNumberFields) {
    shape.*number.field = file.read_number<float>(number.name);
  }
  shape.activation = ffn_activation_by_name(file.read_text("activation"));
  shape.tied_embeddings = file.read_number<uint8_t>("tied_embeddings") != 0;
  validate(shape, file.path());
  return shape;
}

void check_kind(const Hdf5File& file, const std::string& kind) {
  const std::string found = file.read_text("kind");
  if (found != kind) throw bad_input(file.path(), "a file of kind " + kind, "kind " + found);
  const uint32_t major = file.read_number<uint32_t>("schema_major");
  if (major != kTraceSchemaMajor) {
    throw bad_input(file.path(),
                    "trace schema " + std::to_string(kTraceSchemaMajor) + ", which this version " +
                        "of thermocline reads",
                    "schema " + std::to_string(major));
  }
}

}  // namespace

void validate_pools(const TraceHeader& header, const std::string& origin) {
  uint64_t total = 0;
  for (size_t rank = 0; rank < header.pools.size(); ++rank) {
    validate_pool(header, rank, origin);
    total += header.pools[rank].total();
    for (size_t other = 0; other < rank; ++other) {
      if (!overlap(header.pools[rank], header.pools[other])) continue;
      throw bad_input(origin, "each neuron on one rank",
                      rank_text(other) + " and " + rank_text(rank) + " overlap");
    }
  }
  if (total != header.shape.neuron_count()) {
    throw bad_input(origin, std::to_string(header.shape.neuron_count()) + " neurons over all ranks",
                    std::to_string(total));
  }
}

void write_header(Hdf5File& file, const TraceHeader& header, const std::string& kind) {
  file.write_text("kind", kind);
  file.write_number<uint32_t>("schema_major", kTraceSchemaMajor);
  file.write_number<uint32_t>("schema_minor", kTraceSchemaMinor);
  for (const TextField& text : kTextFields) file.write_text(text.name, header.*text.field);
  for (const DimensionField& dimension : kDimensionFields) {
    file.write_number<uint32_t>(dimension.name, header.shape.*dimension.field);
  }
  for (const NumberField& number : kNumberFields) {
    file.write_number<float>(number.name, header.shape.*number.field);
  }
  file.write_text("activation", std::string(name_of(header.shape.activation)));
  file.write_number<uint8_t>("tied_embeddings", header.shape.tied_embeddings ? 1 : 0);
  file.write_text("ffn_dtype", name_of(header.ffn_types));
  file.write_number<uint32_t>("block_steps", kBlockSteps);
  file.write_number<uint8_t>("has_predicted", header.has_predicted ? 1 : 0);
  file.write_text("magnitude_format", std::string(name_of(header.magnitudes)));
  file.write_number<uint64_t>("seed", header.seed);
  write_pools(file, header.pools);
  const Extent extent = {header.activation_thresholds.size()};
  file.create({dataset::kThresholds, Element::f32, extent, {}})
      ->write<float>({0}, extent, header.activation_thresholds);
}

TraceHeader read_header(const Hdf5File& file, const std::string& kind) {
  check_kind(file, kind);
  try {
    TraceHeader header;
    for (const TextField& text : kTextFields) header.*text.field = file.read_text(text.name);
    header.shape = read_shape(file);
    header.ffn_types = bundle_types_by_name(file.read_text("ffn_dtype"));
    header.seed = file.read_number<uint64_t>("seed");
    header.pools = read_pools(file);
    header.has_predicted = file.read_number<uint8_t>("has_predicted") != 0;
    header.magnitudes = magnitude_format_by_name(file.read_text("magnitude_format"));
    if (file.read_number<uint32_t>("block_steps") != kBlockSteps) {
      throw bad_input(file.path(), "blocks of " + std::to_string(kBlockSteps) + " steps", "others");
    }
    header.activation_thresholds = read_thresholds(file, header.shape.layer_count);
    validate_pools(header, file.path());
    return header;
  } catch (const Error& error) {
    // A name that this version does not know is the file's fault here, not the command line's.
    if (error.kind() != ErrorKind::usage) throw;
    throw Error(ErrorKind::input, file.path() + ": " + error.what());
  }
}

void add_types(Fnv1a& hash, const BundleTypes& types) {
  hash.add_value(types.gate);
  if (types.uniform()) return;
  hash.add_value(types.up);
  hash.add_value(types.down_t);
}

ShardChecksum::ShardChecksum(const TraceHeader& header, uint32_t rank) {
  hash_.add_value(rank);
  for (const TextField& text : kTextFields) {
    hash_.add_value((header.*text.field).size());
    hash_.add(header.*text.field);
  }
  for (const DimensionField& dimension : kDimensionFields) {
    hash_.add_value(header.shape.*dimension.field);
  }
  for (const NumberField& number : kNumberFields) hash_.add_value(header.shape.*number.field);
  hash_.add_value(header.shape.activation);
  hash_.add_value(header.shape.tied_embeddings);
  add_types(hash_, header.ffn_types);
  hash_.add_value(header.seed);
  hash_.add_value(header.has_predicted);
  hash_.add_value(header.magnitudes);
  for (const NeuronPool& pool : header.pools) hash_.add_value(pool);
  for (const float threshold : header.activation_thresholds) hash_.add_value(threshold);
}

void ShardChecksum::add(const StepInfo& info, const StepTimes& times,
                        std::span<const uint32_t> popcounts) {
  hash_.add_value(info.token);
  hash_.add_value(info.position);
  hash_.add_value(info.task);
  hash_.add_value(info.phase);
  hash_.add_value(info.pass);
  hash_.add_value(times);
  for (const uint32_t count : popcounts) hash_.add_value(count);
}

void ShardChecksum::add(const TaskRecord& task) {
  for (const uint32_t number :
       {static_cast<uint32_t>(task.task_id), task.step_begin, task.step_count, task.prompt_tokens,
        static_cast<uint32_t>(task.generated.size())}) {
    hash_.add_value(number);
  }
  for (const int32_t token : task.generated) hash_.add_value(token);
}

// Hashed as they lie in memory: no padding may hide between their fields.
static_assert(sizeof(NeuronPool) == 4 * sizeof(uint32_t));
static_assert(sizeof(StepTimes) == 4 * sizeof(uint64_t));

std::string difference(const TraceHeader& one, const TraceHeader& other) {
  for (const TextField& text : kTextFields) {
    if (one.*text.field != other.*text.field) return text.name;
  }
  for (const DimensionField& dimension : kDimensionFields) {
    if (one.shape.*dimension.field != other.shape.*dimension.field) return dimension.name;
  }
  if (one.shape != other.shape) return "shape";
  if (one.ffn_types != other.ffn_types) return "ffn_dtype";
  if (one.activation_thresholds != other.activation_thresholds) return dataset::kThresholds;
  if (one.seed != other.seed) return "seed";
  if (one.has_predicted != other.has_predicted) return "has_predicted";
  if (one.magnitudes != other.magnitudes) return "magnitude_format";
  return one.pools == other.pools ? "" : dataset::kPools;
}

}  // namespace thermocline
