"""Speed and memory, measured against plain code: ``python -m utils.benchmark``.

A part of ``__main__`` gives rows; ``measure`` times what stands side by side in one process,
``apart`` starts what needs a process of its own, and ``plain`` is the code that all is held against.
"""
