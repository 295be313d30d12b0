"""ViM: the feature's part outside the principal space as a virtual logit."""
import numpy as np

from .base import Paper, Score, energy_of
from .blocks import by_blocks, mean_row, slices

NO_RESIDUAL = 1e-6   # residual norm / feature norm up to which only float32 rounding of the features is left


def principal_dimension(width, D):
    """The dimension of the principal space: D, or for D = 0 512 from a feature width of 768, else half the width."""
    if D >= width:
        raise ValueError(f"D={D} leaves no residual: the features have only {width} dimensions. Choose D < {width}")
    if D:
        return D
    return 512 if width >= 768 else width // 2


def residual_space(train, D):
    """Origin u (D,) and residual basis R (D,D-d), float64, of the training Outputs.

    u = -pinv(W) b; R = eigenvectors of the D-d smallest eigenvalues of mean((h-u)(h-u)'), summed in float64 by blocks.
    That matrix is F'F with F the root of the covariance and, below it, mean h - u. The singular vectors of F are the
    same but keep their digits where u is far longer than the features.
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
    directions = np.linalg.svd(np.vstack([root, mean - u]), full_matrices=False)[2]   # singular values descending
    return {"u": u, "R": np.ascontiguousarray(directions[d:].T)}


def residual_norm(stats, features):
    """||R'(h-u)|| of features (N,D): (N,) float64."""
    return by_blocks(lambda h: np.linalg.norm((h - stats["u"]) @ stats["R"], axis=1), features)


def rounding_of(u, features):
    """Residual norm that rounding alone leaves: of the features in float32, of h - u in float64."""
    length = by_blocks(lambda h: np.linalg.norm(h.astype(np.float64), axis=1), features).mean()
    return NO_RESIDUAL * length + len(u) * np.finfo(np.float64).eps * np.linalg.norm(u)


class ViM(Score):
    """Virtual logit minus the energy's log-sum, alpha ||R'(h-u)|| - logsumexp f.

    alpha = mean max logit / mean residual norm over the training images. Logits (N,C), features (N,D) -> (N,) float64;
    unbounded; larger = more OOD. D: dimension of the principal space, 0 = 512 for features of 768 or more, else half
    the width, on every data set; the paper's value for ImageNet and 2,048 features: ``vim:D=1000``. Where the training
    features leave no residual (constant, or of rank <= D), alpha is 0 and the score is the energy.
    ValueError: D negative, or not below the feature width (pytorch-ood then takes half the width).
    Source: Wang et al. 2022, residual, alpha and virtual logit of the method section. The paper's code only knows 1000
    and 512; half the width for features below 768 is the usual extension.
    """

    name = "vim"
    formula = "alpha ||R'(h-u)|| - logsumexp f"
    needs = ("logits", "features", "head", "train")
    paper = Paper("ViM: Out-Of-Distribution with Virtual-logit Matching", "Wang et al.", "CVPR 2022",
                  "arXiv:2203.10807")
    defaults = {"D": 0}
    grid = {"D": (16, 32, 64)}

    def check(self):
        if self.D < 0:
            raise ValueError(f"score '{self.name}': D={self.D} must not be negative (0 = the paper's rule)")

    def fit(self, train):
        super().fit(train)
        self.stats = residual_space(train, self.D)
        residual = residual_norm(self.stats, train.features).mean()
        top = train.logits.max(axis=1).mean(dtype=np.float64)
        rounding = rounding_of(self.stats["u"], train.features)
        self.stats["alpha"] = np.array(top / residual if residual > rounding else 0.0)
        return self

    def score(self, outputs):
        energy = by_blocks(energy_of, outputs.logits)
        return self.stats["alpha"] * residual_norm(self.stats, outputs.features) + energy
