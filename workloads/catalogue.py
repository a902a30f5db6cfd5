"""Find a workload by name, read a recorded trace or a script by its path.

`llama3x15` is the experiment of the LUF talk: three llama.cpp processes side by side on one machine, 15
threads each, each with its own 70 GiB model, prompt "who are you?" (5 tokens), 20 tokens to predict.
LLaMA-2-70B in Q8_0 is 68.3 GiB, the quantisation whose file comes nearest. The three files differ, program
and libraries are the same files.
"""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from pathlib import Path

from inputs.text import clipped
from workloads.generated import generated, is_generated, lines
from workloads.litmus.shelf import is_litmus, litmus_test
from workloads.llama import generate
from workloads.parameters import Parameter, Room, parameters
from workloads.rows import Workload
from workloads.rules.whole import validate
from workloads.shape import LLAMA_7B_1_LAYER, LLAMA_70B, TINY_8_LAYERS, LlamaShape, scaled

PROMPT_TOKENS = 5  # "who are you?"
DATA = Path(__file__).parent / "data"

# name: (shape, processes, threads, one line)
GENERATED: dict[str, tuple[LlamaShape, int, int, str]] = {
    "llama3x15": (
        LLAMA_70B,
        3,
        15,
        "the talk: 3 x llama.cpp with 70 GiB models (LLaMA-2-70B, Q8_0), 15 threads each",
    ),
    "tiny8": (
        TINY_8_LAYERS,
        1,
        3,
        "the recorded 62 MiB model of 8 layers, Q4_K_M, 3 threads, generated from formulas",
    ),
    "7b1": (
        LLAMA_7B_1_LAYER,
        1,
        15,
        "the recorded layer of LLaMA-2-7B, Q4_K_M, 15 threads, generated from formulas",
    ),
}
SCALE_MAX = 2**20
LLAMA_PARAMETERS = {
    "scale": Parameter(1, SCALE_MAX, "divides memory and model size, whatever the machine is divided by")
}
RECORDED = {
    "t3": ("trace-t3-first.npz", "recorded: one token of tiny8, page visits of real llama.cpp in real order")
}


def names() -> dict[str, str]:
    """Return every workload that has a name, with a line that says what it is."""
    llamas = {
        name: f"{description} ({', '.join(LLAMA_PARAMETERS)})"
        for name, (*_, description) in GENERATED.items()
    }
    return llamas | lines() | {name: description for name, (_, description) in RECORDED.items()}


def is_recorded(name_or_path: str) -> bool:
    """Is it a recorded trace or somebody's own script, which cannot be scaled?"""
    return _base(name_or_path) not in GENERATED and not is_generated(name_or_path)


def _base(name: str) -> str:
    """Give a name without its parameters."""
    return name.partition(":")[0]


def workload(
    name_or_path: str,
    *,
    scale: float = 1.0,
    tokens: int = 2,
    threads: int | None = None,
    processes: int | None = None,
    seed: int = 1,
    room: Room | None = None,
) -> Workload:
    """Return the workload of that name, the recorded trace (.npz, with its .json beside it) or the script
    (.toml, FILE.py:NAME) there.

    `scale` divides memory and model size of a generated one (`tiny8:scale=1` has its own), `tokens` is the
    number of evaluations after the prompt.
    `room` is what some generators go by, the CPUs and memory of the machine (already scaled); their tokens
    are rounds. A recorded one and a script have their own size, threads and tokens; asking them for others is
    an error.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"'processes' must be at least 1 (got {processes})")
    if (base := _base(name_or_path)) in GENERATED:
        shape, usual_processes, usual_threads, description = GENERATED[base]
        given = parameters(base, name_or_path.removeprefix(base).removeprefix(":"), LLAMA_PARAMETERS)
        made = llama_workload(
            name_or_path,
            scaled(shape, given.get("scale", scale)),
            processes=processes or usual_processes,
            threads=usual_threads if threads is None else threads,
            tokens=tokens,
            seed=seed,
            description=description,
        )
        return replace(made, parameters=given)
    if is_generated(name_or_path):
        if processes is not None:
            raise ValueError(f"'processes' must be left to {name_or_path!r} (got {processes})")
        return generated(name_or_path, rounds=tokens, room=room or Room(), threads=threads, seed=seed)
    path = DATA / RECORDED[name_or_path][0] if name_or_path in RECORDED else Path(name_or_path)
    script = path.suffix == ".toml" or ".py:" in name_or_path or is_litmus(name_or_path)
    if name_or_path not in RECORDED and path.suffix != ".npz" and not script:
        known = ", ".join(names())
        raise ValueError(
            f"'workload' must be one of {known}, a .npz trace, a .toml script, "
            f"FILE.py:NAME or a .litmus test (got {clipped(name_or_path)})"
        )
    what = "script" if script else "recorded trace"
    if scale != 1:
        raise ValueError(f"'scale' must be 1 for a {what} (got {scale:g})")
    if threads is not None:
        raise ValueError(f"'threads' must be left to a {what} (got {threads})")
    if script:
        return _written(name_or_path, processes)
    from workloads.trace import replay  # reads files: only who asks for a trace needs it

    found = replay(path, processes=processes or 1)
    return (
        replace(found, name=name_or_path, description=RECORDED[name_or_path][1])
        if name_or_path in RECORDED
        else found
    )


def _written(name: str, processes: int | None) -> Workload:
    """Make the workload of a .toml script, of a litmus test, or of a name in a Python file: a Script, a
    Workload, or a function that returns one.
    """
    from workloads.script_toml import script_from_toml
    from workloads.user_workload import blamed_on, name_in_python

    if processes is not None:
        raise ValueError(f"'processes' must be left to a script (got {processes})")
    if is_litmus(name):
        return litmus_test(name).workload
    if name.endswith(".toml"):
        return script_from_toml(name).workload()
    file, _, what = name.rpartition(":")
    found = name_in_python(file, what)
    with blamed_on(file):
        return _made(name, found)


def _made(name: str, found: object) -> Workload:
    """Make the workload of what a user's file calls by that name."""
    from workloads.script import Script

    if callable(found) and not any(
        parameter.default is parameter.empty for parameter in signature(found).parameters.values()
    ):
        found = found()
    if isinstance(found, Script):
        found = found.workload()
    if not isinstance(found, Workload):
        raise ValueError(
            f"'{name}' must be a Script, a Workload, or a function without arguments that "
            f"returns one (got {found!r})"
        )
    validate(found)
    return found


def llama_workload(
    name: str,
    shape: LlamaShape,
    *,
    processes: int,
    threads: int,
    tokens: int,
    seed: int = 1,
    description: str = "",
    barriers_per_op: int = 1,
    warm_up: bool = False,
) -> Workload:
    """Return `processes` llama.cpp processes of any shape, each with a model file of its own."""
    first = generate(
        shape,
        threads=threads,
        tokens=tokens,
        prompt_tokens=PROMPT_TOKENS,
        seed=seed,
        barriers_per_op=barriers_per_op,
        warm_up=warm_up,
        name="llama1",
        model_file="model1",
    )
    # Same prompt, same random seed (main -s 1), same shape: the programs are equal, only the model's file is
    # another. They share their arrays; three processes take the memory of one.
    others = [
        replace(
            first, name=f"llama{k}", regions=(replace(first.regions[0], file=f"model{k}"), *first.regions[1:])
        )
        for k in range(2, processes + 1)
    ]
    return Workload(name, (first, *others), description, tokens)
