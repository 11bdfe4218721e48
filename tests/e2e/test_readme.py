"""Every bash block of the README is pasted into a shell, top to bottom, in a folder and with settings of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.serving import free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_readmes_commands_work(tmp_path: Path, smollm2_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    port = str(free_port())
    script = "set -euo pipefail\n" + "\n".join(blocks).replace("8080", port).replace("build/", f"{tmp_path}/")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MM35_PORT": port,
        "MM35_CHAT": '{"max_tokens": 64}',  # a model this small may go on to the end of its context
        "XDG_DATA_HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
    }
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"finish_reason":' in done.stdout
    assert "Q8_0.gguf" in done.stdout
