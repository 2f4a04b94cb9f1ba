"""Whatever a command writes is for its user alone, whatever the shell would allow (`helpers.shell.run` looks)."""

from __future__ import annotations

import pytest

from helpers.running import Start
from helpers.shell import open_to_others, run

pytestmark = pytest.mark.slow
_COMMANDS = """
kms() { python -m kms "$@"; }
kms login --credentials admin.json
kms key create exported --exportable >key.json.pub
kms key create signer --type ed25519 >signer.json.pub
echo "a secret" >"$TMPDIR/note"
kms encrypt -k exported "$TMPDIR/note" -o note.kms
kms decrypt note.kms -o note
kms rewrap note.kms
kms sign -k signer note
kms key export exported -o exported.key
kms key backup exported -o exported.backup
kms revocations fetch lists
kms access-key create --profile kms
"""


def test_every_file_that_a_command_or_the_service_writes(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = start("--workers", "1", login=False, folder=tmp_path_factory.mktemp("umask"))
    service.log.chmod(0o600)  # made by the test
    run(service, _COMMANDS, TMPDIR=str(tmp_path_factory.mktemp("others")))
    assert open_to_others(service.folder) == set()
    made = {path.name: path.stat().st_mode & 0o777 for path in service.folder.rglob("*") if path.is_file()}
    assert made["server.crt"] == 0o644  # a certificate is public: clients trust it by this file
    for name in ("server.key", "admin.json", "root.key", "kms.db", "session.json", "curlrc", "note",
                 "note.sig", "exported.key", "exported.backup", "revocations.json", "credentials"):  # fmt: skip
        assert made[name] == 0o600, name
