"""Numerics of the scores, exact at any size: what is not formula."""
