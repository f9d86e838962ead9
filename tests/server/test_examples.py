"""The commands of docs/serving.md, run against a server."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/serving.md"
COMMANDS = re.findall(r"^curl .*$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_every_curl_command_is_answered(address: str, explains: None) -> None:
    assert len(COMMANDS) >= 3
    for command in COMMANDS:
        words = shlex.split(command.replace("http://127.0.0.1:8080", address))
        found = subprocess.run(
            [*words, "--silent", "--fail-with-body"], capture_output=True, check=False, timeout=30
        )
        assert found.returncode == 0, found.stdout
        answer = json.loads(found.stdout)
        ranked = answer if isinstance(answer, list) else answer.get("results")
        if "/explain" in command:
            assert answer["parts"]
        elif ranked is not None:
            assert sorted(one["index"] for one in ranked)[0] in (0, 1)
        else:
            assert len(answer["scores"]) == 2
