"""What threads have freed does not stay with the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_PROGRAM = """
import ctypes
import threading
from pathlib import Path
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from kms.allocator import return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

def work(number):
    for _ in range(3):
        Argon2id(salt=b"0" * 16, length=32, iterations=1, lanes=1, memory_cost=19 << 10).derive(b"x")
    met.wait()  # in one arena each: nobody leaves before all are there
    met.wait()

return_freed_memory()
met = threading.Barrier(9)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
before = resident()
for each in threads:
    each.start()
met.wait()
print(resident() - before, flush=True)
library = ctypes.CDLL(None)
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
met.wait()
"""


@pytest.mark.parametrize("is_called", [True, False])
def test_threads_keep_nothing_of_it(is_called: bool) -> None:
    program = _PROGRAM if is_called else _PROGRAM.replace("\nreturn_freed_memory()", "")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    grown, arenas = int(done.stdout.splitlines()[0]), done.stdout.count("<heap nr=")
    if is_called:
        assert grown < 19
        assert arenas <= 2
    elif grown < 19 or arenas <= 2:
        pytest.skip("this C library returns memory by itself")
