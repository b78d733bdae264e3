#include "runtime/weight_parts.h"

#include <fmt/format.h>

namespace thermocline {
namespace {

std::string_view name_of(Matrix matrix) {
  constexpr std::string_view kNames[] = {
      "token_embedding", "head", "q", "k", "v", "o", "gate", "up", "down_t"};
  return kNames[static_cast<int>(matrix)];
}

bool has_layers(Matrix matrix) {
  return matrix != Matrix::token_embedding && matrix != Matrix::head;
}

}  // namespace

std::string_view name_of(NormVector vector) {
  constexpr std::string_view kNames[] = {"attention_norm", "ffn_norm", "output_norm"};
  return kNames[static_cast<int>(vector)];
}

bool is_ffn(Matrix matrix) {
  return matrix == Matrix::gate || matrix == Matrix::up || matrix == Matrix::down_t;
}

std::string WeightPart::text() const {
  return has_layers(matrix) ? fmt::format("layer {}, {}", layer, name_of(matrix))
                            : std::string(name_of(matrix));
}

WeightPart WeightPlan::part(Matrix matrix, uint32_t layer) const {
  const uint32_t q_rows_per_kv_head = shape_.q_dim() / shape_.kv_head_count;
  const Range all{0, shape_.model_dim};
  const Range q{share_.kv_heads.begin * q_rows_per_kv_head,
                share_.kv_heads.count * q_rows_per_kv_head};
  const Range kv{share_.kv_heads.begin * shape_.head_dim, share_.kv_heads.count * shape_.head_dim};
  const auto with = [&](Range rows, Range cols) {
    return WeightPart{matrix, layer, source_.dtype(matrix, layer), rows, cols};
  };
  switch (matrix) {
    case Matrix::q:
      return with(q, all);
    case Matrix::k:
    case Matrix::v:
      return with(kv, all);
    case Matrix::o:
      return with(all, q);
    case Matrix::token_embedding:
    case Matrix::head:
      return with(share_.vocab, all);
    default:
      return with(share_.neurons, all);
  }
}

std::vector<WeightPart> WeightPlan::parts() const {
  std::vector<WeightPart> all;
  for (uint32_t layer = share_.layers.begin; layer < share_.layers.end(); ++layer) {
    for (const Matrix matrix :
         {Matrix::q, Matrix::k, Matrix::v, Matrix::o, Matrix::gate, Matrix::up, Matrix::down_t}) {
      all.push_back(part(matrix, layer));
    }
  }
  const bool shared = shape_.tied_embeddings && first_stage_;
  if (first_stage_) all.push_back(part(Matrix::token_embedding, 0));
  if (last_stage_ && !shared) all.push_back(part(Matrix::head, 0));
  return all;
}

}  // namespace thermocline
