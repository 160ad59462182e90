"""A little of what fuzz_doors.py does at length."""

import pytest
from fuzz_doors import DOORS, MAX_BYTES, MAX_SECONDS, fuzz


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("door", DOORS)
def test_damaged_files_are_clean_errors_or_are_read(door):
    outcome = fuzz(door, 60, seed=1)
    assert sum(n for (_, how), n in outcome.counts.items() if how == "clean error") > 5
    assert outcome.seconds < MAX_SECONDS and outcome.bytes < MAX_BYTES
