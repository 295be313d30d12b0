"""The space that the training features hardly reach, and how far a feature lies in it."""

import numpy as np

from .blocks import by_blocks, covariance_about, mean_row, product, row_norms

# residual norm / feature norm up to which only float32 rounding of the features is left
NO_RESIDUAL = 1e-6


def residual_space(
    features: np.ndarray, weight: np.ndarray, bias: np.ndarray, D: int
) -> dict[str, np.ndarray]:
    """Origin u (D,) and residual basis R (D,D-d), float64, of training features (N,D)
    and the head (C,D), (C,).

    u = -pinv(W) b; R = eigenvectors of the D-d smallest eigenvalues of mean((h-u)(h-u)'), summed in
    float64 by blocks. That matrix is F'F with F the root of the covariance and, below it, mean h -
    u. The singular vectors of F are the same but keep their digits where u is far
    longer than the features.
    """
    width = features.shape[1]
    d = principal_dimension(width, D)
    u = -np.linalg.pinv(weight.astype(np.float64)) @ bias.astype(np.float64)
    mean = mean_row(features)
    values, vectors = np.linalg.eigh(covariance_about(mean, features))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    # singular values descending
    directions = np.linalg.svd(np.vstack([root, mean - u]), full_matrices=False)[2]
    return {"u": u, "R": np.ascontiguousarray(directions[d:].T)}


def residual_norm(stats: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """||R'(h-u)|| of features (N,D): (N,) float64."""
    return by_blocks(lambda h: row_norms(product(h - stats["u"], stats["R"])), features)


def mean_residual(stats: dict[str, np.ndarray], features: np.ndarray) -> float:
    """Mean residual norm of features (N,D), 0 where it is no more than rounding leaves:
    of the features in float32, of h - u in float64.
    """
    u, length = stats["u"], by_blocks(row_norms, features).mean()
    rounding = NO_RESIDUAL * length + len(u) * np.finfo(np.float64).eps * np.linalg.norm(u)
    residual = float(residual_norm(stats, features).mean())
    return residual if residual > rounding else 0.0


def principal_dimension(width: int, D: int) -> int:
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
