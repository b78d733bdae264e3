// multiply: matrices times tokens.
#include "runtime/kernels/cuda_rows.h"

namespace TC_CUDA_NAMESPACE {
namespace {

constexpr int kProductsMax = 4;
// Blocks that fill an H200: two for each of 132 multiprocessors.
constexpr int kBlocksWanted = 264;

struct ProductOfRows {
  Rows w;
  float* y;
  int block_begin;  // the blocks before are those of the products before
};

struct ProductList {
  ProductOfRows at[kProductsMax];
  int count;
};

// Blocks of the same rows follow one another, so that weights come from the L2 for all but one.
template <DType D, int T, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor<T>)
    multiply_kernel(ProductList products, const float* x, int token_count, int per_warp) {
  const int token_groups = (token_count + T - 1) / T;
  const int block = static_cast<int>(blockIdx.x) / token_groups;
  const int token = static_cast<int>(blockIdx.x) % token_groups * T;
  int p = 0;
  while (p + 1 < products.count && block >= products.at[p + 1].block_begin) ++p;
  const ProductOfRows product = products.at[p];
  const int cols = product.w.cols, rows = product.w.rows;
  const int first = (block - product.block_begin) * kWarps * per_warp;
  const int left = rows - first;
  const Tokens tokens{x + static_cast<size_t>(token) * cols, cols,
                      token_count - token < T ? token_count - token : T};
  block_rows<D, T, kAligned>(
      tokens, false, left < kWarps * per_warp ? left : kWarps * per_warp, per_warp,
      [&](int i) { return product.w.row(first + i); },
      [&](int i, int t, float sum) {
        product.y[static_cast<size_t>(token + t) * rows + first + i] = sum;
      });
}

// More rows use x more often, fewer make more blocks: two rows a warp where that fills a device,
// four where it fills it twice, so that the last blocks do not run alone for long.
int rows_per_warp(const CudaProduct* products, int count, int rows_max) {
  int64_t rows = 0;
  for (int p = 0; p < count; ++p) rows += products[p].w.rows;
  for (int per_warp = rows_max; per_warp > 1; per_warp /= 2)
    if (rows >= int64_t{kBlocksWanted} * kWarps * per_warp * (per_warp / 2)) return per_warp;
  return 1;
}

// Products of one type.
template <DType D>
CudaError multiply(const CudaProduct* products, int count, const float* x, int token_count,
                   CudaStream stream) {
  bool aligned = true;
  for (int p = 0; p < count; ++p) aligned &= is_aligned<D>(products[p].w);
  return for_token_count(token_count, aligned, [&]<int T, bool kAligned>() {
    const int wanted = rows_per_warp(products, count, kRowsPerWarpMax<D>);
    const int per_warp = T > 1 && wanted == 1 ? 2 : wanted;
    ProductList list = {};
    list.count = count;
    int blocks = 0;
    for (int p = 0; p < count; ++p) {
      list.at[p] = {rows_of(products[p].w), products[p].y, blocks};
      blocks += ceil_div(products[p].w.rows, kWarps * per_warp);
    }
    const dim3 grid(static_cast<unsigned>(blocks) *
                    static_cast<unsigned>(ceil_div(token_count, T)));
    return launch(multiply_kernel<D, T, kAligned>, grid, kThreads, kTileBytes<D, T>, stream, list,
                  x, token_count, per_warp);
  });
}

}  // namespace

// Neighbours of one type go into one launch.
CudaError cuda_multiply(const CudaProduct* products, int product_count, const float* x,
                        int token_count, CudaStream stream) {
  if (token_count <= 0) return nullptr;
  for (int begin = 0, end = 0; begin < product_count; begin = end) {
    const DType dtype = products[begin].w.dtype;
    while (end < product_count && end - begin < kProductsMax && products[end].w.dtype == dtype &&
           products[end].w.rows > 0)
      ++end;
    if (end == begin) {  // a matrix without rows
      ++end;
      continue;
    }
    const CudaError error = for_type(dtype, [&]<DType D>() {
      return multiply<D>(products + begin, end - begin, x, token_count, stream);
    });
    if (error != nullptr) return error;
  }
  return nullptr;
}

}  // namespace TC_CUDA_NAMESPACE
