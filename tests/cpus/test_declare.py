"""What modules declare fits together, or is refused in a sentence that names module and field."""

from types import ModuleType

import pytest

from cpus.declare import (
    ANY,
    BIT,
    CONFIG,
    OURS,
    OWNER,
    RWSEM,
    Atomic,
    Constant,
    Cost,
    Counter,
    Exclusive,
    Field,
    Held,
    Lock,
    OneOf,
    OwnerOf,
    Racy,
    Struct,
)
from cpus.layout import HEADER_WORDS, LayoutError, assemble
from cpus.ram import CACHE_LINE
from designs.memory_map import MACHINE

CPUS = ("nr_cpus",)


def module(*fields, name="planted", counters=(), costs=()):
    """Make a module that declares these."""
    made = ModuleType(name)
    made.FIELDS, made.COUNTERS, made.COSTS = fields, counters, costs
    return made


def refused(*modules):
    """Give the sentence with which a layout is refused."""
    with pytest.raises(LayoutError) as caught:
        assemble("planted", modules)
    return str(caught.value)


LOCK = Lock("my_lock", "my->lock", "mine", CPUS)
MISTAKES = [
    (
        Field("a", Held("yours"), "", CPUS),
        "'a' must be held by a lock that is declared (got 'yours')",
    ),
    (Field("a", OWNER, "", CPUS, reads=Held("b")), "'a' must be held by a lock that is declared (got 'b')"),
    (
        Field("a", OneOf(OWNER, Held("my_lock", at="nobody")), "", CPUS),
        "'a' must find its lock by zone, node, one, any or a field (got 'nobody')",
    ),
    (
        Field("a", Held("my_lock", shared=True), "", CPUS),
        "'a' must not be shared by holders of a spin lock (got 'my_lock')",
    ),
    (Field("a", Atomic("fetch_mul"), "", CPUS), "'a' must name operations of cpus.atomics (got 'fetch_mul')"),
    (Field("a", OwnerOf("task_cpu"), "", CPUS), "'a' must have an owner that a field names (got 'task_cpu')"),
    (Field("a", OWNER, "", ("nr_cups",)), "'a' must have sizes of cpus.layout.Sizes (got 'nr_cups')"),
    (Field("a", OWNER, ""), "'a' must have one or two sizes, or stand in a struct (got ())"),
    (
        Field("a", OWNER, "", (1, 2, 3)),
        "'a' must have one or two sizes, or stand in a struct (got (1, 2, 3))",
    ),
    (
        Struct("nr_cpus", "own", (Field("a", OWNER, "", CPUS),)),
        "'a' must have no shape inside a struct (got ('nr_cpus',))",
    ),
    (Struct("nr_cups", "own", ()), "struct 'nr_cups' must have sizes of cpus.layout.Sizes (got 'nr_cups')"),
    (Lock("a", "", "", kind=BIT, word="flags"), "lock 'a' must be a bit of a field (got 'flags')"),
    (Constant("nr_cpus", ""), "'nr_cpus' must be declared once (got it from the layout itself too)"),
    (
        Field("counter", OWNER, "", CPUS),
        "'counter' must be declared once (got it from the layout itself too)",
    ),
]


@pytest.mark.parametrize(("wrong", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_a_mistake_is_one_sentence(wrong, sentence):
    assert refused(module(LOCK, wrong)) == f"planted: {sentence}"


def test_a_name_is_declared_once():
    """By one module: whoever comes second reads who was first, also across fields, counters and costs."""
    one, field = module(Field("a", OWNER, "", CPUS), name="one"), Field("a", CONFIG, "", CPUS)
    assert refused(one, module(field)) == "planted: 'a' must be declared once (got it from one too)"
    member = module(Struct("nr_cpus", "own", (field,)))
    assert refused(one, member) == "planted: 'a' must be declared once (got it from one too)"
    counts = module(counters=(Counter("a", OURS, ""),))
    assert refused(one, counts) == "planted: 'a' must be declared once (got it from one too)"
    costs = module(Constant("cost_b", ""), costs=(Cost("b", ""),))
    assert refused(costs) == "planted: 'cost_b' must be declared once (got it from planted too)"


def test_the_header_is_not_boundless():
    many = module(*(Constant(f"c{i}", "") for i in range(HEADER_WORDS)))
    assert "'header words' must be at most" in refused(many)


def test_every_kind_of_rule_is_taken():
    """As the table in cpus/declare.py has them."""
    rules = (CONFIG, ANY, OWNER, OwnerOf("a", index=1), Atomic("fetch_max"), Held("my_lock"), Racy("why"))
    rules += (Exclusive("why", references=0), OneOf(OWNER, Held("flagged")), Held("rw", at="a", shared=True))
    fields = [Field(f"f{i}", rule, "", CPUS) for i, rule in enumerate(rules)]
    flagged = Lock("flagged", "", "", kind=BIT, word="a", bit=3)
    rw = Lock("rw", "", "", CPUS, kind=RWSEM)
    layout = assemble("fine", [module(LOCK, flagged, rw, Field("a", CONFIG, "", CPUS), *fields)])
    assert set(layout.locks) == {"my_lock", "flagged", "rw"}
    assert "flagged" not in layout.places, "a bit of another word takes no memory"


def test_members_of_one_struct_may_be_declared_in_several_modules():
    """They lie together: those of one line share cache lines, in the order of modules."""
    a, b = Field("a", OWNER, ""), Field("b", OWNER, "", dtype="uint8")
    one = module(Struct("nr_cpus", "own", (a, b)), name="one")
    bell, own = (
        Struct("nr_cpus", line, (Field(name, OWNER, ""),)) for line, name in (("bell", "c"), ("own", "d"))
    )
    two = module(bell, own, name="two")
    layout = assemble("together", [one, two])
    places = {name: layout.places[name] for name in "abcd"}
    assert {place.slot for place in places.values()} == {places["a"].slot}
    assert [places[name].offset for name in "abcd"] == [0, 8, CACHE_LINE, 16]
    assert {place.stride for place in places.values()} == {2 * CACHE_LINE}


def test_a_packed_struct_has_no_holes_but_those_of_alignment():
    members = [Field(f"m{i}", CONFIG, "", dtype=f"uint{bits}") for i, bits in enumerate((8, 8, 16, 32))]
    layout = assemble("packed", [module(Struct("nr_rows", "", tuple(members)))])
    assert [layout.places[f"m{i}"].offset for i in range(4)] == [0, 1, 2, 4]
    assert layout.places["m0"].stride == 8


def test_a_layout_is_named_for_what_compiled_code_holds():
    """A field that lies elsewhere makes another type; another meaning does not."""
    first, second = Field("a", OWNER, "one", CPUS), Field("b", OWNER, "two", CPUS)
    layout = assemble("x", [module(first, second)])
    assert layout.type == assemble("x", [module(Field("a", OWNER, "else", CPUS), second)]).type
    assert layout.type != assemble("x", [module(second, first)]).type
    assert layout.type != assemble("x", [module(Constant("c", ""), first, second)]).type
    assert layout.type != assemble("x", [module(first, second, counters=(Counter("k", OURS, ""),))]).type


def test_every_field_says_what_it_means():
    """And counters and costs; who may write for a reason gives it."""
    for name, field in MACHINE.fields.items():
        assert field.meaning, name
        for rule in (field.rule, *getattr(field.rule, "rules", ())):
            assert getattr(rule, "why", "-") or isinstance(rule, Atomic), name
    assert all(counter.meaning and counter.unit for counter in MACHINE.counters)
    assert all(cost.meaning and cost.unit for cost in MACHINE.costs)
