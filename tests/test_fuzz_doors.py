"""A little of what fuzz_doors.py does at length."""

import pytest
from fuzz_doors import DOORS, MAX_BYTES, MAX_SECONDS, fuzz


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("door", DOORS)
def test_damaged_files_are_clean_errors_or_are_read(door):
    counts, longest, most = fuzz(door, 60, seed=1)
    assert sum(n for (_, outcome), n in counts.items() if outcome == "clean error") > 5
    assert longest < MAX_SECONDS and most < MAX_BYTES
