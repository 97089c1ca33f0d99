#include "offload/weight_store.h"

#include "formats/checked.h"

namespace sluice {

WeightLease& WeightLease::operator=(WeightLease&& other) noexcept {
  if (this != &other) {
    if (store_ != nullptr) store_->Release(group_);
    store_ = std::exchange(other.store_, nullptr);
    group_ = other.group_;
  }
  return *this;
}

WeightLease::~WeightLease() {
  if (store_ != nullptr) store_->Release(group_);
}

std::span<const WeightPart> WeightLease::Parts(TensorId tensor) const {
  return store_->PartsOf(tensor);
}

Result<const std::byte*> WeightLease::Take(const WeightPart& part) const {
  return store_->TakePiece(part.piece);
}

WeightStore::WeightStore(std::shared_ptr<const SluiceFile> file, DeviceId device)
    : file_(std::move(file)) {
  parts_.reserve(file_->pieces().size());
  for (const PieceEntry& piece : file_->pieces()) {
    const TileLayout& layout = file_->tensors()[piece.tensor].layout;
    WeightPart part;
    part.piece = static_cast<PieceId>(parts_.size());
    part.tensor = piece.tensor;
    part.device = device;
    part.row_begin = piece.row_begin;
    part.row_count = piece.row_count;
    part.num_tiles = CeilDiv(piece.row_count, layout.tile_rows);
    parts_.push_back(part);
  }
}

void WeightLease::Done(const WeightPart& part) const { store_->DonePiece(part.piece); }

WeightStore::TilePlace WeightStore::PlaceOfTile(TensorId tensor, uint64_t row) const {
  const TensorEntry& entry = file_->tensors()[tensor];
  // All pieces of a tensor but the last hold the same number of rows.
  const uint64_t rows_per_piece = file_->pieces()[entry.first_piece].row_count;
  return {static_cast<PieceId>(entry.first_piece + row / rows_per_piece),
          row % rows_per_piece / entry.layout.tile_rows * entry.layout.tile_bytes};
}

Result<const std::byte*> WeightStore::TakeTile(TensorId tensor, uint64_t row) {
  const TilePlace place = PlaceOfTile(tensor, row);
  Result<const std::byte*> tiles = TakePiece(place.piece);
  if (!tiles.ok()) return tiles;
  return *tiles + place.offset_bytes;
}

std::span<const WeightPart> WeightStore::PartsOf(TensorId tensor) const {
  const TensorEntry& entry = file_->tensors()[tensor];
  return std::span(parts_).subspan(entry.first_piece, entry.piece_count);
}

}  // namespace sluice
