"""What was freed does not stay with the process."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers.running import wait_until

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


_SERVER = """
import socket
import sys
from pathlib import Path
from kms import listening, renewal, tls
from kms.config import Settings

LARGE = bytes(5 << 20)

def application(environ, start):
    start("200 OK", [])
    return [LARGE]

settings = Settings(data_dir=Path("data"))
Path("data").mkdir()
tls.ensure_material(settings)
taking = socket.create_server(("127.0.0.1", 0))
listening.Listener(settings, taking, application).serve(renewal.served_pair(settings))
print(taking.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_set", [True, False])
def test_the_server_keeps_no_copies_of_large_answers(tmp_path: Path, is_set: bool) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "_RJEM_MALLOC_CONF"}
    environ |= {"PYTHONPATH": str(ROOT)} | ({} if is_set else {"_RJEM_MALLOC_CONF": ""})
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(next(line for line in server.stdout if line.strip().isdigit()))  # after it has made its pair
        context = ssl.create_default_context(cafile=tmp_path / "server.crt")

        def resident() -> int:
            return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096 >> 20

        def fetch() -> None:
            connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
            for _ in range(10):
                connection.request("GET", "/")
                assert len(connection.getresponse().read()) == 5 << 20
            connection.close()

        before = resident()
        clients = [threading.Thread(target=fetch) for _ in range(6)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        if is_set:
            wait_until(lambda: resident() - before < 9)  # the last answer may not be freed yet
        grown = resident() - before
        server.communicate()
    if not is_set and grown < 9:
        pytest.skip("the allocator of this server keeps none by itself")
