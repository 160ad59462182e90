"""A little of what fuzz_doors.py does at length."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from fuzz_doors import DOORS, MAX_BYTES, MAX_SECONDS, fuzz


@pytest.mark.parametrize("door", DOORS)
def test_damaged_files_are_clean_errors_or_are_read(door):
    # in a new process: until a child process runs its own program, Linux counts the memory of its parent as the child's
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        outcome = pool.submit(fuzz, door, 60, seed=1).result()
    assert sum(n for (_, how), n in outcome.counts.items() if how == "clean error") > 5
    assert outcome.seconds < MAX_SECONDS and outcome.bytes < MAX_BYTES
