#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-only
"""Reads one telemetry chunk (docs/reference/chunk-format.md) and prints its points as JSON lines.

    read-chunk.py [FILE]     bytes, or hex as PostgreSQL prints bytea; without FILE from stdin

Compressed chunks need Python 3.14, the zstandard package or the zstd program.
"""
import json, re, struct, subprocess, sys, zlib

KINDS = ["double", "integer", "boolean", "string", "json"]


def unzstd(data, size):
    try:
        from compression.zstd import decompress
        return decompress(data)
    except ImportError:
        pass
    try:
        import zstandard
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except ImportError:
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("chunk is damaged: it ends within a column")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def integers(self, n):
        form = self.byte()
        order, width, wide = form >> 4 & 7, form & 15, form >= 128
        base, unit, step = (0, 1, 0) if wide else (unfold(self.varint()), self.varint(), unfold(self.varint()))
        planes = self.take(n * width)
        values, total = [], 0
        for i in range(n):
            residual = unfold(sum(planes[plane * n + i] << 8 * plane for plane in range(width)))
            if order == 0:
                value = base + unit * (step * i + residual)
            else:
                step += residual if order == 2 else 0
                total += step + (residual if order == 1 else 0)
                value = base + unit * total
            values.append((value + 2**63) % 2**64 - 2**63)
        return values

    def doubles(self, n):
        form = self.byte()
        if form == 16:
            return [as_double(bits) for bits in self.integers(n)]
        count = self.varint()
        positions = self.integers(count) if count else []
        exceptions = self.integers(count) if count else []
        values = [value / 10**form for value in self.integers(n)]
        for position, bits in zip(positions, exceptions):
            values[position] = as_double(bits)
        return values

    def booleans(self, n):
        bits = self.take((n + 7) // 8)
        return [bool(bits[i // 8] >> i % 8 & 1) for i in range(n)]

    def texts(self, n):
        texts = [self.take(length).decode() for length in self.integers(self.varint())]
        return [texts[number] for number in self.integers(n)]

    def column(self, kind, n):
        return [self.doubles, self.integers, self.booleans, self.texts, self.texts][kind](n)


def unfold(value):
    return -(value + 1) // 2 if value & 1 else value // 2


def as_double(bits):
    return struct.unpack("<d", struct.pack("<q", bits))[0]


def read_chunk(data):
    if len(data) < 5 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("chunk is damaged: wrong checksum")
    head = Reader(data[:-4])
    version, method, n, size = head.byte(), head.byte(), head.varint(), head.varint()
    if version != 1 or method > 1:
        raise ValueError("unknown version or method of the chunk")
    content = head.data[head.at :]
    body = Reader(unzstd(content, size) if method == 1 else content)
    times, kind = body.integers(n), body.byte()
    kinds = body.integers(n) if kind == 5 else [kind] * n
    columns = {kind: iter(body.column(kind, kinds.count(kind))) for kind in sorted(set(kinds))}
    return [(ts, KINDS[kind], next(columns[kind])) for ts, kind in zip(times, kinds)]


if __name__ == "__main__":
    given = open(sys.argv[1], "rb").read() if len(sys.argv) > 1 else sys.stdin.buffer.read()
    if re.fullmatch(rb"\s*(\\x)?[0-9a-fA-F\s]+", given):
        given = bytes.fromhex(given.decode().strip().removeprefix("\\x"))
    for ts, kind, value in read_chunk(given):
        print(json.dumps({"ts": ts, "kind": kind, "value": value}))
