"""Slow loops of scores of 2021 to 2025, from their formulas; numpy only for linear algebra."""

import math

import numpy as np


def unit(h):
    length = math.sqrt(math.fsum(x * x for x in h))
    return [x / length for x in h]


def softmax(f):
    top = max(f)
    parts = [math.exp(v - top) for v in f]
    return [part / math.fsum(parts) for part in parts]


def log_sum(f):
    top = max(f)
    return top + math.log(math.fsum(math.exp(v - top) for v in f))


def through_head(train, h):
    return [
        math.fsum(w * x for w, x in zip(row, h)) + b
        for row, b in zip(train.weight.tolist(), train.bias.tolist())
    ]


def floored_inverse(covariance):
    """The inverse in which no direction has less than a millionth of its usual variance: channels
    in units of their deviation, constant ones in that of the others' mean variance.
    """
    variance = np.diag(covariance)
    varies = variance > 1e-20
    unit = np.sqrt(np.where(varies, variance, variance[varies].mean() if varies.any() else 1.0))
    left, values, _ = np.linalg.svd(covariance / np.outer(unit, unit))
    return left @ np.diag(1 / np.maximum(values, 1e-6)) @ left.T / np.outer(unit, unit)


def mahalanobispp_loop(train, h, f):
    z = np.array([unit(row) for row in train.features.tolist()])
    means = {c: z[train.labels == c].mean(axis=0) for c in set(train.labels.tolist())}
    centred = np.array([row - means[c] for row, c in zip(z, train.labels.tolist())])
    inverse = floored_inverse(centred.T @ centred / len(z))
    offsets = [np.array(unit(h)) - mean for mean in means.values()]
    return min(d @ inverse @ d for d in offsets)


def pnml_loop(train, h, f):
    z = [unit(row) for row in train.features.tolist()]
    inverse = np.linalg.pinv(sum(np.outer(row, row) for row in z))
    q = np.array(unit(h)) @ inverse @ np.array(unit(h))
    g = q / (1 + q)
    p = softmax(through_head(train, unit(h)))
    return math.log(math.fsum(x / (x + (1 - x) * x**g) for x in p)) / math.log(len(p))


def neco_loop(train, h, f):
    features = train.features.astype(float)
    mean, sd = features.mean(axis=0), features.std(axis=0)
    x = (features - mean) / np.where(sd == 0, 1, sd)
    directions = np.linalg.svd(x, full_matrices=False)[2][: len(f) - 1]
    x = (np.array(h) - mean) / np.where(sd == 0, 1, sd)
    inside = math.sqrt(sum((v @ x) ** 2 for v in directions))
    return -inside / math.sqrt(sum(x * x)) * max(f)


def lts_loop(train, h, f):
    h = sorted((max(x, 0.0) for x in h), reverse=True)
    s = sum(h) / sum(h[: len(h) - round(len(h) * 0.6)])
    return -log_sum([s * s * v for v in f])


def vra_loop(train, h, f):
    shaped = []
    for x, column in zip(h, train.features.T.tolist()):
        low, high = (np.quantile(column, q) for q in (0.3, 0.8))
        shaped.append(0.0 if x < low else high if x > high else x + 0.25)
    return -log_sum(through_head(train, shaped))


def optfs_loop(train, h, f):
    values = train.features.astype(float).ravel()
    low, high = np.percentile(values, 0.1), np.percentile(values, 99.9)

    def bin_of(x):
        return min(int((x - low) / (high - low) * 100), 99) if low <= x <= high else None

    importance = [0.0] * 100
    for z, logits in zip(train.features.tolist(), train.logits.tolist()):
        row = train.weight.tolist()[logits.index(max(logits))]
        for w, x in zip(row, z):
            if bin_of(x) is not None:
                importance[bin_of(x)] += w * x / len(train)
    length = math.sqrt(sum(v * v for v in importance))
    row = train.weight.tolist()[f.index(max(f))]
    return -sum(
        1000 * importance[bin_of(x)] / length * w * x
        for w, x in zip(row, h)
        if bin_of(x) is not None
    )


def relation_loop(train, h, f):
    p, z, total = softmax(f), unit(h), 0.0
    for other, logits in zip(train.features.tolist(), train.logits.tolist()):
        cosine = sum(a * b for a, b in zip(z, unit(other)))
        k = max(0.0, cosine) * sum(a * b for a, b in zip(p, softmax(logits)))
        total += k**2 if k > 0.03 else 0.0
    return -total


def weiper_heads(train):
    """Five perturbed heads as the score draws them: directions of unit length from seed 0."""
    noise = np.random.default_rng(0).normal(size=(5, *train.weight.shape))
    heads = []
    for directions in noise:
        rows = zip(train.weight.astype(float), directions)
        heads.append([w + 1.8 * np.linalg.norm(w) * u / np.linalg.norm(u) for w, u in rows])
    return heads


def histogram(values, low, high, bins=20):
    counts = [0.0] * bins
    for v in values:
        counts[min(max(int((v - low) / (high - low) * bins), 0), bins - 1)] += 1 / len(values)
    return counts


def averaged(counts, size):
    out = []
    for i in range(len(counts)):
        part = counts[max(i - (size - 1) // 2, 0) : i + size // 2 + 1]
        out.append(sum(part) / len(part))
    return out


def symmetric_kl(a, b, added):
    a, b = [x + added for x in a], [x + added for x in b]
    a, b = [x / sum(a) for x in a], [x / sum(b) for x in b]
    return sum(x * math.log(x / y) + y * math.log(y / x) for x, y in zip(a, b))


def weiper_loop(train, h, f):
    heads, bias = weiper_heads(train), train.bias.astype(float)

    def logits(x):
        return [list(np.array(head) @ np.array(x, dtype=float) + bias) for head in heads]

    features = train.features.tolist()
    many = [[v for t in logits(x) for v in t] for x in features]
    span = (min(map(min, features)), max(map(max, features)))
    span_t = (min(map(min, many)), max(map(max, many)))
    mean = np.mean([histogram(x, *span) for x in features], axis=0)
    mean_t = np.mean([histogram(x, *span_t) for x in many], axis=0)
    own = logits(h)
    q, q_t = histogram(h, *span), histogram([v for t in own for v in t], *span_t)
    confidence = sum(max(softmax(t)) for t in own) / len(own)
    return (
        symmetric_kl(mean, averaged(q, 4), 0.01)
        + 2.5 * symmetric_kl(mean_t, averaged(q_t, 3), 0.025)
        - 0.1 * confidence
    )


SMALL = {
    "mahalanobis++": {},
    "pnml": {},
    "neco": {"maxlogit": 1},
    "lts": {"p": 60},
    "vra": {"q1": 0.3, "q2": 0.8, "lamb": 0.25},
    "optfs": {},
    "relation": {"t": 2},
    "weiper": {"r": 5, "bins": 20, "s2": 3},
}
LOOPS = {
    "mahalanobis++": mahalanobispp_loop,
    "pnml": pnml_loop,
    "neco": neco_loop,
    "lts": lts_loop,
    "vra": vra_loop,
    "optfs": optfs_loop,
    "relation": relation_loop,
    "weiper": weiper_loop,
}
