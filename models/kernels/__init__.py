"""Operators that are quicker on a CPU than PyTorch's own;
without this folder models/layers.py uses those.
"""

# True: PyTorch's own operators in every network, which the benchmark measures these against
stock = False
