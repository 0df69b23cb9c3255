"""`docs/own-network.md` is one program, and does what it says."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_program_in_the_document():
    text = (ROOT / "docs" / "own-network.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    correct, apart, *refused = ran.stdout.splitlines()
    assert int(correct.removesuffix(" of 96")) > 80
    assert float(re.fullmatch(r"the losses are at most (\S+) apart", apart)[1]) < 0.02
    assert len(refused) == 2
    assert refused[0].startswith("semi2k has no fft_fft")
    assert refused[1].startswith("__bool__ of a secret tensor")
