"""A step's images in parts that a small device has the memory for."""

from collections.abc import Iterator

from torch import Tensor


def parts(
    x: Tensor, y: Tensor, x_out: Tensor, count: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """``count`` parts (x, y, x_out, share) of a step's ID images x (n,3,H,W), labels y (n,) and
    outliers x_out (m,3,H,W), each with its share of both; share is that of the ID images, in 0..1.

    The shares add up to 1: with each part's loss weighed by its share the gradients of the parts
    add up to the whole step's, for a loss that is a mean over images; where ``count`` does not divide
    the images, outliers of a part weigh as its ID images do, a few percent apart. BatchNorm is the
    exception, it takes the statistics of each part instead of the step's. Fewer parts where there are fewer
    images, so that none is without ID images or, where the step has any, outliers.
    """
    count = min(count, len(x), len(x_out) or count)
    if count == 1:
        yield x, y, x_out, 1.0
        return
    for part in zip(*(tensor.tensor_split(count) for tensor in (x, y, x_out))):
        yield (*part, len(part[0]) / len(x))
