"""Scores of logits and of Gaussian statistics against slow loops, identities,
pytorch-ood and degenerate input.
"""

import io
import math
from decimal import Decimal, localcontext

import newer_loops
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from utils.scores import SCORES, Outputs, choose
from utils.scores.exact import blocks
from utils.scores.msp import log_msp

NAMES = (
    "msp",
    "maxlogit",
    "energy",
    "odin",
    "mahalanobis",
    "rmds",
    "gen",
    "klmatching",
    "gradnorm",
    "she",
)
CHOSEN = {
    "energy": {"T": 2.0},
    "odin": {"T": 10.0, "eps": 0.0},
    "gen": {"gamma": 0.3, "M": 3},
    "gradnorm": {"T": 2.0},
}


def outputs_of(features, weight, bias, labels=None):
    features = np.asarray(features, dtype=np.float32)
    return Outputs((features @ weight.T + bias).astype(np.float32), features, labels, weight, bias)


def random_pair(seed=0, width=6, classes=4, sharpness=1.0):
    rng = np.random.default_rng(seed)
    weight = (sharpness * rng.normal(size=(classes, width))).astype(np.float32)
    bias = (-5 * weight.sum(axis=1)).astype(np.float32)  # so that every class is predicted
    features = rng.normal(size=(130, width)) * rng.uniform(0.1, 3, size=width) + 5
    train = outputs_of(features[:100], weight, bias)
    train.labels = np.where(
        rng.uniform(size=100) < 0.7, train.logits.argmax(axis=1), rng.integers(classes, size=100)
    )
    return train, outputs_of(features[100:], weight, bias)


def digits_pair():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    head = LogisticRegression(max_iter=300).fit(images[:300], labels[:300])
    weight, bias = head.coef_.astype(np.float32), head.intercept_.astype(np.float32)
    noise = np.random.default_rng(0).uniform(size=(10, 64))
    return outputs_of(images[:300], weight, bias, labels[:300]), outputs_of(
        [*images[300:320], *noise], weight, bias
    )


PAIRS = {
    "random": random_pair(),
    "confident": random_pair(1, sharpness=12.0),
    "digits": digits_pair(),
    "two classes": random_pair(2, classes=2),
}


def scored(name, train, queries, **chosen):
    return SCORES[name](**{**CHOSEN.get(name, {}), **chosen}).fit(train).score(queries)


# ---- slow loops, from the formulas; softmax in 60 digits ----


def softmax_loop(logits, T=1.0):
    weights = [(Decimal(float(v)) / Decimal(T)).exp() for v in logits]
    return [w / sum(weights) for w in weights]


def msp_loop(train, f, h, T=1.0):
    return -max(softmax_loop(f, T)).ln()


def odin_loop(train, f, h, T, eps):
    return msp_loop(train, f, h, T)


def maxlogit_loop(train, f, h):
    return -max(float(v) for v in f)


def energy_loop(train, f, h, T):
    return -Decimal(T) * sum((Decimal(float(v)) / Decimal(T)).exp() for v in f).ln()


def gen_loop(train, f, h, gamma, M):
    return sum((p * (1 - p)) ** Decimal(gamma) for p in sorted(softmax_loop(f), reverse=True)[:M])


def templates_loop(train):
    groups = {}
    for logits in train.logits:
        p = softmax_loop(logits)
        groups.setdefault(p.index(max(p)), []).append(p)
    return [[sum(column) / len(group) for column in zip(*group)] for group in groups.values()]


def klmatching_loop(templates, f, h):
    p = softmax_loop(f)
    return min(sum(a * (a / b).ln() for a, b in zip(p, template)) for template in templates)


def gradnorm_loop(train, f, h, T):
    weight = torch.tensor(train.weight, dtype=torch.float64, requires_grad=True)
    product = weight @ torch.tensor(h, dtype=torch.float64)
    # the very logits the score sees
    logits = product - product.detach() + torch.tensor(f, dtype=torch.float64)
    uniform = torch.full_like(logits, 1 / len(f))
    (uniform * (uniform.log() - (logits / T).log_softmax(dim=0))).sum().backward()
    return math.fsum(-abs(g) for row in weight.grad.tolist() for g in row)


def she_loop(train, f, h):
    y = list(f).index(max(f))
    stored = [
        x
        for logits, x, label in zip(train.logits, train.features, train.labels)
        if label == y and list(logits).index(max(logits)) == label
    ]
    pattern = [math.fsum(float(x[d]) for x in stored) / len(stored) for d in range(len(h))]
    return -math.fsum(float(a) * b for a, b in zip(h, pattern))


def gaussian_loop(features, groups):
    """Mean of each group and the inverse of the covariance around them, image by image."""
    x = features.astype(np.float64)
    means = {
        k: sum(v for v, g in zip(x, groups) if g == k) / sum(g == k for g in groups)
        for k in set(groups)
    }
    covariance = sum(np.outer(v - means[g], v - means[g]) for v, g in zip(x, groups)) / len(x)
    return means, newer_loops.floored_inverse(covariance)


def squared_loop(h, mean, P):
    d = [float(a) - b for a, b in zip(h, mean)]
    return math.fsum(d[i] * P[i, j] * d[j] for i in range(len(d)) for j in range(len(d)))


def nearest_loop(gaussian, h):
    means, P = gaussian
    return min(squared_loop(h, mean, P) for mean in means.values())


def mahalanobis_loop(classes, f, h):
    return nearest_loop(classes, h) / 2


def rmds_loop(both, f, h):
    classes, whole = both
    return nearest_loop(classes, h) - nearest_loop(whole, h)


def class_gaussian(train):
    return gaussian_loop(train.features, train.labels.tolist())


FITS = {
    "klmatching": templates_loop,
    "mahalanobis": class_gaussian,
    "rmds": lambda train: (class_gaussian(train), gaussian_loop(train.features, [0] * len(train))),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", NAMES)
def test_slow_loop(name, pair):
    train, queries = PAIRS[pair]
    with localcontext() as context:
        context.prec = 60
        fitted = FITS.get(name, lambda train: train)(train)
        slow = [
            float(globals()[f"{name}_loop"](fitted, f, h, **CHOSEN.get(name, {})))
            for f, h in zip(queries.logits, queries.features)
        ]
    fast = scored(name, train, queries)
    assert fast.shape == (len(queries),) and fast.dtype == np.float64
    # what KL(p || d) can resolve: log p of float64 softmax near p = 1
    np.testing.assert_allclose(fast, slow, rtol=1e-6, atol=1e-14 if name == "klmatching" else 0)


# ---- identities ----


@pytest.mark.parametrize("pair", PAIRS)
def test_logit_identities(pair):
    train, queries = PAIRS[pair]
    C = queries.logits.shape[1]
    top, energy = -scored("maxlogit", train, queries), scored("energy", train, queries, T=1.0)
    assert (top <= -energy).all() and (-energy <= top + math.log(C)).all()
    msp = scored("msp", train, queries)
    assert np.array_equal(scored("odin", train, queries, T=1.0, eps=0.0), msp)
    assert (msp >= 0).all() and (msp <= math.log(C)).all()
    # -log p = logsumexp f - max f
    np.testing.assert_allclose(msp, -energy - top, rtol=1e-6, atol=1e-12)
    p = np.exp(queries.logits - (top + msp)[:, None])
    gini = scored("gen", train, queries, gamma=1.0, M=10**6)
    np.testing.assert_allclose(gini, 1 - (p**2).sum(axis=1), rtol=1e-6, atol=1e-12)
    doubled = Outputs(queries.logits, 2 * queries.features)
    for name in ("gradnorm", "she"):
        np.testing.assert_allclose(scored(name, train, doubled), 2 * scored(name, train, queries))


def test_msp_does_not_saturate():
    gaps = np.linspace(1, 600, 2000)
    logits = np.stack([gaps, np.zeros(2000)], axis=1)
    in_float32 = torch.tensor(logits, dtype=torch.float32).softmax(dim=1).max(dim=1).values.numpy()
    assert len(np.unique(in_float32)) < 100
    for values in (-log_msp(logits), SCORES["gen"]().score(Outputs(logits, logits))):
        assert (np.diff(values) < 0).all()


def test_uniform_softmax_is_the_extreme():
    flat = Outputs(np.full((1, 5), 3.0, np.float32), np.ones((1, 2), np.float32))
    assert SCORES["msp"]().score(flat) == pytest.approx(math.log(5))
    assert SCORES["gradnorm"]().score(flat) == pytest.approx(0, abs=1e-12)
    assert SCORES["gen"](gamma=0.5).score(flat) == pytest.approx(5 * math.sqrt(0.2 * 0.8))


def test_kl_is_zero_at_a_template():
    f = np.array([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]], dtype=np.float32)
    one = Outputs(f, f)
    np.testing.assert_allclose(scored("klmatching", one, one), 0, atol=1e-14)
    assert scored("klmatching", one, Outputs(f[:, ::-1], f)).min() > 0.01


@pytest.mark.parametrize("name", ["mahalanobis", "rmds"])
def test_unchanged_by_an_invertible_affine_map(name):
    train, queries = PAIRS["random"]
    A = np.random.default_rng(3).normal(size=(6, 6)) + 3 * np.eye(6)
    moved = [
        Outputs(part.logits, part.features.astype(np.float64) @ A - 7, part.labels)
        for part in (train, queries)
    ]
    np.testing.assert_allclose(scored(name, *moved), scored(name, train, queries), rtol=1e-8)


@pytest.mark.parametrize("k", [3, 4, 8])
@pytest.mark.parametrize("name", ["mahalanobis", "rmds"])
def test_unchanged_by_the_units_of_the_channels(name, k):
    train, queries = random_pair(8, width=16)
    units = 10 ** np.linspace(-k, k, 16)
    moved = [Outputs(part.logits, part.features * units, part.labels) for part in (train, queries)]
    plain = scored(name, train, queries)
    np.testing.assert_allclose(
        scored(name, *moved), plain, rtol=0, atol=1e-12 * np.abs(plain).max()
    )


def test_distance_under_a_singular_covariance():
    """Two channels are copies in other units, one is constant;
    the queries break both, as no training image does.
    """
    train, queries = random_pair(8)
    rng = np.random.default_rng(4)
    h, q = train.features.astype(np.float64), queries.features.astype(np.float64)
    train.features = np.column_stack(
        [h, 3 * h[:, 0], 0.2 * h[:, 1] - h[:, 2], np.full(len(h), 0.1)]
    )
    queries.features = np.column_stack([q, rng.normal(size=(len(q), 3))])
    slow = [mahalanobis_loop(class_gaussian(train), None, h) for h in queries.features]
    np.testing.assert_allclose(scored("mahalanobis", train, queries), slow, rtol=1e-9)


def test_a_constant_channel_counts_when_it_moves():
    """Its variance is a millionth of the others' mean. The mean of many equal values is not that
    value exactly, but rounding is no variance.
    """
    train, queries = random_pair(8)
    many = [np.tile(part, (50, 1)) for part in (train.logits, train.features)]
    plain = Outputs(*many, np.tile(train.labels, 50))
    for value in (0.1, 1e6 / 3):
        more = Outputs(
            plain.logits,
            np.column_stack([plain.features, np.full(len(plain), value)]),
            plain.labels,
        )
        groups = [plain.features[plain.labels == c] for c in np.unique(plain.labels)]
        within = sum(len(g) * g.astype(float).var(axis=0) for g in groups) / len(plain)
        still = scored("mahalanobis", plain, queries)
        for moved in (0.0, 7.0):
            probe = np.column_stack([queries.features, np.full(len(queries), value + moved)])
            np.testing.assert_allclose(
                scored("mahalanobis", more, Outputs(queries.logits, probe)),
                still + moved**2 / (1e-6 * within.mean()) / 2,
                rtol=1e-6,
            )


def test_distance_identities():
    train, queries = PAIRS["random"]
    means = SCORES["mahalanobis"]().fit(train).stats["means"]
    np.testing.assert_allclose(scored("mahalanobis", train, Outputs(means, means)), 0, atol=1e-12)
    single = Outputs(train.logits, train.features, np.zeros(len(train), dtype=np.int64))
    # one class: d_c = d_0
    np.testing.assert_allclose(scored("rmds", single, queries), 0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_ood_scores_higher(name):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features, held_out = (
        np.maximum(6 * np.eye(3)[labels] + rng.normal(size=(300, 3)), 0) for _ in range(2)
    )
    ood = np.abs(rng.normal(size=(100, 3))) / 2
    head = LogisticRegression().fit(features, labels)
    weight, bias = head.coef_.astype(np.float32), head.intercept_.astype(np.float32)
    score = SCORES[name]().fit(outputs_of(features, weight, bias, labels))
    assert (
        score.score(outputs_of(held_out, weight, bias)).mean()
        < score.score(outputs_of(ood, weight, bias)).mean()
    )


# ---- contract ----


@pytest.mark.parametrize("name", NAMES)
def test_stats_survive_a_file(name):
    train, queries = PAIRS["random"]
    fitted = SCORES[name]().fit(train)
    file = io.BytesIO()
    np.savez(file, **fitted.stats)
    file.seek(0)
    loaded = SCORES[name]()
    loaded.stats = dict(np.load(file, allow_pickle=False))
    assert bool(loaded.stats) == ("train" in fitted.needs)
    assert np.array_equal(loaded.score(queries), fitted.score(queries))


@pytest.mark.parametrize("name", NAMES)
def test_needs_name_all_that_is_read(name):
    """A score sees only what it needs and answers the same."""
    train, queries = PAIRS["random"]
    score = SCORES[name]().fit(train)
    other = np.random.default_rng(9)
    bare = Outputs(
        *(
            getattr(queries, part)
            if part in score.needs
            else other.normal(size=getattr(queries, part).shape)
            for part in ("logits", "features")
        )
    )
    assert np.array_equal(score.score(bare), score.score(queries))


def test_gradient_is_needed_only_with_a_step():
    for name, step in (("odin", 0.0014), ("mahalanobis", 0.002)):
        assert "gradient" in SCORES[name](eps=step).needs
        assert "gradient" not in SCORES[name](eps=0).needs
    assert "gradient" in SCORES["odin"]().needs and "gradient" not in SCORES["mahalanobis"]().needs


@pytest.mark.parametrize(
    "name, chosen",
    [
        ("odin", {"T": 0}),
        ("odin", {"eps": -0.1}),
        ("mahalanobis", {"eps": -1}),
        ("mahalanobis", {"eps": "nan"}),
        ("gen", {"gamma": 0}),
        ("gen", {"M": 0}),
        ("gradnorm", {"T": -1}),
        ("energy", {"T": "x"}),
        ("msp", {"T": 2}),
    ],
)
def test_bad_hyper_parameter(name, chosen):
    with pytest.raises(ValueError, match=name):
        SCORES[name](**chosen)


@pytest.mark.parametrize("name", SCORES)
def test_an_empty_training_set(name):
    train, _ = PAIRS["random"]
    score = SCORES[name]()
    if "train" in score.needs:
        with pytest.raises(ValueError, match="fit needs training images; there are 0"):
            score.fit(train.take(slice(0, 0)))
    else:
        assert score.fit(train.take(slice(0, 0))) is score


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite(value, dtype, monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 4)
    good = np.ones((10, 3), dtype)
    for row in (0, 5, 9):
        bad = good.copy()
        bad[row, 1] = value
        with pytest.raises(ValueError, match=f"logits of image {row} are not finite"):
            Outputs(bad, good)
        with pytest.raises(ValueError, match=f"features of image {row} are not finite"):
            Outputs(bad, bad)


@pytest.mark.parametrize(
    "name, dataset, chosen, label",
    [
        ("odin", None, {"eps": 0.001400001}, "odin:eps=0.001400001"),
        ("odin", None, {"T": 10.0}, "odin:T=10"),
        ("odin", None, {"eps": 1 / 3}, f"odin:eps={1 / 3!r}"),
        ("react", None, {"c": math.inf}, "react:c=inf"),
        ("knn", "cifar10", {"k": 1000}, "knn:k=1000"),
        ("knn", "cifar10", {"k": 50}, "knn"),
        ("knn", "imagenet", {"k": 50}, "knn:k=50"),
        ("knn", "imagenet", {}, "knn"),
        ("knn", "imagenet", {"k": 1000}, "knn"),
    ],
)
def test_label_reads_back_as_the_score(name, dataset, chosen, label):
    score = SCORES[name](dataset, **chosen)
    assert score.label == label
    assert choose(label, dataset)[0].hyper == score.hyper


@pytest.mark.parametrize("name", NAMES)
def test_every_grid_value_is_in_range(name):
    for key, values in SCORES[name].grid.items():
        for value in values:
            assert vars(SCORES[name](**{key: value}))[key] == value


# ---- the input step ----


def tiny_network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    A, W = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 4), (3, 5))
    )
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)

    def forward(x):
        features = torch.tanh(x @ A.T)
        return 3 * features @ W.T, features

    return forward, x


def outputs_at(forward, x):
    logits, features = forward(x)
    return Outputs(logits.detach().numpy(), features.detach().numpy(), np.arange(len(x)) % 3)


@pytest.mark.parametrize(
    "name, chosen", [("odin", {"T": 1}), ("odin", {"T": 1000}), ("mahalanobis", {"eps": 0.01})]
)
def test_objective_gradient(name, chosen):
    forward, x = tiny_network()
    score = SCORES[name](**chosen).fit(outputs_at(forward, x))
    x = x[:6].clone().requires_grad_()
    objective = score.objective(*forward(x))
    assert objective.item() == pytest.approx(score.score(outputs_at(forward, x)).sum(), rel=1e-9)
    (gradient,) = torch.autograd.grad(objective, x)
    h, slopes = 1e-5, np.empty(x.shape)
    for i, j in np.ndindex(*x.shape):
        step = torch.zeros_like(x)
        step[i, j] = h
        ends = [score.score(outputs_at(forward, x + s * step))[i] for s in (1, -1)]
        slopes[i, j] = (ends[0] - ends[1]) / (2 * h)
    np.testing.assert_allclose(
        gradient.numpy(), slopes, rtol=1e-5, atol=1e-7 * np.abs(slopes).max() + 1e-10
    )
    stepped = score.score(outputs_at(forward, x - 1e-4 * gradient.sign()))
    assert (stepped < score.score(outputs_at(forward, x))).all()


# ---- degenerate input ----


@pytest.mark.parametrize("name", ["mahalanobis", "rmds", "she"])
def test_no_labels(name):
    with pytest.raises(ValueError, match=f"'{name}'.*labels"):
        SCORES[name]().fit(PAIRS["random"][1])


def degenerate(kind):
    train, queries = random_pair(5)
    if kind == "constant":
        train.features = np.full_like(train.features, 0.1)
    elif kind == "more dimensions than images":
        train, queries = random_pair(6, width=200)
    elif kind == "a repeated feature":
        for part in (train, queries):
            part.features = np.concatenate([part.features, part.features[:, :1]], axis=1)
    elif kind == "a class without image":
        train.labels = np.where(train.labels == 1, 2, train.labels)
    elif kind == "one image":
        train, queries = train.take(slice(0, 1)), queries.take(slice(0, 1))
    return train, queries


@pytest.mark.parametrize(
    "kind",
    [
        "constant",
        "more dimensions than images",
        "a repeated feature",
        "a class without image",
        "one image",
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_input_is_answered(name, kind):
    train, queries = degenerate(kind)
    values = scored(name, train, queries)
    assert values.shape == (len(queries),) and np.isfinite(values).all()


def test_what_degenerate_input_gives():
    train, queries = degenerate("constant")  # no variance at all: a millionth of 1
    np.testing.assert_allclose(
        scored("mahalanobis", train, queries),
        ((queries.features.astype(float) - train.features[0]) ** 2).sum(axis=1) / 2e-6,
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        scored("mahalanobis", *degenerate("a repeated feature")),
        scored("mahalanobis", *random_pair(5)),
        rtol=1e-6,
    )
    train, queries = degenerate("a class without image")
    renumbered = Outputs(
        train.logits, train.features, np.searchsorted(np.unique(train.labels), train.labels)
    )
    assert np.array_equal(
        scored("mahalanobis", train, queries), scored("mahalanobis", renumbered, queries)
    )
    she, unseen = scored("she", train, queries), queries.logits.argmax(axis=1) == 1
    assert unseen.any() and (she[unseen] == 0).all() and (she[~unseen] != 0).all()


# ---- pytorch-ood, where the definitions agree ----


def theirs_of(name, train, queries):
    """pytorch-ood's values, brought to this project's unit where only a factor
    or a monotone map differs.
    """
    detector = pytest.importorskip("pytorch_ood").detector
    f, h = torch.tensor(queries.logits), torch.tensor(queries.features)
    labels, C = torch.tensor(train.labels), f.shape[1]
    head = torch.nn.Linear(h.shape[1], C)
    head.load_state_dict({"weight": torch.tensor(train.weight), "bias": torch.tensor(train.bias)})
    x, z = torch.tensor(train.logits), torch.tensor(train.features)
    values = {
        "msp": lambda: -(-detector.MaxSoftmax.score(f)).log(),
        "odin": lambda: -(-detector.ODIN(head, eps=0.0, temperature=10.0).predict(h)).log(),
        "maxlogit": lambda: detector.MaxLogit.score(f),
        "energy": lambda: detector.EnergyBased.score(f, t=2.0),
        "gen": lambda: detector.GEN.score(f, gamma=0.3, M=3) * 3,
        "klmatching": lambda: detector.KLMatching(None).fit_logits(x).predict_logits(f),
        "gradnorm": lambda: detector.GradNorm(
            head, lambda key: key == "weight", temperature=2.0
        ).predict(h),
        "she": lambda: detector.SHE(None, head).fit_features(z, labels).predict_features(h),
        "mahalanobis": lambda: (
            detector.Mahalanobis(None).fit_features(z, labels).predict_features(h) * len(z)
        ),
        "rmds": lambda: detector.RMD(None).fit_features(z, labels).predict_features(h) * len(z),
    }
    return values[name]().detach().numpy()


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_pytorch_ood(name):
    # mild logits: above pytorch-ood's clamp and float32's digits
    train, queries = random_pair(7, sharpness=0.2)
    np.testing.assert_allclose(
        scored(name, train, queries), theirs_of(name, train, queries), rtol=2e-3, atol=1e-5
    )
