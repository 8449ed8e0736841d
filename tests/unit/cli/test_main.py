from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal, sys

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "distill.cli.console":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient())
sys.argv = ["distill", "runs"]
import runpy
runpy.run_module("distill", run_name="__main__")
"""


def test_an_interruption_while_modules_are_read_leaves_no_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-2, "", "")
