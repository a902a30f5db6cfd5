"""Lay out a model file of the LLaMA architecture, for any width, depth and quantisation, and scale it down.

A file is: metadata, token_embd, then per layer attn_norm, q, k, v, output, ffn_norm, gate, up, down, then
output_norm and output. This is the order in which a token reads it. Tensors are 32-byte aligned, not page
aligned, so that neighbours share a page.

Scaling (`scaled`) divides *bulk* memory, which only streams through the TLB, by the scale: weights, KV cache,
the scheduler's hash table. Regions that stay hot in the TLB keep their size: text, libraries, constants,
heap, stacks. TLB geometry is not scaled either, so hits on hot pages stay hits. Consequences: hot pages are a
larger part of a scaled working set than of the real one (1/256 of LLaMA-2-70B: 0.6 % of a token's pages,
unscaled some 0.004 %); read-only pages outnumber written ones 256:1 there, by the same formulas about 800:1
unscaled; and the work that only main does weighs more (building the graph grows with the layers, sampling is
fixed).

How the scale is split between depth and width: depth goes first, down to two layers, the rest comes out of
the width. A layer costs about 24 parallel ops with barriers whatever its size. The full model reads 9,300
pages from one to the next; halving the layers keeps pages per barrier as they were, thinning them does not.
Two, since layers that follow each other are part of the pattern. The KV width scales by itself, such that the
cache is 1/scale at the full context length.

Leaves out: other tensor orders (some converters write one), mixture-of-experts models, and the special cases
of the quantiser for 70B models in Q4_K_M (attn_v in Q5_K).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from workloads.rows import PAGE_BYTES

TENSOR_ALIGNMENT = 32
KV_OFFSET = 32  # the KV buffer starts so many bytes into its first page (aligned malloc of an mmap'd block)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tensor type: `block` values in `block_bytes` bytes, read with `accesses` vector loads; activations
    are quantised to match.
    """

    block: int
    block_bytes: int
    accesses: int
    activation_block: int
    activation_bytes: int
    dynamic: bool  # rows are shared out in chunks as threads ask for them, not in equal parts

    def row_bytes(self, values: int) -> int:
        """Return the bytes of a row of `values` weights."""
        return math.ceil(values / self.block) * self.block_bytes

    def activation_row_bytes(self, values: int) -> int:
        """Return the bytes of one quantised activation vector."""
        return math.ceil(values / self.activation_block) * self.activation_bytes

    @property
    def accesses_per_byte(self) -> float:
        """Return the vector loads per byte of weights."""
        return self.accesses / self.block_bytes


# Accesses per block as measured for Q4_K, Q6_K and Q4_0; Q8_0 (scale + one 32-byte vector) and F16 are read
# from the code.
ENCODINGS = {
    "Q4_K": Encoding(256, 144, 12, 256, 292, dynamic=True),
    "Q6_K": Encoding(256, 210, 12, 256, 292, dynamic=True),
    "Q4_0": Encoding(32, 18, 2, 32, 34, dynamic=False),
    "Q8_0": Encoding(32, 34, 2, 32, 34, dynamic=False),
    "F16": Encoding(16, 32, 1, 16, 32, dynamic=False),
    "F32": Encoding(8, 32, 1, 8, 32, dynamic=False),
}
QUANTISATIONS = ("Q4_K_M", "Q4_0", "Q8_0", "F16")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One matrix in the file: `rows` rows of `columns` values from `first_byte` on."""

    name: str
    type: str
    rows: int
    columns: int
    first_byte: int

    @property
    def encoding(self) -> Encoding:
        """Return how its values are stored."""
        return ENCODINGS[self.type]

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one row."""
        return self.encoding.row_bytes(self.columns)

    @property
    def bytes(self) -> int:
        """Return its size."""
        return self.rows * self.row_bytes

    def pages(self, first_row: int, end_row: int) -> tuple[int, int]:
        """Return (first page, pages) of rows first_row..end_row-1, in pages of the file."""
        first = (self.first_byte + first_row * self.row_bytes) // PAGE_BYTES
        last = (self.first_byte + end_row * self.row_bytes - 1) // PAGE_BYTES
        return first, last - first + 1


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The sizes that decide which pages a model of the LLaMA architecture touches."""

    name: str
    layers: int
    n_embd: int
    n_ff: int
    kv_width: int
    vocab: int
    quantisation: str
    n_head: int = 32
    n_head_kv: int = 32
    n_ctx: int = 512
    hash_table_pages: int = 1027  # the 4 MiB buffer that main rewrites after every evaluation

    def __post_init__(self) -> None:
        for field in (
            "layers",
            "n_embd",
            "n_ff",
            "kv_width",
            "vocab",
            "n_head",
            "n_head_kv",
            "n_ctx",
            "hash_table_pages",
        ):
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"{field!r} must be at least 1 (got {value})")
        if self.quantisation not in QUANTISATIONS:
            raise ValueError(
                f"'quantisation' must be one of {', '.join(QUANTISATIONS)} (got {self.quantisation!r})"
            )

    def type_of(self, role: str, layer: int = 0) -> str:
        """Return the type of a tensor; Q4_K_M stores the more sensitive ones in Q6_K."""
        if role.endswith("norm"):
            return "F32"
        if self.quantisation != "Q4_K_M":
            return self.quantisation
        eighth = self.layers // 8
        # llama.cpp: use_more_bits()
        more = layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
        return "Q6_K" if role == "output" or (role in ("attn_v", "ffn_down") and more) else "Q4_K"

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, in file order."""
        # Vocabulary and tensor names: fitted to two recorded files (48,768 and 23,008 bytes), right within 3
        # %.
        offset = 400 + 22 * self.vocab + 60 * (9 * self.layers + 3)
        found: dict[str, Tensor] = {}
        for name, role, layer, rows, columns in self._plan():
            offset = -(-offset // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
            found[name] = Tensor(name, self.type_of(role, layer), rows, columns, offset)
            offset += found[name].bytes
        return found

    def _plan(self) -> list[tuple[str, str, int, int, int]]:
        d, kv, ff = self.n_embd, self.kv_width, self.n_ff
        plan = [("token_embd", "token_embd", 0, self.vocab, d)]
        for layer in range(self.layers):
            parts = [
                ("attn_norm", 1, d),
                ("attn_q", d, d),
                ("attn_k", kv, d),
                ("attn_v", kv, d),
                ("attn_output", d, d),
            ]
            parts += [("ffn_norm", 1, d), ("ffn_gate", ff, d), ("ffn_up", ff, d), ("ffn_down", d, ff)]
            plan += [(f"blk.{layer}.{role}", role, layer, rows, columns) for role, rows, columns in parts]
        return [*plan, ("output_norm", "output_norm", 0, 1, d), ("output", "output", 0, self.vocab, d)]

    def file_bytes(self) -> int:
        """Return the size of the file."""
        last = self.tensors()["output"]
        return last.first_byte + last.bytes

    def file_pages(self) -> int:
        """Return the size of the file in pages."""
        return -(-self.file_bytes() // PAGE_BYTES)

    def kv_pages(self) -> int:
        """Return the pages of the KV cache (f16)."""
        return -(-(4 * self.layers * self.n_ctx * self.kv_width + KV_OFFSET) // PAGE_BYTES)


def scaled(shape: LlamaShape, scale: float, layers: int | None = None) -> LlamaShape:
    """Return a shape whose file and KV cache are 1/scale of those of `shape`; `layers` overrides the depth
    (see above).

    Beyond about 1/2000 of LLaMA-2-70B the cache stops shrinking, as every KV head keeps at least one value
    per token.
    """
    if scale < 1:
        raise ValueError(f"'scale' must be at least 1 (got {scale})")
    if scale == 1 and layers is None:
        return shape
    depth = layers if layers is not None else min(shape.layers, max(2, round(shape.layers / scale)))
    if not 1 <= depth <= shape.layers:
        raise ValueError(f"'layers' must be between 1 and {shape.layers} (got {depth})")
    thin = math.sqrt(shape.layers / (scale * depth))
    block = 256 if shape.quantisation == "Q4_K_M" else 32  # rows are whole blocks
    n_embd = max(block, round(shape.n_embd * thin / block) * block)
    heads = shape.n_head_kv
    kv_width = max(heads, round(shape.layers * shape.kv_width / (scale * depth) / heads) * heads)
    vocab = max(64, round(shape.vocab * shape.n_embd / (scale * n_embd)))
    hash_table = max(1, round(shape.hash_table_pages / scale))
    small = replace(shape, layers=depth, n_embd=n_embd, n_ff=block, kv_width=kv_width, vocab=vocab)
    small = replace(small, hash_table_pages=hash_table, name=f"{shape.name}/{scale:g}")
    # The feed-forward width takes up what rounding the others has left: the file comes out right, which the
    # experiment needs most.
    wanted = shape.file_bytes() / scale
    per_block = replace(small, n_ff=2 * block).file_bytes() - small.file_bytes()
    blocks = 1 + round((wanted - small.file_bytes()) / per_block)
    if blocks < 1 or abs(replace(small, n_ff=blocks * block).file_bytes() / wanted - 1) > 0.05:
        raise ValueError(
            f"'scale' must leave at least two layers of {block} x {block} weights of "
            f"{shape.name} (got {scale:g})"
        )
    return replace(small, n_ff=blocks * block)


# Recorded shapes, and the model of the talk. LLaMA-2-70B in Q8_0 is 68.3 GiB; that's the quantisation whose
# file is "70 GB".
TINY_8_LAYERS = LlamaShape("tiny8", 8, 1024, 2816, 1024, 2048, "Q4_K_M", n_head=16, n_head_kv=16)
LLAMA_7B_1_LAYER = LlamaShape("7b1", 1, 4096, 11008, 4096, 1024, "Q4_K_M")
LLAMA_70B = LlamaShape("llama-2-70b", 80, 8192, 28672, 1024, 32000, "Q8_0", n_head=64, n_head_kv=8)
