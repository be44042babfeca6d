"""`python -m tune_gpu.launch`: config in, winner out."""

from tune_gpu.cli.launch import launch

if __name__ == "__main__":
    launch()
