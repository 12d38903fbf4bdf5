"""Nothing that serves reports to anybody."""

import os
import subprocess
import sys
from pathlib import Path


def test_onnx_runtime_is_told_not_to_report_before_it_is_imported(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    program = (
        "import builtins, os\n"
        "real = builtins.__import__\n"
        "def watch(name, *rest):\n"
        "    if name == 'onnxruntime':\n"
        "        assert os.environ.get('ORT_DISABLE_TELEMETRY') == '1'\n"
        "        print('seen')\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = watch\n"
        "import services.student.encoder\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "seen" in done.stdout
    assert list(tmp_path.rglob("*")) == []
