"""All readers by name."""

from tests.campaigns.fuzzing.readers import FILES_AND_LINES
from tests.campaigns.fuzzing.short_runs import SHORT_RUNS

READERS = {reader.name: reader for reader in (*FILES_AND_LINES, *SHORT_RUNS)}
