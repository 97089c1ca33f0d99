#!/usr/bin/env python3
"""Reads a .sluice file by FORMAT.md alone: checks every checksum, lists tensors, dequantizes one.

Usage: sluice_reader.py FILE [TENSOR]      without TENSOR: the catalogue; with: its rows as numbers
"""
import json
import struct
import sys

MASK = (1 << 64) - 1
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
    "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d"
    "8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc"
    "8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
KINDS = {0: "f32", 1: "f16", 2: "bf16", 3: "int8", 4: "int4", 5: "int5", 6: "q4_k", 7: "q5_k", 8: "q6_k"}
BITS = {"f32": 32, "f16": 16, "bf16": 16, "int8": 8, "int4": 4, "int5": 5, "q4_k": 4, "q5_k": 5, "q6_k": 6}
GGUF_TYPES = 1  # the required feature


def xxh3_64(data):
    """XXH3-64, seed 0, for more than 240 bytes: all that the format hashes."""
    def u64(buffer, at):
        return struct.unpack_from("<Q", buffer, at)[0]

    def folded(a, b):
        product = a * b
        return (product ^ (product >> 64)) & MASK

    def accumulate(acc, buffer, at, secret_at):
        values = struct.unpack_from("<8Q", buffer, at)
        keys = struct.unpack_from("<8Q", SECRET, secret_at)
        for i in range(8):
            key = values[i] ^ keys[i]
            acc[i ^ 1] = (acc[i ^ 1] + values[i]) & MASK
            acc[i] = (acc[i] + (key & 0xFFFFFFFF) * (key >> 32)) & MASK

    assert len(data) > 240 and len(SECRET) == 192
    acc = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]
    stripes = (len(SECRET) - 64) // 8
    block = 64 * stripes
    whole = (len(data) - 1) // block
    for number in range(whole):
        for stripe in range(stripes):
            accumulate(acc, data, number * block + 64 * stripe, 8 * stripe)
        for i, key in enumerate(struct.unpack_from("<8Q", SECRET, len(SECRET) - 64)):
            acc[i] = ((acc[i] ^ (acc[i] >> 47) ^ key) * P32[0]) & MASK
    for stripe in range((len(data) - 1 - block * whole) // 64):
        accumulate(acc, data, whole * block + 64 * stripe, 8 * stripe)
    accumulate(acc, data, len(data) - 64, len(SECRET) - 64 - 7)
    result = (len(data) * P64[0]) & MASK
    for i in range(4):
        result += folded(acc[2 * i] ^ u64(SECRET, 11 + 16 * i), acc[2 * i + 1] ^ u64(SECRET, 19 + 16 * i))
    result &= MASK
    result ^= result >> 37
    result = (result * 0x165667919E3779F9) & MASK
    return result ^ (result >> 32)


def to_f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class SluiceFile:
    def __init__(self, path):
        self.data = open(path, "rb").read()
        header = self.data[:512]
        assert header[:8] == b"\x89SLUICE\n", "not a .sluice file"
        version, size, required, _, file_size, self.metadata_size, metadata_hash, align, chunk, count, _ = \
            struct.unpack_from("<IIQQQQQIIII", header, 8)
        assert (version, size, required & ~GGUF_TYPES, align, chunk) == (1, 512, 0, 4096, 1 << 20), "unknown version or feature"
        assert struct.unpack_from("<Q", header, 504)[0] == xxh3_64(header[:504]), "checksum of the header"
        assert file_size == len(self.data), "size of the file"
        assert metadata_hash == xxh3_64(self.data[512:self.metadata_size]), "checksum of the metadata"
        sections = [struct.unpack_from("<IIQQ", header, 72 + 24 * i) for i in range(count)]
        self.sections = {kind: self.data[at:at + length] for kind, _, at, length in sections}
        self.config = json.loads(self.sections[1])
        names = self.sections[4]
        self.pieces = list(struct.iter_unpack("<6Q", self.sections[7]))
        self.groups = list(struct.iter_unpack("<4I4Q", self.sections[6]))
        self.hashes = [h for h, in struct.iter_unpack("<Q", self.sections[8])]
        self.tensors = {}
        for record in struct.iter_unpack("<QIBBHHHIQQQQQ", self.sections[5]):
            name = names[record[0]:record[0] + record[1]].decode()
            keys = ("kind", "offset", "group_size", "layout", "tile_rows", "group", "rows", "cols", "first", "count")
            self.tensors[name] = dict(zip(keys, record[2:12]))

    def verify(self):
        for number, (offset, size, _, _, _, first) in enumerate(self.pieces):
            for i, at in enumerate(range(offset, offset + size, 1 << 20)):
                part = self.data[at:min(at + (1 << 20), offset + size)]
                assert xxh3_64(part) == self.hashes[first + i], f"checksum at offset {at} (piece {number})"

    def row(self, name, row):
        """One row of a tensor, float32 values."""
        t = self.tensors[name]
        assert t["layout"] == 1
        r_tile, kind, cols = t["tile_rows"], KINDS[t["kind"]], t["cols"]
        if kind in ("f32", "f16", "bf16"):
            padded = cols + cols % 2 * (kind != "f32")
            base, r = self.locate(t, row, padded * BITS[kind] // 8 * r_tile)
            return [self.number(kind, base, r, r_tile, k) for k in range(cols)]
        if kind in ("q4_k", "q5_k", "q6_k"):
            header = (20 if kind == "q6_k" else 16) * r_tile
            block = header + 32 * BITS[kind] * r_tile
            base, r = self.locate(t, row, cols // 256 * block)
            return [value for at in range(base, base + cols // 256 * block, block)
                    for value in self.super_block(kind, at, at + header, r, r_tile)]
        return self.grouped(t, kind, row)

    def locate(self, t, row, tile):
        """Where the tile of a row begins, and the row in it."""
        piece = next(p for p in self.pieces[t["first"]:t["first"] + t["count"]] if p[3] <= row < p[3] + p[4])
        return piece[0] + (row - piece[3]) // t["tile_rows"] * tile, (row - piece[3]) % t["tile_rows"]

    def number(self, kind, base, r, r_tile, k):
        at = base + ((k * r_tile + r) * 4 if kind == "f32" else (k // 2 * r_tile + r) * 4 + k % 2 * 2)
        if kind == "bf16":
            return struct.unpack("<f", b"\0\0" + self.data[at:at + 2])[0]
        return struct.unpack_from("<f" if kind == "f32" else "<e", self.data, at)[0]

    def f16(self, at):
        return struct.unpack_from("<e", self.data, at)[0]

    def integer(self, bits, integers, r, r_tile, k):
        """The integer of channel k of a block whose integers begin at `integers`."""
        slot = 4 * r + k % 4
        if bits == 8:
            return self.data[integers + k // 4 * 4 * r_tile + slot]
        high = bits - 4
        unit = 32 // high if high else 8
        plane = integers + k // unit * ((4 if high else 0) + unit // 2) * r_tile
        nibbles = plane + (4 * r_tile if high else 0)
        q = self.data[nibbles + k % unit // 8 * 4 * r_tile + slot] >> (4 if k % 8 >= 4 else 0) & 15
        if high:
            q |= (self.data[plane + slot] >> (k % unit // 4 * high) & (1 << high) - 1) << 4
        return q

    def super_block(self, kind, header, integers, r, r_tile):
        """256 values of one row."""
        d = self.f16(header + 2 * r)
        values = []
        for k in range(256):
            q = self.integer(BITS[kind], integers, r, r_tile, k)
            if kind == "q6_k":
                scale, = struct.unpack_from("<b", self.data, header + (2 + k // 16) * r_tile + r)
                values.append(to_f32(d * scale * (q - 32)))
                continue
            group = k // 32
            low = self.data[header + (4 + group) * r_tile + r]
            high = self.data[header + (12 + group // 2) * r_tile + r] >> group % 2 * 4
            minimum = self.f16(header + 2 * (r_tile + r)) * (low >> 4 | (high >> 2 & 3) << 4)
            values.append(to_f32(d * (low & 15 | (high & 3) << 4) * q - minimum))
        return values

    def grouped(self, t, kind, row):
        """A row of int8, int4 or int5."""
        r_tile, group, cols, bits = t["tile_rows"], t["group_size"], t["cols"], BITS[kind]
        padded = -(-cols // 32) * 32
        extra = (0, 1, 2)[t["offset"]]

        def header(groups):
            return -(-groups * r_tile * (2 + extra) // (4 * r_tile)) * 4 * r_tile

        def groups_of(channels):
            return -(-channels // group) if group else 0

        lead = 0 if group else header(1)
        full = header(groups_of(128)) + 128 * bits // 8 * r_tile
        tile = lead + sum(header(groups_of(n)) + n * bits // 8 * r_tile
                          for n in (min(128, padded - k) for k in range(0, padded, 128)))
        base, r = self.locate(t, row, tile)
        values = []
        for k in range(cols):
            block, inner = base + lead + k // 128 * full, k % 128
            groups = groups_of(min(128, padded - k // 128 * 128))
            head, g = (block, inner // group) if group else (base, 0)
            scale = self.f16(head + (g * r_tile + r) * 2)
            offset_at = head + max(groups, 1) * r_tile * 2 + (g * r_tile + r) * extra
            q = self.integer(bits, block + header(groups), r, r_tile, inner)
            if extra == 2:
                values.append(to_f32(to_f32(scale * q) + self.f16(offset_at)))
            else:
                zero = self.data[offset_at] if extra else 1 << bits - 1
                values.append(to_f32(scale * (q - zero)))
        return values


def main():
    file = SluiceFile(sys.argv[1])
    file.verify()
    if len(sys.argv) > 2:
        for row in range(file.tensors[sys.argv[2]]["rows"]):
            print(*file.row(sys.argv[2], row))
        return
    print(json.dumps(file.config, indent=1))
    for name, t in file.tensors.items():
        offset = ("", ":zero", ":min")[t["offset"]]
        print(f"{name}  {KINDS[t['kind']]}{offset} g{t['group_size']}  {t['rows']} x {t['cols']}")


if __name__ == "__main__":
    main()
