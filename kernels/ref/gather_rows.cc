#include "kernels/ref/ref.h"

namespace sluice {

void GatherRowsRef(const GatherRowsArgs& args, CUstream_st*) {
  for (int64_t i = 0; i < args.count; ++i) {
    DequantizeRow(*args.layout, args.row_tiles[i], args.rows_in_tile[i],
                  args.out + i * args.out_stride);
  }
}

}  // namespace sluice
