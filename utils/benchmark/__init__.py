"""Speed and memory against named alternatives: ``python -m utils.benchmark``."""
