// matmul and matmul_masked: which rows and tokens share a tile or a panel.
//
// How they are grouped changes only what is reused from registers and cache, never a result.
// Few tokens: tiles decode rows as they read them. More: a panel of rows is decoded once, a part of
//   its columns at a time, for up to kPanelTokens tokens.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <type_traits>

#include "runtime/kernels/cpu_dot_fixed.h"
#include "runtime/kernels/cpu_dot_float.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct Dot {
  using Kind = std::conditional_t<takes_fixed(D), FixedDot<V, D>, FloatDot<V, D>>;
  using Row = typename Kind::Row;
  using Panel = typename Kind::Panel;

  // Rows of a tile of T tokens: as many as registers have sums for.
  static constexpr int tile_rows(int tokens) {
    return smaller(V::kAccumulators / tokens, kTileRows);
  }
  // Rows of a panel's tile.
  static constexpr int kPanelTile = V::kAccumulators / kTokens;

  // Where a product's inputs and results are.
  struct Product {
    const Inputs& x;
    int cols;
    float* y;
    int y_stride;

    template <int T>
    void rows_of(const int* tokens, Row (&rows)[T]) const {
      for (int t = 0; t < T; ++t) rows[t] = Kind::row_of(x, cols, tokens[t]);
    }
    void put(int token, int row, V sum) const {
      y[static_cast<size_t>(token) * y_stride + row] = V::sum(sum);
    }
    Product from(int token, Inputs& later) const {
      later = x;
      later.values += static_cast<size_t>(token) * x.stride;
      if constexpr (takes_fixed(D)) later.fixed += static_cast<size_t>(token) * fixed_bytes(cols);
      return {later, cols, y + static_cast<size_t>(token) * y_stride, y_stride};
    }
  };

  // Rows [first, first + count) of a block for the listed tokens, in tiles.
  static void multiply_tiles(const RowBlock& block, int first, int count, const Product& product,
                             const int* tokens, int token_count) {
    in_tiles<kTokens>(0, token_count, [&]<int T>(int t0) {
      Row x[T];
      product.rows_of(tokens + t0, x);
      in_tiles<tile_rows(T), 1>(first, first + count, [&]<int R>(int r0) {
        SumTile<V, R, T> sum;
        Kind::add_tile(block.rows + r0, block.ahead + r0, x, product.cols, sum);
        for (int r = 0; r < R; ++r)
          for (int t = 0; t < T; ++t)
            product.put(tokens[t0 + t], block.index[r0 + r], sum.of[r][t]);
      });
    });
  }

  // Sums of a panel, while its columns are gone through.
  struct Sums {
    alignas(64) float lanes[kPanelRows][kPanelTokens][kLanes];
  };

  // Rows [first, first + count) of a panel, R at a time, for the listed tokens, T at a time.
  template <int kR, int kT>
  static void add_tiles(Panel& panel, int first, int count, const Product& product,
                        const int* tokens, int token_count, int width, Sums& sums) {
    in_tiles<kT>(0, token_count, [&]<int T>(int t0) {
      Row x[T];
      product.rows_of(tokens + t0, x);
      in_tiles<kR, 1>(first, first + count, [&]<int R>(int r0) {
        const auto at = [&](int r, int t) { return sums.lanes[r0 + r][t0 + t]; };
        SumTile<V, R, T> sum(at);
        panel.add_tile(r0, x, width, sum);
        sum.store(at);
      });
    });
  }

  // Rows that share a panel.
  struct PanelRows {
    const std::byte* rows[kPanelRows];
    const std::byte* ahead[kPanelRows];  // those of the next panel
    int index[kPanelRows];
    int count = 0;

    // Asks for the columns that are decoded after those that begin with column `begin`.
    void look_ahead(int begin, int cols) const {
      const int next = begin + Panel::kCols < cols ? begin + Panel::kCols : 0;
      const int width = smaller(cols - next, Panel::kCols);
      for (int r = 0; r < count; ++r)
        Kind::prefetch_columns(next == 0 ? ahead[r] : rows[r], cols, next, width);
    }
  };

  // The rows for tokens that the masks, if there are any, choose.
  static void multiply_panel(const PanelRows& block, const Product& product, const Masks* masks,
                             int token_count) {
    int tokens[kPanelRows][kPanelTokens], counts[kPanelRows];
    for (int r = 0; r < block.count; ++r) {
      for (int t = 0; masks == nullptr && t < token_count; ++t) tokens[r][t] = t;
      counts[r] =
          masks == nullptr ? token_count : masks->tokens_of(block.index[r], token_count, tokens[r]);
    }
    Sums sums;
    for (int r = 0; r < block.count; ++r)
      std::memset(sums.lanes[r], 0, counts[r] * sizeof sums.lanes[r][0]);
    Panel panel;
    for (int begin = 0; begin < product.cols; begin += Panel::kCols) {
      const int width = smaller(product.cols - begin, Panel::kCols);
      panel.decode(block.rows, product.cols, block.count, begin, width);
      block.look_ahead(begin, product.cols);
      if (masks == nullptr)
        add_tiles<kPanelTile, kTokens>(panel, 0, block.count, product, tokens[0], token_count,
                                       width, sums);
      for (int r = 0; masks != nullptr && r < block.count; ++r)
        add_tiles<1, kTokens>(panel, r, 1, product, tokens[r], counts[r], width, sums);
    }
    for (int r = 0; r < block.count; ++r)
      for (int i = 0; i < counts[r]; ++i)
        product.put(tokens[r][i], block.index[r], V::load(sums.lanes[r][i]));
  }

  // Up to kTokens tokens.
  static void multiply_block(const RowBlock& block, const Product& product, const Masks* masks,
                             int token_count) {
    int tokens[kTokens] = {0, 1, 2, 3};
    if (masks == nullptr || token_count == 1)
      return multiply_tiles(block, 0, block.count, product, tokens, token_count);
    for (int r = 0; r < block.count; ++r) {
      const int count = masks->tokens_of(block.index[r], token_count, tokens);
      multiply_tiles(block, r, 1, product, tokens, count);
    }
  }

  // Rows of up to kTokens tokens in blocks, of more in panels; for_each(visit) visits the blocks.
  template <class ForEachBlock>
  static void multiply_rows(const Product& product, const Masks* masks, int token_count,
                            ForEachBlock for_each) {
    if (token_count <= kTokens)
      return for_each(
          [&](const RowBlock& block) { multiply_block(block, product, masks, token_count); });
    PanelRows panel;
    const auto pass_on = [&] {
      if (panel.count > 0) multiply_panel(panel, product, masks, token_count);
      panel.count = 0;
    };
    for_each([&](const RowBlock& block) {
      for (int i = 0; i < block.count; ++i) {
        panel.rows[panel.count] = block.rows[i];
        panel.ahead[panel.count] = block.ahead[i];
        panel.index[panel.count++] = block.index[i];
      }
      if (panel.count + kBlockRows > kPanelRows) pass_on();
    });
    pass_on();
  }

  static void multiply(const WeightView& w, int row_begin, int row_end, const Inputs& x,
                       int token_count, float* y, int y_stride, const Masks* all_masks) {
    const RowMemory memory{w.data, w.stride, w.places};
    const Product all{x, w.cols, y, y_stride};
    for (int first = 0; first < token_count; first += kPanelTokens) {
      const int count = smaller(token_count - first, kPanelTokens);
      Inputs later;
      const Product product = all.from(first, later);
      if (all_masks == nullptr) {
        multiply_rows(product, nullptr, count, [&](const auto& visit) {
          for_each_block(memory, row_begin, row_end, prefers_neighbours(), visit);
        });
        continue;
      }
      const Masks masks = all_masks->from(first);
      multiply_rows(product, &masks, count, [&](const auto& visit) {
        for_each_block([&](int i) { return masks.any(count, i); }, memory, row_begin, row_end,
                       visit);
      });
    }
  }

  static void matmul(const WeightView& w, int row_begin, int row_end, const Inputs& x,
                     int token_count, float* y, int y_stride) {
    multiply(w, row_begin, row_end, x, token_count, y, y_stride, nullptr);
  }

  static void matmul_masked(const WeightView& w, int row_begin, int row_end, const uint64_t* mask,
                            int mask_stride, const Inputs& x, int token_count, float* y,
                            int y_stride) {
    const Masks masks{mask, mask_stride};
    multiply(w, row_begin, row_end, x, token_count, y, y_stride, &masks);
  }
};

}  // namespace
}  // namespace thermocline
