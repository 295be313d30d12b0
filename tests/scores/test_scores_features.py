"""Feature-based scores against slow loops, identities, pytorch-ood and degenerate input."""

import math
import tracemalloc

import newer_loops
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from utils.scores import SCORES, Outputs, format_list
from utils.scores.exact import blocks, nearest
from utils.scores.exact.quantile import percentile_of

SMALL = {
    **newer_loops.SMALL,
    "knn": {"k": 7},
    "nnguide": {"k": 5},
    "vim": {"D": 5},
    "residual": {"D": 5},
    "nci": {"alpha": 0.01},
    "dice": {"p": 70},
    "dice+react": {"p": 60, "clip_p": 80},
    "react": {"p": 85},
    "ash-p": {"p": 60},
    "ash-b": {"p": 60},
    "ash-s": {"p": 60},
    "scale": {"p": 60},
    "fdbd": {},
    "cadref": {},
}


def outputs_of(features, weight, bias, labels=None):
    features = np.asarray(features, dtype=np.float32)
    return Outputs((features @ weight.T + bias).astype(np.float32), features, labels, weight, bias)


def random_pair(seed=0, width=12, classes=4, signed=False):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(classes, width)).astype(np.float32)
    bias = (1 + rng.normal(size=classes)).astype(np.float32)
    features = (
        rng.normal(size=(150, width))
        + rng.normal(size=(classes, width))[rng.integers(classes, size=150)]
    )
    features = features if signed else np.maximum(features, 0)
    labels = rng.integers(classes, size=120)
    return outputs_of(features[:120], weight, bias, labels), outputs_of(
        features[120:], weight, bias
    )


def digits_pair():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    head = LogisticRegression(max_iter=300).fit(images[:400], labels[:400])
    weight, bias = head.coef_.astype(np.float32), head.intercept_.astype(np.float32)
    noise = np.random.default_rng(0).uniform(size=(10, 64))
    return outputs_of(images[:400], weight, bias, labels[:400]), outputs_of(
        [*images[400:430], *noise], weight, bias
    )


PAIRS = {"random": random_pair(), "signed": random_pair(1, signed=True), "digits": digits_pair()}
# no zeros, so no ties for ASH's cut
PAIRS["positive"] = tuple(
    outputs_of(abs(part.features) + 0.01, part.weight, part.bias, part.labels)
    for part in PAIRS["signed"]
)


def scored(name, train, queries, **chosen):
    return SCORES[name](**{**SMALL[name], **chosen}).fit(train).score(queries)


# ---- slow loops, from the formulas ----


def log_sum(logits):
    top = max(logits)
    return top + math.log(math.fsum(math.exp(v - top) for v in logits))


def energy_loop(h, weight, bias):
    return -log_sum([math.fsum(w * x for w, x in zip(row, h)) + b for row, b in zip(weight, bias)])


def percentile_loop(values, p):
    values = sorted(values)
    position = (len(values) - 1) * p / 100
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])


def unit(h):
    length = math.sqrt(math.fsum(x * x for x in h))
    return [x / length for x in h]


def mean_loop(rows):
    return [math.fsum(column) / len(rows) for column in zip(*rows)]


def masked_weight(train, p):
    mean = mean_loop(train.features.tolist())
    weight = train.weight.tolist()
    cut = percentile_loop([w * m for row in weight for w, m in zip(row, mean)], p)
    return [[w if w * m > cut else 0.0 for w, m in zip(row, mean)] for row in weight]


def react_loop(train, h, logits):
    c = percentile_loop(train.features.ravel().tolist(), 85)
    return energy_loop([min(x, c) for x in h], train.weight.tolist(), train.bias.tolist())


def dice_loop(train, h, logits):
    return energy_loop(h, masked_weight(train, 70), train.bias.tolist())


def dice_react_loop(train, h, logits):
    c = percentile_loop(train.features.ravel().tolist(), 80)
    return energy_loop([min(x, c) for x in h], masked_weight(train, 60), train.bias.tolist())


def knn_loop(train, h, logits):
    return sorted(math.dist(unit(h), unit(z)) for z in train.features.tolist())[6]


def nnguide_loop(train, h, logits):
    h = unit(h)
    similar = sorted(
        log_sum(f) * sum(a * b for a, b in zip(h, unit(z)))
        for z, f in zip(train.features.tolist(), train.logits.tolist())
    )
    return -log_sum(logits) * sum(similar[-5:]) / 5


def residual_loops(train, rows):
    u = -np.linalg.lstsq(train.weight.astype(float), train.bias.astype(float), rcond=None)[0]
    main = np.linalg.svd(train.features - u, full_matrices=False)[2][:5]
    norms = []
    for h in rows:
        left = np.array(h) - u
        for direction in main:
            left = left - (left @ direction) * direction
        norms.append(math.sqrt(sum(x * x for x in left)))
    return norms


def residual_loop(train, h, logits):
    return residual_loops(train, [h])[0]


def vim_loop(train, h, logits):
    residuals = residual_loops(train, train.features.tolist())
    alpha = sum(max(f) for f in train.logits.tolist()) / sum(residuals)
    return alpha * residual_loops(train, [h])[0] - log_sum(logits)


def shaped_loop(train, h, variant):
    k = len(h) - round(len(h) * 0.6)
    kept = sorted(range(len(h)), key=lambda j: -h[j])[:k]
    before, after = math.fsum(h), math.fsum(h[j] for j in kept)
    factor = math.exp(before / after) if after > 0 else math.e
    shaped = {
        "p": [x if j in kept else 0.0 for j, x in enumerate(h)],
        "b": [before / k if j in kept else 0.0 for j in range(len(h))],
        "s": [x * factor if j in kept else 0.0 for j, x in enumerate(h)],
        "scale": [x * factor for x in h],
    }[variant]
    return energy_loop(shaped, train.weight.tolist(), train.bias.tolist())


def fdbd_loop(train, h, logits):
    y = logits.index(max(logits))
    weight = train.weight.tolist()
    total = sum(
        (logits[y] - logits[c]) / math.dist(weight[y], weight[c])
        for c in range(len(logits))
        if c != y
    )
    return -total / (len(logits) - 1) / math.dist(h, mean_loop(train.features.tolist()))


def nci_loop(train, h, logits):
    centred = [x - m for x, m in zip(h, mean_loop(train.features.tolist()))]
    w = train.weight.tolist()[logits.index(max(logits))]
    return -sum(a * b for a, b in zip(centred, w)) / math.hypot(*centred) - 0.01 * sum(
        abs(x) for x in h
    )


def cadref_loop(train, h, logits):
    y = logits.index(max(logits))
    mean = mean_loop(
        [z for z, f in zip(train.features.tolist(), train.logits.tolist()) if f.index(max(f)) == y]
    )
    positive = negative = 0.0
    for x, m, w in zip(h, mean, train.weight.tolist()[y]):
        if (x - m) * w > 0:
            positive += abs(x - m)
        elif w:
            negative += abs(x - m)
    mean_log_sum = sum(log_sum(f) for f in train.logits.tolist()) / len(train)
    return (positive / log_sum(logits) + negative / mean_log_sum) / sum(abs(x) for x in h)


LOOPS = {
    **newer_loops.LOOPS,
    "react": react_loop,
    "dice": dice_loop,
    "dice+react": dice_react_loop,
    "knn": knn_loop,
    "vim": vim_loop,
    "residual": residual_loop,
    "nnguide": nnguide_loop,
    "fdbd": fdbd_loop,
    "nci": nci_loop,
    "cadref": cadref_loop,
    "ash-p": lambda t, h, f: shaped_loop(t, h, "p"),
    "ash-b": lambda t, h, f: shaped_loop(t, h, "b"),
    "ash-s": lambda t, h, f: shaped_loop(t, h, "s"),
    "scale": lambda t, h, f: shaped_loop(t, h, "scale"),
}
NAMES = sorted(LOOPS)


@pytest.mark.parametrize("pair", ["random", "digits"])
@pytest.mark.parametrize("name", NAMES)
def test_score_equals_slow_loop(name, pair):
    train, queries = PAIRS[pair]
    queries = queries.take(np.arange(0, len(queries), 3))
    slow = [
        LOOPS[name](train, h, f) for h, f in zip(queries.features.tolist(), queries.logits.tolist())
    ]
    fast = scored(name, train, queries)
    assert fast.dtype == np.float64
    np.testing.assert_allclose(fast, slow, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["ash-p", "ash-b", "ash-s", "scale", "react", "dice", "nci", "knn", "residual"]
)
def test_features_that_can_be_negative(name):
    train, queries = PAIRS["signed"]
    slow = [
        LOOPS[name](train, h, f) for h, f in zip(queries.features.tolist(), queries.logits.tolist())
    ]
    np.testing.assert_allclose(scored(name, train, queries), slow, rtol=1e-6)


@pytest.mark.parametrize(
    "name,chosen",
    [
        ("react", {"c": math.inf}),
        ("react", {"p": 100}),
        ("dice", {"p": 0}),
        ("dice+react", {"p": 0, "c": math.inf}),
        ("ash-p", {"p": 0}),
    ],
)
def test_neutral_hyper_parameter_gives_the_energy(name, chosen):
    train, _ = PAIRS["digits"]
    energy = [
        energy_loop(h, train.weight.tolist(), train.bias.tolist())
        for h in train.features[:40].tolist()
    ]
    np.testing.assert_allclose(
        scored(name, train, train.take(slice(40)), **chosen), energy, rtol=1e-12
    )


def test_identities_between_scores():
    train, queries = PAIRS["digits"]
    np.testing.assert_allclose(
        scored("ash-s", train, queries, p=0), scored("scale", train, queries, p=0), rtol=1e-12
    )
    np.testing.assert_allclose(
        scored("dice+react", train, queries, c=math.inf, p=70),
        scored("dice", train, queries),
        rtol=1e-12,
    )
    vim = SCORES["vim"](D=5).fit(train)
    energy = SCORES["energy"]().score(queries)
    residual = scored("residual", train, queries)
    np.testing.assert_allclose(
        vim.score(queries) - energy, vim.stats["alpha"] * residual, rtol=1e-9
    )
    doubled = outputs_of(2 * queries.features, queries.weight, queries.bias)
    np.testing.assert_allclose(
        scored("knn", train, doubled), scored("knn", train, queries), rtol=1e-12
    )


@pytest.mark.parametrize("name", NAMES)
def test_larger_means_more_ood(name):
    rng = np.random.default_rng(0)
    weight = np.repeat(np.eye(4, 5), 3, axis=1).astype(np.float32)
    bias = np.zeros(4, dtype=np.float32)
    inside = 5 * weight[rng.integers(4, size=300)] + rng.normal(scale=0.3, size=(300, 15))
    outside = np.array([0.0] * 12 + [2.0] * 3) + rng.normal(scale=0.3, size=(100, 15))
    train, near = (
        outputs_of(np.maximum(part, 0), weight, bias, (part @ weight.T).argmax(axis=1))
        for part in (inside[:200], inside[200:])
    )
    far = outputs_of(np.maximum(outside, 0), weight, bias)
    score = SCORES[name](**SMALL[name]).fit(train)
    assert np.mean(score.score(far)[:, None] > score.score(near)) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_blocks_do_not_change_the_score(name, monkeypatch):
    train, queries = PAIRS["digits"]
    whole = scored(name, train, queries)
    for module, size, value in [
        (blocks, "ROWS", 7),
        (nearest, "QUERIES", 9),
        (nearest, "BANK_ROWS", 30),
        (nearest, "GATHERED", 1),
    ]:
        monkeypatch.setattr(module, size, value)
    np.testing.assert_allclose(scored(name, train, queries), whole, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_saved_stats_score_without_fit(name, tmp_path):
    train, queries = PAIRS["digits"]
    fitted = SCORES[name](**SMALL[name]).fit(train)
    np.savez(tmp_path / "stats.npz", **fitted.stats)
    loaded = SCORES[name](**SMALL[name])
    with np.load(tmp_path / "stats.npz", allow_pickle=False) as stats:
        loaded.stats = dict(stats)
    np.testing.assert_array_equal(loaded.score(queries), fitted.score(queries))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_memory_map_as_training_features(name, tmp_path):
    train, queries = PAIRS["digits"]  # pixels k/16 are exact in float16
    stored = np.memmap(
        tmp_path / "features", dtype=np.float16, mode="w+", shape=train.features.shape
    )
    stored[:] = train.features
    half = Outputs(train.logits, stored, train.labels, train.weight, train.bias)
    np.testing.assert_allclose(scored(name, half, queries), scored(name, train, queries), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5])
@pytest.mark.parametrize("name", NAMES)
def test_constant_features_give_finite_scores(name, value):
    queries = PAIRS["random"][0].take(slice(30))
    constant = outputs_of(
        np.full((20, 12), value), queries.weight, queries.bias, np.zeros(20, dtype=np.int64)
    )
    with np.errstate(all="raise", under="ignore"):
        score = SCORES[name](**SMALL[name]).fit(constant)
        assert np.isfinite(score.score(constant)).all()
        assert np.isfinite(score.score(queries)).all()
        assert np.isfinite(SCORES[name](**SMALL[name]).fit(queries).score(constant)).all()


def test_rounding_in_a_mean_is_no_deviation():
    """The mean of many equal float64 values is not that value exactly."""
    train, queries = (part.take(np.tile(np.arange(len(part)), 40)) for part in PAIRS["random"])
    found = []
    for value in (0.0, 1e6 / 3):
        one, other = (
            Outputs(part.logits, np.column_stack([part.features.astype(float), channel]))
            for part, channel in (
                (train, np.full(len(train), value)),
                (queries, np.full(len(queries), value + 7)),
            )
        )
        found.append(SCORES["neco"]().fit(one).score(other))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_one_image(name):
    train, queries = PAIRS["random"]
    np.testing.assert_allclose(
        scored(name, train, queries.take(slice(1))), scored(name, train, queries)[:1], rtol=1e-9
    )
    alone = SCORES[name](**{**SMALL[name], **({"k": 1} if "k" in SMALL[name] else {})}).fit(
        train.take(slice(1))
    )
    assert np.isfinite(alone.score(queries)).all()


@pytest.mark.parametrize("name", NAMES)
def test_class_without_training_image(name):
    train, queries = PAIRS["digits"]
    absent = queries.logits[0].argmax()
    rest = train.take(
        np.flatnonzero((train.logits.argmax(axis=1) != absent) & (train.labels != absent))
    )
    assert 0 < len(rest) < len(train)
    assert np.isfinite(scored(name, rest, queries)).all()


def test_vim_of_rank_deficient_features():
    train, queries = PAIRS["random"]
    dead = train.features.copy()
    dead[:, 3:] = 0
    flat = outputs_of(dead, train.weight, np.zeros_like(train.bias))  # u = 0: rank 3 < D = 5
    vim = SCORES["vim"](D=5).fit(flat)
    assert vim.stats["alpha"] == 0
    np.testing.assert_allclose(vim.score(queries), SCORES["energy"]().score(queries))
    assert (scored("residual", flat, queries) > 1e-3).all()


@pytest.mark.parametrize("scale", [2.0**-13, 2.0**-26, 2.0**-34])
def test_vim_of_features_far_shorter_than_the_origin(scale):
    train, queries = (
        outputs_of(scale * part.features, part.weight, part.bias) for part in PAIRS["random"]
    )
    vim = SCORES["vim"](D=5).fit(train)
    residuals = residual_loops(train, queries.features.tolist())
    # h - u is rounded to eps ||u||, up to 1e-5 of ||h||, however small the residual that is left of
    # it; and ViM's score is a difference that may vanish while its virtual logit does not:
    # 1e-4 of the largest, of either
    np.testing.assert_allclose(
        SCORES["residual"](D=5).fit(train).score(queries),
        residuals,
        rtol=0,
        atol=1e-4 * max(residuals),
    )
    images = list(zip(queries.features[:9].tolist(), queries.logits[:9].tolist()))
    slow = [vim_loop(train, h, f) for h, f in images]
    virtual = max(score + log_sum(f) for score, (_, f) in zip(slow, images))
    np.testing.assert_allclose(vim.score(queries)[:9], slow, rtol=0, atol=1e-4 * virtual)
    # the residual does count
    assert (vim.score(queries) - SCORES["energy"]().score(queries)).max() > 1


@pytest.mark.parametrize("name", ["vim", "residual"])
@pytest.mark.parametrize("dataset", [None, "imagenet"])
def test_default_dimension_leaves_a_residual(name, dataset):
    for pair in ("random", "digits"):
        train, queries = PAIRS[pair]
        assert (
            SCORES[name](dataset).fit(train).score(queries) != SCORES["energy"]().score(queries)
        ).all()


@pytest.mark.parametrize("name", ["knn", "nnguide"])
# 2**-140 is subnormal in float32
@pytest.mark.parametrize("scale", [2.0**-44, 2.0**-110, 2.0**-140])
def test_cosine_does_not_see_the_length(name, scale):
    train, queries = (
        outputs_of(np.round(64 * part.features), part.weight, part.bias) for part in PAIRS["digits"]
    )
    short = [Outputs(part.logits, scale * part.features) for part in (train, queries)]
    np.testing.assert_allclose(scored(name, *short), scored(name, train, queries), rtol=1e-9)


@pytest.mark.parametrize("name,chosen", [("react", {}), ("dice+react", {"p": 0})])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_clip_value_is_not_rounded(name, chosen, dtype):
    train, _ = PAIRS["random"]
    c = 0.3  # no float16 or float32
    queries = Outputs(
        train.logits[:2], np.full((2, 12), 5.0, dtype), None, train.weight, train.bias
    )
    energy = energy_loop([c] * 12, train.weight.tolist(), train.bias.tolist())
    np.testing.assert_allclose(scored(name, train, queries, c=c, **chosen), energy, rtol=1e-13)


@pytest.mark.parametrize("width,D", [(2048, 512), (768, 512), (512, 256), (128, 64)])
def test_principal_dimension_rule(width, D):
    from utils.scores.exact.subspace import principal_dimension

    assert principal_dimension(width, 0) == D
    assert principal_dimension(width, 7) == 7


@pytest.mark.parametrize(
    "name,chosen,words",
    [
        ("vim", {"D": 13}, ("13", "12")),
        ("residual", {"D": 40}, ("40", "12")),
        ("knn", {"k": 121}, ("121", "120")),
        ("nnguide", {"k": 500}, ("500",)),
        ("knn", {"k": 7, "sample": 0.05}, ("7", "6")),
    ],
)
def test_fit_names_both_numbers(name, chosen, words):
    with pytest.raises(ValueError) as error:
        scored(name, PAIRS["random"][0], PAIRS["random"][1], **chosen)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "name,chosen",
    [
        ("react", {"p": 101}),
        ("react", {"c": -1}),
        ("dice", {"p": -1}),
        ("knn", {"k": 0}),
        ("dice+react", {"clip_p": 101}),
        ("dice+react", {"c": -1}),
        ("ash-s", {"p": 100}),
        ("scale", {"p": -1}),
        ("ash-p", {"p": -2}),
        ("vim", {"D": -1}),
        ("residual", {"D": -1}),
        ("nci", {"alpha": -1}),
        ("knn", {"bank": "int8"}),
        ("nnguide", {"sample": 0}),
    ],
)
def test_hyper_parameter_out_of_range(name, chosen):
    with pytest.raises(ValueError, match=f"score '{name}'".replace("+", r"\+")):
        SCORES[name](**chosen)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("p", [0, 12.5, 50, 90, 99.9, 100])
def test_percentile_is_numpys(p, dtype, monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 11)
    features = np.random.default_rng(0).normal(size=(101, 7)).astype(dtype)
    features[::5] = 0
    assert percentile_of(features, p) == pytest.approx(
        np.percentile(features.astype(np.float64), p), rel=1e-12
    )


def test_percentile_copies_no_features(monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 16)
    features = np.random.default_rng(0).random((8000, 256), dtype=np.float32)
    tracemalloc.start()
    percentile_of(features, 90)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < features.nbytes / 2


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
def test_knn_tells_near_duplicates_apart(spread):
    rng = np.random.default_rng(0)
    bank = 1 + spread * rng.normal(size=(400, 16))
    train, queries = (
        outputs_of(part, np.eye(16, dtype=np.float32), np.zeros(16, np.float32))
        for part in (bank, 1 + 2 * spread * rng.normal(size=(5, 16)))
    )
    slow = [
        sorted(math.dist(unit(h), unit(z)) for z in train.features.tolist())[99]
        for h in queries.features.tolist()
    ]
    np.testing.assert_allclose(scored("knn", train, queries, k=100), slow, rtol=1e-6, atol=1e-15)


def test_knn_of_zero_vectors():
    rows = [[0, 0], [0, 0], [1, 0], [0, 2]]
    train = outputs_of(rows, np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    np.testing.assert_allclose(scored("knn", train, train, k=2), [0, 0, 1, 1])
    np.testing.assert_allclose(scored("knn", train, train, k=4), [1, 1, math.sqrt(2), math.sqrt(2)])


@pytest.mark.parametrize("name", ["knn", "nnguide"])
def test_bank_options(name):
    train, queries = PAIRS["digits"]
    exact = SCORES[name](**SMALL[name]).fit(train)
    assert np.shares_memory(exact.stats["bank"], train.features)
    half = SCORES[name](**SMALL[name], bank="fp16").fit(train)
    assert half.stats["bank"].dtype == np.float16
    assert half.stats["bank"].nbytes == train.features.nbytes // 2
    np.testing.assert_allclose(half.score(queries), exact.score(queries), rtol=5e-3)
    part = SCORES[name](**SMALL[name], sample=0.25).fit(train)
    assert len(part.stats["bank"]) == 100
    rows = [np.flatnonzero((train.features == row).all(axis=1))[0] for row in part.stats["bank"]]
    np.testing.assert_array_equal(
        part.score(queries), SCORES[name](**SMALL[name]).fit(train.take(rows)).score(queries)
    )


def test_imagenet_defaults():
    assert SCORES["react"]("imagenet").hyper == {"p": 90.0, "c": 1.0}
    assert SCORES["dice"]("imagenet").p == 70
    assert (SCORES["dice+react"]("imagenet").p, SCORES["dice+react"]("imagenet").c) == (10, 1)
    assert SCORES["knn"]("imagenet").k == 1000


def test_a_chosen_percentile_is_not_overruled_by_a_data_sets_clip_value():
    for name, percentile in (("react", "p"), ("dice+react", "clip_p")):
        chosen = SCORES[name]("imagenet", **{percentile: 95})
        assert chosen.c == 0 and chosen.label == f"{name}:{percentile}=95,c=0".replace(
            "clip_p=95,c=0", "c=0,clip_p=95"
        )
        assert SCORES[name]("imagenet", **{percentile: 95, "c": 2}).c == 2
        assert SCORES[name]("cifar10", **{percentile: 95}).label == f"{name}:{percentile}=95"
    assert SCORES["react"]("cifar100").c == 0


@pytest.mark.parametrize("name", ["ash-p", "ash-b", "ash-s", "lts"])
@pytest.mark.parametrize("width,p", [(340, 95), (40, 57.5), (12, 0)])
def test_the_default_keeps_as_many_channels_as_the_paper_whatever_the_width(name, width, p):
    """95 % of 340 leave 17; of 40 it is 57.5 %; a narrower network keeps all."""
    train, queries = random_pair(width=width)
    default = SCORES[name]("cifar10").fit(train).score(queries)
    np.testing.assert_array_equal(default, SCORES[name](p=p).fit(train).score(queries))
    other = SCORES[name](p=min(p + 60, 99)).fit(train).score(queries)
    assert not np.allclose(default, other)
    assert SCORES[name](p=95).label == f"{name}:p=95"


def test_the_table_says_what_a_default_stands_for():
    listed = format_list()
    assert listed.count("the 17 largest channels kept: p 86.7 at width 128; paper: 95 at 342") == 4


def pytorch_ood_scores(name, train, queries):
    torch = pytest.importorskip("torch")
    detector = pytest.importorskip("pytorch_ood.detector")
    weight, bias, labels = (
        torch.from_numpy(np.asarray(a)) for a in (train.weight, train.bias, train.labels)
    )
    h, x = torch.from_numpy(train.features), torch.from_numpy(queries.features)
    head = torch.nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    flat = torch.nn.Sequential(torch.nn.Flatten(), head)
    if name == "react":
        found = detector.ReAct(None, flat, percentile=0.85).fit_feature_maps(
            h[..., None, None], labels
        )
    elif name == "scale":
        found = detector.SCALE(None, flat, percentile=0.6)
    elif name.startswith("ash"):
        found = detector.ASH(None, flat, variant=name, percentile=0.6)
    else:
        made = {
            "dice": lambda: detector.DICE(None, weight, bias, p=0.7),
            "knn": lambda: detector.KNN(None, k=7),
            "vim": lambda: detector.ViM(None, 5, weight, bias),
            "fdbd": lambda: detector.fDBD(None, head),
            "nci": lambda: detector.NCI(None, head, alpha=0.01),
            "nnguide": lambda: detector.NNGuide(None, head, k=5),
        }
        return made[name]().fit_features(h, labels).predict_features(x).numpy()
    return found.predict_feature_maps(x[..., None, None]).numpy()


@pytest.mark.parametrize(
    "name",
    ["react", "dice", "knn", "vim", "fdbd", "nci", "nnguide", "scale", "ash-p", "ash-b", "ash-s"],
)
def test_agrees_with_pytorch_ood(name):
    train, queries = PAIRS["positive"]
    # the library computes in float32
    np.testing.assert_allclose(
        scored(name, train, queries), pytorch_ood_scores(name, train, queries), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_record_is_complete(name):
    score = SCORES[name]()
    assert score.name == name
    assert score.formula and "\n" not in score.formula
    assert score.needs and all(score.paper)
    assert set(score.grid) <= set(score.defaults)
    for key, values in score.grid.items():
        assert all(SCORES[name](**{key: value}).hyper[key] == value for value in values)
