"""Generate the page visits of llama.cpp/main for any model of the LLaMA architecture, from formulas that were
measured.

The formulas come from page-level recordings of llama.cpp (June 2024) on two shapes; tests/workloads compares
what comes out with them: distinct pages by region, visits per page, who reads which weights, reuse distances.

One evaluation: main builds the graph and creates its workers anew; all go through the ops of every layer,
each thread its share, with a spin barrier per op; the workers end (their stacks beyond glibc's 40 MiB cache
are unmapped), main copies the logits, resets the scheduler's hash table and samples the next token.

llama.cpp meets at three barriers per op (node published, INIT done, COMPUTE done). `barriers_per_op` = 1
keeps the one between INIT (main quantises the activations) and COMPUTE (all multiply). It changes no visit,
only how often threads hand over; main may run one INIT ahead of a slow worker.

Leaves out: flash attention, GPU layers, newer llama.cpp (keeps its threads, has no INIT), Q4_0 repacking, the
kernel's own accesses.
"""

from __future__ import annotations

from workloads import address_space as at
from workloads import serial
from workloads.address_space import layout
from workloads.attention import attention, store_kv
from workloads.matmul import equal_parts
from workloads.rows import (
    CLONE,
    DONTNEED,
    DRAW,
    EXIT,
    IFETCH,
    JOIN,
    LOAD,
    MARK,
    MMAP,
    MUNMAP,
    PAGE_BYTES,
    STORE,
    Process,
    Section,
    control,
    visit,
)
from workloads.shape import LlamaShape, Tensor
from workloads.writer import Writer


def generate(
    shape: LlamaShape,
    *,
    threads: int,
    tokens: int,
    prompt_tokens: int = 5,
    seed: int = 1,
    barriers_per_op: int = 1,
    warm_up: bool = False,
    name: str = "llama",
    model_file: str = "model",
) -> Process:
    """Return one process: start-up, the prompt, and `tokens` evaluations of one token each.

    `warm_up` adds what llama.cpp does by default before the prompt: an evaluation of two tokens, and zeroing
    the KV cache. It's a whole sweep over the model, too much of a short run, so it's off here; it belongs to
    evaluation 0.
    """
    for field, value, least in (
        ("threads", threads, 1),
        ("tokens", tokens, 0),
        ("prompt_tokens", prompt_tokens, 1),
    ):
        if value < least:
            raise ValueError(f"{field!r} must be at least {least} (got {value})")
    if prompt_tokens + tokens > shape.n_ctx:
        rule = (
            f"at most {shape.n_ctx - prompt_tokens}, which with the prompt's {prompt_tokens} fill "
            f"the context of {shape.n_ctx}"
        )
        raise ValueError(f"'tokens' must be {rule} (got {tokens})")
    if barriers_per_op not in (1, 2, 3):
        raise ValueError(f"'barriers_per_op' must be 1, 2 or 3 (got {barriers_per_op})")
    writer = _Run(
        layout(shape, threads, max(prompt_tokens, 2 if warm_up else 1), seed), seed, barriers_per_op
    )
    writer.start_up(warm_up)
    writer.evaluation(1, 0, prompt_tokens)
    for token in range(tokens):
        writer.evaluation(2 + token, prompt_tokens + token, 1)
    return Process(
        name,
        writer.place.regions(model_file),
        writer.programs(),
        writer.chunks.array(),
        tuple(writer.sections),
    )


class _Run(Writer):
    """Writes a whole run of llama.cpp."""

    # -- a run -----------------------------------------------------------------------------------------------

    def start_up(self, warm_up: bool) -> None:
        self.put(0, control(MARK, 0))
        self.put_array(serial.start_up(self.place, self.rng))
        metadata = self.tensors["token_embd"].first_byte // PAGE_BYTES
        if metadata:
            self.put(0, control(MUNMAP, region=at.WEIGHTS, page=0, pages=metadata))
        self.mapped = self.threads - 1  # the region of stacks is mapped from the start
        if warm_up:
            self.compute(0, 2)
            self.put_array(serial.after_compute(self.place, self.rng))
            self.put(0, visit(STORE, at.KV, 0, self.shape.kv_pages(), 128))

    def evaluation(self, number: int, position: int, tokens: int) -> None:
        self.put(0, control(MARK, number))
        self.put_array(serial.build_graph(self.place, self.rng))
        self.compute(position, tokens)
        self.put_array(serial.after_compute(self.place, self.rng))
        self.put_array(serial.sample(self.place, self.rng))

    def compute(self, position: int, tokens: int) -> None:
        """Write one ggml_graph_compute: create the workers, go through all ops, end the workers."""
        kept = min(self.threads - 1, at.STACK_CACHE_BYTES // (at.STACK_PAGES * PAGE_BYTES))
        for worker in range(1, self.threads):
            if worker > self.mapped:
                self.put(
                    0,
                    control(
                        MMAP, region=at.THREAD_STACK, page=(worker - 1) * at.STACK_PAGES, pages=at.STACK_PAGES
                    ),
                )
            self.put(0, *serial.create_thread(self.place, worker), control(CLONE, worker))
            region, stack = self.place.stack(worker)
            self.put(
                worker,
                visit(STORE, region, stack, 2, 6),
                visit(LOAD, region, stack, 2, 30),
                visit(IFETCH, at.LIBS, 0, 2, 100),
            )
        for thread in range(self.threads):
            self.put(
                thread,
                self.text("loop", 330),
                visit(LOAD, at.GRAPH_META, self.place.tensor_structs[0], 2, 80),
            )
        self.graph(position, tokens)
        for worker in range(1, self.threads):
            base = (worker - 1) * at.STACK_PAGES
            # glibc advises all but the last pages of the stack, which hold the thread's descriptor and first
            # frames.
            self.put(
                worker,
                control(DONTNEED, region=at.THREAD_STACK, page=base, pages=at.STACK_PAGES - 6),
                control(EXIT),
            )
        if self.threads > 1:
            self.put(0, control(JOIN, pages=self.threads - 1))
        for worker in range(kept + 1, self.threads):
            self.put(
                0,
                control(
                    MUNMAP, region=at.THREAD_STACK, page=(worker - 1) * at.STACK_PAGES, pages=at.STACK_PAGES
                ),
            )
        self.mapped = kept

    # -- ops -------------------------------------------------------------------------------------------------

    def graph(self, position: int, tokens: int) -> None:
        self.op = 0
        self.get_rows(self.tensors["token_embd"], tokens)
        for layer in range(self.shape.layers):
            tensor = {
                role: self.tensors[f"blk.{layer}.{role}"]
                for role in ("attn_q", "attn_k", "attn_v", "attn_output")
            }
            self.norm(f"blk.{layer}.attn_norm", tokens)
            self.mul_mat(tensor["attn_q"], tokens)
            self.rope(tokens)
            self.mul_mat(tensor["attn_k"], tokens)
            self.rope(tokens)
            self.mul_mat(tensor["attn_v"], tokens)
            store_kv(self, layer, position, tokens)
            attention(self, layer, position, tokens)
            self.mul_mat(tensor["attn_output"], tokens)
            if layer == self.shape.layers - 1:
                tokens = 1  # only the last token's logits are wanted: the others are dropped here
            self.add(tokens)
            self.feed_forward(layer, tokens)
        self.norm("output_norm", 1)
        self.mul_mat(self.tensors["output"], 1, output=self.place.logits)

    def feed_forward(self, layer: int, tokens: int) -> None:
        self.norm(f"blk.{layer}.ffn_norm", tokens)
        self.mul_mat(self.tensors[f"blk.{layer}.ffn_gate"], tokens, wide=True)
        self.unary(tokens)
        self.mul_mat(self.tensors[f"blk.{layer}.ffn_up"], tokens, wide=True)
        self.unary(tokens)  # mul: same pages
        self.mul_mat(self.tensors[f"blk.{layer}.ffn_down"], tokens)
        self.add(tokens)

    def get_rows(self, tensor: Tensor, tokens: int) -> None:
        self.begin("get_rows", 3000)
        for token in range(tokens):
            page, pages = tensor.pages(row := int(self.rng.integers(tensor.rows)), row + 1)
            self.put(
                0,
                visit(LOAD, at.WEIGHTS, page, pages, 55),
                visit(STORE, at.COMPUTE, self.buffer()[0] + token, 1, 500),
            )

    def norm(self, name: str, tokens: int) -> None:
        """Write rms_norm, and mul with the norm's weights; one token is one row, so main does both."""
        self.begin("rms_norm", 8700 * tokens)
        before, after = self.buffer(1, tokens), self.buffer(0, tokens)
        count = max(1, self.shape.n_embd // 8)
        self.put(
            0,
            visit(IFETCH, at.LIBS, 2, 1, 385),
            visit(LOAD, at.RODATA, int(self.place.rodata_pages[12]), 1, 2),
        )
        self.put(0, visit(LOAD, at.COMPUTE, *before, 60), visit(STORE, at.COMPUTE, *after, 60))
        self.begin("mul", 575 * tokens)
        tensor = self.tensors[name]
        weights = visit(
            LOAD, at.WEIGHTS, *tensor.pages(0, 1), max(1, count // tensor.pages(0, 1)[1] * tokens)
        )
        self.put(
            0,
            visit(LOAD, at.COMPUTE, *after, 100),
            weights,
            visit(STORE, at.COMPUTE, *self.buffer(0, tokens), 100),
        )
        for thread in range(self.threads):
            self.put(thread, visit(LOAD, at.HEAP, self.place.build_heap[0], 1, 30))

    def add(self, tokens: int) -> None:
        self.begin("add", 1000 * tokens)
        before, after = self.buffer(1, tokens), self.buffer(0, tokens)
        self.put(
            0,
            visit(LOAD, at.COMPUTE, *before, 200),
            visit(LOAD, at.COMPUTE, *self.buffer(4, tokens), 200),
            visit(STORE, at.COMPUTE, *after, 100),
        )
        for thread in range(self.threads):
            self.put(thread, visit(LOAD, at.GRAPH_META, self.struct(), 1, 28))

    def unary(self, tokens: int) -> None:
        self.begin("unary", 10000 * tokens)
        before, after = self.buffer(1, tokens, wide=True), self.buffer(0, tokens, wide=True)
        self.put(0, visit(LOAD, at.COMPUTE, *before, 100), visit(STORE, at.COMPUTE, *after, 100))
        for thread in range(self.threads):
            self.put(
                thread,
                visit(LOAD, at.DATA, 37, 1, 32),
                visit(LOAD, at.RODATA, int(self.place.rodata_pages[9]), 1, 3),
            )

    def mul_mat(
        self, tensor: Tensor, tokens: int, wide: bool = False, output: tuple[int, int] | None = None
    ) -> None:
        """Write INIT (main quantises the activations), the barrier, and COMPUTE (everybody draws chunks)."""
        self.op += 1
        if self.barriers_per_op == 3:
            self.barrier()
        activations = max(1, -(-tokens * tensor.encoding.activation_row_bytes(tensor.columns) // PAGE_BYTES))
        source = self.buffer(1, tokens, wide=tensor.columns == self.shape.n_ff)
        self.put(
            0,
            self.text("quantise", 10 * tensor.columns * tokens),
            visit(LOAD, at.COMPUTE, *source, max(1, tensor.columns * tokens // 8 // source[1])),
        )
        self.put(0, *(visit(LOAD, at.RODATA, int(page), 1, 20) for page in self.place.rodata_pages[9:12]))
        self.put(
            0,
            visit(STORE, at.HEAP, 0, activations, 60),
            visit(LOAD, at.DATA, 68, 1, 30),
            visit(LOAD, at.HEAP, self.place.build_heap[0], 1, 30),
        )
        for worker in range(1, self.threads):
            self.put(
                worker,
                visit(LOAD, at.HEAP, self.place.build_heap[0], 1, 32),
                visit(LOAD, at.DATA, 37, 1, 31),
                self.text("mul_mat", 10000, 3),
            )
        self.barrier()
        chunks = self.chunks.chunks(tensor, tokens, output or self.buffer(0, tokens, wide), self.struct())
        section = len(self.sections)
        self.sections.append(Section(chunks))
        share = tensor.rows * tensor.row_bytes * tensor.encoding.accesses_per_byte / self.threads * tokens
        for thread in range(self.threads):
            region, stack = self.place.stack(thread)
            busy = max(1, round(0.5 * share)) if tensor.encoding.dynamic else 20
            self.put(
                thread,
                self.text("mul_mat", 2000),
                visit(IFETCH, at.LIBS, 1, 1, 220),
                visit(LOAD, region, stack, 1, busy),
            )
            self.put(
                thread, control(DRAW, section, self.threads, thread), visit(STORE, region, stack, 1, busy)
            )
        if self.barriers_per_op > 1:
            self.barrier()

    def rope(self, tokens: int) -> None:
        self.op += 1
        before, after = self.buffer(1, tokens), self.buffer(0, tokens)
        for thread, (first, end) in enumerate(equal_parts(before[1], self.threads)):
            own = before[0] + min(first, before[1] - 1), max(1, end - first)
            slot = self.place.activation_pages - 2 + thread % 2
            self.put(
                thread,
                self.text("rope", 1400 * tokens),
                visit(IFETCH, at.LIBS, 1, 2, 620),
                visit(LOAD, at.LIBS, int(self.place.table_libs_pages[10]), 1, 60),
            )
            self.put(
                thread,
                *(visit(LOAD, at.LIBS, int(page), 1, 60) for page in self.place.table_libs_pages[11:14]),
            )
            self.put(
                thread,
                visit(LOAD, at.COMPUTE, 1, 1, 1),
                visit(LOAD, at.COMPUTE, *own, 160),
                visit(STORE, at.HEAP, slot, 1, 100),
            )
            self.put(
                thread,
                visit(LOAD, at.GRAPH_META, self.struct(), 1, 23),
                visit(LOAD, at.HEAP, slot, 1, 300),
                visit(STORE, at.COMPUTE, after[0] + own[0] - before[0], own[1], 160),
            )
            self.put(
                thread,
                visit(LOAD, at.DATA, 37, 1, 2),
                visit(LOAD, at.RODATA, int(self.place.rodata_pages[12]), 1, 2),
            )
        self.meet()
