"""Workloads must be found by name, be what their line says, and be the same from the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from workloads import is_recorded, names, validate, workload
from workloads import rows as p
from workloads.shape import LLAMA_70B


def test_names_have_a_line_each():
    """names() lists the talk's workload first, each with one line."""
    assert next(iter(names())) == "llama3x15"
    assert {"t3", "tiny8", "7b1"} <= set(names())
    assert all(line and "\n" not in line for line in names().values())


def test_llama3x15_is_the_talk():
    """Three processes of 15 threads, three model files of a 256th of 68 GiB, one program and one set of
    libraries.
    """
    talk = workload("llama3x15", scale=256, tokens=2)
    validate(talk)
    assert [len(process.threads) for process in talk.processes] == [15, 15, 15]
    assert [process.regions[0].file for process in talk.processes] == ["model1", "model2", "model3"]
    texts = [region for process in talk.processes for region in process.regions if region.name == "main_text"]
    assert (len(texts), len({text.file for text in texts})) == (3, 1)
    pages = LLAMA_70B.file_bytes() / 4096 / 256
    assert [process.regions[0].pages for process in talk.processes] == pytest.approx([pages] * 3, rel=0.01)
    # Start-up, prompt, two tokens; workers are created anew three times, ten stacks unmapped each time.
    main = talk.processes[0].threads[0]
    assert main["page"][main["op"] == p.MARK].tolist() == [0, 1, 2, 3]
    assert (main["op"] == p.CLONE).sum() == 3 * 14
    assert (main["op"] == p.MUNMAP).sum() == 3 * 10 + 1  # and the file's metadata
    executed = 0
    for process in talk.processes:
        executed += sum(len(rows) for rows in process.threads)
        executed += sum(
            int((section.chunks[:, 1] - section.chunks[:, 0]).sum()) for section in process.sections
        )
    assert executed < 500_000


def test_more_tokens_share_their_chunks():
    """Memory hardly grows with tokens: sections of later tokens use the chunks of the first."""
    two, ten = (workload("llama3x15", scale=1024, tokens=tokens) for tokens in (2, 10))
    assert len(two.processes[0].chunk_rows) == len(ten.processes[0].chunk_rows)
    assert two.working_set_pages() == pytest.approx(ten.working_set_pages(), rel=0.01)


def test_a_llama_may_have_a_scale_of_its_own():
    """`tiny8:scale=1` is the whole model on a machine of any scale; another parameter, or scale, is refused
    in a sentence.
    """
    own, whole, small = (
        workload(name, scale=scale) for name, scale in (("tiny8:scale=1", 16), ("tiny8", 1), ("tiny8", 16))
    )
    assert not is_recorded("tiny8:scale=1")
    assert (own.name, own.working_set_pages()) == ("tiny8:scale=1", whole.working_set_pages())
    assert small.working_set_pages() < whole.working_set_pages()
    with pytest.raises(
        ValueError, match=r"^workload 'tiny8': a parameter must be one of scale=N \(got 'size=1'\)$"
    ):
        workload("tiny8:size=1")
    with pytest.raises(
        ValueError, match=r"^workload 'tiny8': 'scale' must be a whole number from 1 to 1048576 \(got '0'\)$"
    ):
        workload("tiny8:scale=0")


def test_seed_decides_everything():
    """Same seed, same rows; another seed, other rows of the same number of pages."""
    one, again, other = (
        workload("llama3x15", scale=1024, tokens=1, seed=seed).processes[0] for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one.threads, again.threads))
    assert not np.array_equal(one.threads[0], other.threads[0])
    assert one.regions == other.regions


def test_barriers_per_op_change_no_visit():
    """Three barriers per op instead of one: the same visits, thread by thread, in the same order."""
    from workloads.llama import generate
    from workloads.shape import TINY_8_LAYERS

    one, three = (generate(TINY_8_LAYERS, threads=3, tokens=1, barriers_per_op=n) for n in (1, 3))
    for a, b in zip(one.threads, three.threads):
        assert np.array_equal(a[a["op"] != p.BARRIER], b[b["op"] != p.BARRIER])
        assert (b["op"] == p.BARRIER).sum() == 3 * (a["op"] == p.BARRIER).sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "llama9"}, "'workload' must be one of llama3x15"),
        ({"name_or_path": "t3", "scale": 4}, "'scale' must be 1 for a recorded trace"),
        ({"name_or_path": "t3", "threads": 4}, "'threads' must be left to a recorded trace"),
        ({"name_or_path": "tiny8", "threads": 0}, "'threads' must be at least 1"),
        (
            {"name_or_path": "tiny8", "tokens": 600},
            r"^'tokens' must be at most 507, .* the context of 512 \(got 600\)$",
        ),
        ({"name_or_path": "tiny8", "tokens": 508}, r"at most 507, .* \(got 508\)$"),
        ({"name_or_path": "tiny8", "processes": 0}, "'processes' must be at least 1"),
    ],
)
def test_wrong_requests(arguments: dict, message: str):
    """A request that can't be met names the parameter, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        workload(**arguments)
