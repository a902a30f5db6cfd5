"""Files must be laid out as the converter does it, and scaled such that what presses on memory is exactly
1/scale.
"""

from __future__ import annotations

import pytest

from workloads.matmul import share_out
from workloads.shape import LLAMA_7B_1_LAYER, LLAMA_70B, TINY_8_LAYERS, LlamaShape, scaled


@pytest.mark.parametrize(
    ("shape", "file_pages", "kv_pages", "tensor_bytes"),
    [(TINY_8_LAYERS, 15839, 4097, 63107072), (LLAMA_7B_1_LAYER, 33120, 2049, 132194304)],
)
def test_layout_of_recorded_files(shape: LlamaShape, file_pages: int, kv_pages: int, tensor_bytes: int):
    """Sizes are those of the recorded files: to the byte between first and last tensor, within a page for the
    metadata.
    """
    tensors = shape.tensors()
    assert abs(shape.file_pages() - file_pages) <= 1
    assert shape.kv_pages() == kv_pages
    assert tensors["output"].first_byte - tensors["token_embd"].first_byte == tensor_bytes
    assert [layer for layer in range(8) if TINY_8_LAYERS.type_of("attn_v", layer) == "Q6_K"] == [0, 3, 6, 7]


@pytest.mark.parametrize("scale", [1, 3.7, 64, 100, 256, 1024])
def test_scaled_model_is_a_fraction(scale: float):
    """File and KV cache of the talk's model shrink by the scale, within 1 % and 3 %; the order of ops and the
    types stay.
    """
    small = scaled(LLAMA_70B, scale)
    assert small.file_bytes() * scale == pytest.approx(LLAMA_70B.file_bytes(), rel=0.01)
    assert small.kv_pages() * scale == pytest.approx(LLAMA_70B.kv_pages(), rel=0.03)
    assert (small.quantisation, small.n_head, small.n_ctx) == ("Q8_0", 64, 512)
    assert small.layers >= 2


def test_talks_model_is_about_70_gib():
    """LLaMA-2-70B in Q8_0 is the 70 GiB model: 68.3 GiB."""
    assert LLAMA_70B.file_bytes() / 2**30 == pytest.approx(68.3, abs=0.1)


def test_barriers_per_page_stay_bounded():
    """Depth is reduced first: to 1/40 pages per parallel op stay 9,300, and at 1/1024 they are still
    hundreds.
    """
    assert scaled(LLAMA_70B, 40).file_pages() / (24 * 2) == pytest.approx(
        LLAMA_70B.file_pages() / (24 * 80), rel=0.01
    )
    assert scaled(LLAMA_70B, 1024).file_pages() / (24 * 2) > 300


@pytest.mark.parametrize(
    ("scale", "message"),
    [(0.5, "'scale' must be at least 1"), (1e8, "'scale' must leave at least two layers")],
)
def test_scale_out_of_range(scale: float, message: str):
    """A scale that leaves no model is refused by name."""
    with pytest.raises(ValueError, match=message):
        scaled(LLAMA_70B, scale)


@pytest.mark.parametrize(("field", "value"), [("layers", 0), ("vocab", -1), ("quantisation", "Q5_X")])
def test_impossible_shape(field: str, value: object):
    """Errors of a shape name the field and the value."""
    sizes = {"layers": 1, "n_embd": 64, "n_ff": 64, "kv_width": 64, "vocab": 64, "quantisation": "F16"} | {
        field: value
    }
    with pytest.raises(ValueError, match=rf"'{field}' must be .*got .*{value}"):
        LlamaShape("bad", **sizes)


def test_rows_are_shared_out_as_ggml_does():
    """K-quants: chunks of 64 if there are four per thread, else T parts; 16 rows for a batch; Q8_0 always T
    parts.
    """
    small, large = TINY_8_LAYERS.tensors()["blk.1.attn_q"], LLAMA_7B_1_LAYER.tensors()["blk.0.attn_q"]
    assert share_out(small, 3, 1).dynamic
    assert share_out(small, 3, 1).ranges[:2] == [(0, 64), (64, 128)]
    assert not share_out(small, 15, 1).dynamic  # 16 chunks for 15 threads: static, as recorded
    assert share_out(large, 15, 1).dynamic
    assert share_out(small, 3, 5).ranges[0] == (0, 16)
    part = share_out(LLAMA_70B.tensors()["blk.0.attn_q"], 15, 1)
    assert not part.dynamic
    assert [end - first for first, end in part.ranges] == [547] * 14 + [534]
