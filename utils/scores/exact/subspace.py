"""The space that the training features hardly reach, and how far a feature lies in it."""

import numpy as np

from .blocks import by_blocks, mean_row, slices

# residual norm / feature norm up to which only float32 rounding of the features is left
NO_RESIDUAL = 1e-6


def residual_space(train, D):
    """Origin u (D,) and residual basis R (D,D-d), float64, of the training Outputs.

    u = -pinv(W) b; R = eigenvectors of the D-d smallest eigenvalues of mean((h-u)(h-u)'), summed in
    float64 by blocks. That matrix is F'F with F the root of the covariance and, below it, mean h -
    u. The singular vectors of F are the same but keep their digits where u is far
    longer than the features.
    """
    width = train.features.shape[1]
    d = principal_dimension(width, D)
    u = -np.linalg.pinv(train.weight.astype(np.float64)) @ train.bias.astype(np.float64)
    mean = mean_row(train.features)
    covariance = np.zeros((width, width))
    for rows in slices(len(train)):
        centred = train.features[rows] - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / len(train))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    # singular values descending
    directions = np.linalg.svd(np.vstack([root, mean - u]), full_matrices=False)[2]
    return {"u": u, "R": np.ascontiguousarray(directions[d:].T)}


def residual_norm(stats, features):
    """||R'(h-u)|| of features (N,D): (N,) float64."""
    return by_blocks(lambda h: np.linalg.norm((h - stats["u"]) @ stats["R"], axis=1), features)


def rounding_of(u, features):
    """Residual norm that rounding alone leaves: of the features in float32, of h - u in float64."""
    length = by_blocks(lambda h: np.linalg.norm(h.astype(np.float64), axis=1), features).mean()
    return NO_RESIDUAL * length + len(u) * np.finfo(np.float64).eps * np.linalg.norm(u)


def virtual_ratio(top, stats, features):
    """``top`` over the mean residual norm of features (N,D),
    or 0 where that norm is rounding alone.
    """
    residual = residual_norm(stats, features).mean()
    return top / residual if residual > rounding_of(stats["u"], features) else 0.0


def principal_dimension(width, D):
    """The dimension of the principal space: D, or for D = 0 512 from a feature width of
    768, else half the width.
    """
    if width <= D:
        raise ValueError(
            f"D={D} leaves no residual: the features have only {width} "
            f"dimensions. Choose D < {width}"
        )
    if D:
        return D
    return 512 if width >= 768 else width // 2
