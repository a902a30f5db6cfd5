"""What the campaign of chance says of a comparison."""

from emulator.repeats.figures import samples
from emulator.repeats.spread import differences
from tests.campaigns.chance import told
from tests.emulator.fixed import run


def with_runtimes(*milliseconds):
    return samples([run(seed=i, runtime_ns=[int(ms * 1e6)]) for i, ms in enumerate(milliseconds)])


def test_it_names_what_differs():
    usual = with_runtimes(100, 101, 102, 103, 104, 105)
    slower = with_runtimes(110, 111, 112, 113, 114, 115)
    assert told(differences(usual, slower)).startswith("runtime_mean_ns seen; runtime +9.8 [")
    assert told(differences(usual, usual)).startswith("nothing seen; runtime +0.0 [")
