"""The preflight is pure: it must work where neither a GPU nor vLLM nor Ray is."""

from __future__ import annotations

import subprocess
import sys


def test_it_imports_no_ray_no_torch_and_no_vllm() -> None:
    code = (
        "import sys; import tune_gpu.evaluation.memory_check, tune_gpu.services.vllm.memory.predict_many, tune_gpu.evaluation.memory_check.space_plan, tune_gpu.services.vllm.memory.learning, tune_gpu.cli.plan; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'ray', 'torch', 'vllm', 'faster_whisper', 'transformers'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_probes_do_not_import_it() -> None:
    """It asks them; a round would make one of both fail, whichever is imported first."""
    code = "import sys; import tune_gpu.telemetry.nvml, tune_gpu.telemetry.cpu, tune_gpu.telemetry.several; print('tune_gpu.evaluation.memory_check' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
