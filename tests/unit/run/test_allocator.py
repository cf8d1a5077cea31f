import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from crosswalk.run.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(64 * 2**18)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
effective = keep_freed_memory()
faults()  # grows to what is needed at once
print(usual, effective and faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout

    usual, kept = out.split()
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert int(kept) < int(usual) / 4
