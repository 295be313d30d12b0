"""A CPU's speed, and nothing else: without this folder models/layers.py takes PyTorch's operators."""
