"""`python -m tune_gpu.cli`."""

from tune_gpu.cli.main import main

main()
