// Training-mode BatchNorm + ReLU + dropout in one kernel forward, one backward and one for the backward's own gradients, on channels_last memory: rows = N*H*W, channels C.
// fused.py compiles this file for the machine at hand and calls it; T is float or a bfloat16 kept as its 16 bits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

typedef int64_t i64;
typedef uint32_t u32;
struct bf16 { uint16_t bits; };

static inline float read(float v) { return v; }
static inline float read(bf16 v) {
    u32 bits = u32(v.bits) << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline void write(float &to, float v) { to = v; }
static inline void write(bf16 &to, float v) {
    u32 bits;
    memcpy(&bits, &v, 4);
    u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;    // to nearest, ties to even
    to.bits = uint16_t(v != v ? 0x7fc0u : rounded);                // the carry could turn a NaN into a number
}

// Loops run over "lines" of several whole rows, so that they are long where the channels are few; what belongs to a channel is
// repeated along the line.
struct Lines {
    i64 total, width, count;
    Lines(i64 rows, i64 channels) : total(rows * channels), width(channels * std::max<i64>(1, 1024 / channels)), count((total + width - 1) / width) {}
    i64 length(i64 line) const { return std::min(width, total - line * width); }
};

static std::vector<float> repeated(const std::vector<float> &channel, i64 width) {
    std::vector<float> line(width);
    for (i64 i = 0; i < width; i++) line[i] = channel[i % channel.size()];
    return line;
}

// Adds first and second, sums along the line positions, to the double sums of each channel.
static void fold(const std::vector<float> &first, const std::vector<float> &second, i64 channels, double *total) {
    for (size_t i = 0, c = 0; i < first.size(); i++, c = c + 1 == size_t(channels) ? 0 : c + 1) {
        total[c] += first[i];
        total[channels + c] += second[i];
    }
}

static const i64 FOLD_EVERY = 64;    // lines summed in single precision before they are added in double

// Two 32-bit keys and a counter -> 32 random bits; twice the multiply-xorshift finaliser of C. Wellons' hash prospector.
static inline u32 mix(u32 v) {
    v ^= v >> 16; v *= 0x7feb352du;
    v ^= v >> 15; v *= 0x846ca68bu;
    return v ^ (v >> 16);
}

// keep[i] = all ones with chance 1 - threshold / 2^16, else 0, for the values first, first+1, ...: a function of the value's index
// and the key alone, so that the mask does not depend on the number of threads. first must be even.
static void fill_mask(uint16_t *keep, i64 first, i64 count, uint64_t key, u32 threshold) {
    const u32 low = u32(key), high = u32(key >> 32), block = u32(uint64_t(first) >> 33);
    const u32 start = u32(uint64_t(first) >> 1);
    u32 *pairs = (u32 *)keep;
    const i64 half = (count + 1) / 2;
    for (i64 i = 0; i < half; i++) pairs[i] = mix(mix(start + u32(i) + low) ^ (high + block));
    for (i64 i = 0; i < count; i++) keep[i] = keep[i] >= threshold ? 0xffff : 0;
}

template <class T>
static void forward(const T *x, T *y, i64 rows, i64 channels, const float *weight, const float *bias, float *running_mean,
                    float *running_var, float momentum, float eps, float *mean, float *invstd, u32 threshold, uint64_t key, int threads) {
    const Lines lines(rows, channels);
    std::vector<float> shift(channels), scale(channels), offset(channels);
    for (i64 c = 0; c < channels; c++) shift[c] = read(x[c]);    // sums about a value of the channel lose no digits to a large mean
    const std::vector<float> shifts = repeated(shift, lines.width);
    std::vector<double> sums(size_t(threads) * 2 * channels, 0.0);
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const i64 end = lines.count * (t + 1) / threads;
        for (i64 first = lines.count * t / threads; first < end; first += FOLD_EVERY) {
            std::vector<float> sum(lines.width), square(lines.width);
            float *s = sum.data(), *q = square.data();
            const float *o = shifts.data();
            for (i64 line = first; line < std::min(end, first + FOLD_EVERY); line++) {
                const T *in = x + line * lines.width;
                const i64 length = lines.length(line);
                #pragma omp simd
                for (i64 i = 0; i < length; i++) {
                    float v = read(in[i]) - o[i];
                    s[i] += v;
                    q[i] += v * v;
                }
            }
            fold(sum, square, channels, &sums[size_t(t) * 2 * channels]);
        }
    }
    const float kept = 65536.f / float(65536u - threshold);
    for (i64 c = 0; c < channels; c++) {
        double s = 0, q = 0;
        for (int t = 0; t < threads; t++) { s += sums[size_t(t) * 2 * channels + c]; q += sums[size_t(t) * 2 * channels + channels + c]; }
        double m = s / rows, var = q / rows - m * m;
        if (var < 0) var = 0;    // by rounding; a NaN stays
        m += shift[c];
        mean[c] = float(m);
        invstd[c] = float(1 / std::sqrt(var + eps));
        scale[c] = weight[c] * invstd[c] * kept;
        offset[c] = float(bias[c] - m * weight[c] * invstd[c]) * kept;
        if (running_mean) {
            running_mean[c] += momentum * (float(m) - running_mean[c]);
            running_var[c] += momentum * (float(var * rows / (rows - 1)) - running_var[c]);
        }
    }
    const std::vector<float> scales = repeated(scale, lines.width), offsets = repeated(offset, lines.width);
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        std::vector<uint16_t> mask(threshold ? lines.width + 2 : 0);
        const float *a = scales.data(), *b = offsets.data();
        const uint16_t *m = mask.data();
        for (i64 line = lines.count * t / threads; line < lines.count * (t + 1) / threads; line++) {
            const T *in = x + line * lines.width;
            T *out = y + line * lines.width;
            const i64 length = lines.length(line);
            if (threshold) {
                fill_mask(mask.data(), line * lines.width, length, key, threshold);
                #pragma omp simd
                for (i64 i = 0; i < length; i++) {
                    float v = read(in[i]) * a[i] + b[i];
                    v = v < 0 ? 0.f : v;    // not v > 0 ? v : 0, which would hide a NaN
                    write(out[i], m[i] ? v : 0.f);
                }
            } else {
                #pragma omp simd
                for (i64 i = 0; i < length; i++) {
                    float v = read(in[i]) * a[i] + b[i];
                    write(out[i], v < 0 ? 0.f : v);
                }
            }
        }
    }
}

// The output y tells what ReLU and dropout let through, so that the gradient needs no mask.
template <class T>
static void backward(const T *x, const T *y, const T *dy, T *dx, i64 rows, i64 channels, const float *weight, const float *mean,
                     const float *invstd, float *dweight, float *dbias, u32 threshold, int threads) {
    const Lines lines(rows, channels);
    const float kept = 65536.f / float(65536u - threshold);
    const std::vector<float> means = repeated(std::vector<float>(mean, mean + channels), lines.width);
    std::vector<double> sums(size_t(threads) * 2 * channels, 0.0);
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const i64 end = lines.count * (t + 1) / threads;
        for (i64 first = lines.count * t / threads; first < end; first += FOLD_EVERY) {
            std::vector<float> sum(lines.width), product(lines.width);
            float *s = sum.data(), *p = product.data();
            const float *o = means.data();
            for (i64 line = first; line < std::min(end, first + FOLD_EVERY); line++) {
                const T *in = x + line * lines.width, *out = y + line * lines.width, *grad = dy + line * lines.width;
                const i64 length = lines.length(line);
                #pragma omp simd
                for (i64 i = 0; i < length; i++) {
                    float g = read(out[i]) <= 0 ? 0.f : read(grad[i]);
                    s[i] += g;
                    p[i] += g * (read(in[i]) - o[i]);
                }
            }
            fold(sum, product, channels, &sums[size_t(t) * 2 * channels]);
        }
    }
    // dx = a g + b (x - mean) + d with a, b, d of the channel
    std::vector<float> scale(channels), slope(channels), offset(channels);
    for (i64 c = 0; c < channels; c++) {
        double s = 0, p = 0;
        for (int t = 0; t < threads; t++) { s += sums[size_t(t) * 2 * channels + c]; p += sums[size_t(t) * 2 * channels + channels + c]; }
        s *= kept;
        p *= kept;
        dbias[c] = float(s);
        dweight[c] = float(p * invstd[c]);
        const double a = double(weight[c]) * invstd[c];
        scale[c] = float(a * kept);
        slope[c] = float(-a * p * invstd[c] * invstd[c] / rows);
        offset[c] = float(-a * s / rows);
    }
    const std::vector<float> scales = repeated(scale, lines.width), slopes = repeated(slope, lines.width), offsets = repeated(offset, lines.width);
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const float *a = scales.data(), *b = slopes.data(), *d = offsets.data(), *o = means.data();
        for (i64 line = lines.count * t / threads; line < lines.count * (t + 1) / threads; line++) {
            const T *in = x + line * lines.width, *out = y + line * lines.width, *grad = dy + line * lines.width;
            T *to = dx + line * lines.width;
            const i64 length = lines.length(line);
            #pragma omp simd
            for (i64 i = 0; i < length; i++) {
                float g = read(out[i]) <= 0 ? 0.f : read(grad[i]);
                write(to[i], a[i] * g + b[i] * (read(in[i]) - o[i]) + d[i]);
            }
        }
    }
}

// The gradients of backward: of v . dx + p . dweight + q . dbias by dy (into ddy), by x (into ddx) and by weight, for a v of dx's shape
// and p, q a value a channel. With m = 1[y > 0] kept, g = m dy, z = (x - mean) invstd and means over the rows
//     a = mean(v z), b = mean(g z), s = mean(v g) - mean(v) mean(g), A = weight invstd:
//     ddy = m (A (v - mean(v) - a z) + p z + q)
//     ddx = A invstd (z (3 a b - s) - b (v - mean(v)) - a (g - mean(g))) + p invstd (g - mean(g) - b z)
//     ddweight = rows invstd (s - a b)
template <class T>
static void second(const T *x, const T *y, const T *dy, const T *v, T *ddy, T *ddx, i64 rows, i64 channels, const float *weight,
                   const float *mean, const float *invstd, const float *p, const float *q, float *ddweight, u32 threshold, int threads) {
    const Lines lines(rows, channels);
    const float kept = 65536.f / float(65536u - threshold);
    const std::vector<float> means = repeated(std::vector<float>(mean, mean + channels), lines.width);
    const i64 all = 6 * channels;    // sums of v, g, v g, v (x - mean), g (x - mean), and nothing
    std::vector<double> sums(size_t(threads) * all, 0.0);
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const i64 end = lines.count * (t + 1) / threads;
        for (i64 first = lines.count * t / threads; first < end; first += FOLD_EVERY) {
            std::vector<float> vs(lines.width), gs(lines.width), vgs(lines.width), vxs(lines.width), gxs(lines.width), none(lines.width);
            float *sv = vs.data(), *sg = gs.data(), *svg = vgs.data(), *svx = vxs.data(), *sgx = gxs.data();
            const float *o = means.data();
            for (i64 line = first; line < std::min(end, first + FOLD_EVERY); line++) {
                const i64 at = line * lines.width, length = lines.length(line);
                const T *in = x + at, *out = y + at, *grad = dy + at, *other = v + at;
                #pragma omp simd
                for (i64 i = 0; i < length; i++) {
                    float g = read(out[i]) <= 0 ? 0.f : read(grad[i]);
                    float w = read(other[i]), c = read(in[i]) - o[i];
                    sv[i] += w;
                    sg[i] += g;
                    svg[i] += w * g;
                    svx[i] += w * c;
                    sgx[i] += g * c;
                }
            }
            double *to = &sums[size_t(t) * all];
            fold(vs, gs, channels, to);
            fold(vgs, vxs, channels, to + 2 * channels);
            fold(gxs, none, channels, to + 4 * channels);
        }
    }
    // ddx = e v + f g + h (x - mean) + k and ddy = m (A v + r (x - mean) + u), each with values of the channel
    std::vector<float> scale(channels), slope(channels), offset(channels), by_v(channels), by_g(channels), by_x(channels), rest(channels);
    for (i64 c = 0; c < channels; c++) {
        double mean_of[5] = {0, 0, 0, 0, 0};
        for (int t = 0; t < threads; t++)
            for (int k = 0; k < 5; k++) mean_of[k] += sums[size_t(t) * all + k * channels + c] / rows;
        const double i = invstd[c], A = weight[c] * i, mv = mean_of[0], mg = mean_of[1] * kept;
        const double a = mean_of[3] * i, b = mean_of[4] * i * kept, s = mean_of[2] * kept - mv * mg;
        scale[c] = float(A * kept);
        slope[c] = float((p[c] - A * a) * i * kept);
        offset[c] = float((q[c] - A * mv) * kept);
        by_v[c] = float(-A * i * b);
        by_g[c] = float((p[c] - A * a) * i * kept);
        by_x[c] = float((A * (3 * a * b - s) - p[c] * b) * i * i);
        rest[c] = float(A * i * (b * mv + a * mg) - p[c] * i * mg);
        ddweight[c] = float(rows * i * (s - a * b));
    }
    const i64 width = lines.width;
    const std::vector<float> scales = repeated(scale, width), slopes = repeated(slope, width), offsets = repeated(offset, width);
    const std::vector<float> vs = repeated(by_v, width), gs = repeated(by_g, width), xs = repeated(by_x, width), rests = repeated(rest, width);
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const float *A = scales.data(), *r = slopes.data(), *u = offsets.data(), *o = means.data();
        const float *e = vs.data(), *f = gs.data(), *h = xs.data(), *k = rests.data();
        for (i64 line = lines.count * t / threads; line < lines.count * (t + 1) / threads; line++) {
            const i64 at = line * width, length = lines.length(line);
            const T *in = x + at, *out = y + at, *grad = dy + at, *other = v + at;
            T *first = ddy + at, *to = ddx + at;
            #pragma omp simd
            for (i64 i = 0; i < length; i++) {
                float on = read(out[i]) <= 0 ? 0.f : 1.f;
                float g = read(out[i]) <= 0 ? 0.f : read(grad[i]);
                float w = read(other[i]), c = read(in[i]) - o[i];
                write(first[i], on * (A[i] * w + r[i] * c + u[i]));
                write(to[i], e[i] * w + f[i] * g + h[i] * c + k[i]);
            }
        }
    }
}

// y = x * scale + shift by channel, and ReLU: a BatchNorm of running statistics that no convolution can take over.
template <class T>
static void affine(const T *x, T *y, i64 rows, i64 channels, const float *scale, const float *shift, int relu, int threads) {
    const Lines lines(rows, channels);
    const std::vector<float> scales = repeated(std::vector<float>(scale, scale + channels), lines.width);
    const std::vector<float> shifts = repeated(std::vector<float>(shift, shift + channels), lines.width);
    const float least = relu ? 0.f : -INFINITY;
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const float *a = scales.data(), *b = shifts.data();
        for (i64 line = lines.count * t / threads; line < lines.count * (t + 1) / threads; line++) {
            const T *in = x + line * lines.width;
            T *out = y + line * lines.width;
            const i64 length = lines.length(line);
            #pragma omp simd
            for (i64 i = 0; i < length; i++) {
                float v = read(in[i]) * a[i] + b[i];
                write(out[i], v < least ? least : v);
            }
        }
    }
}

// y = x + y, and ReLU.
template <class T>
static void sum(const T *x, T *y, i64 count, int relu, int threads) {
    const float least = relu ? 0.f : -INFINITY;
    #pragma omp parallel for simd num_threads(threads) schedule(static)
    for (i64 i = 0; i < count; i++) {
        float v = read(x[i]) + read(y[i]);
        write(y[i], v < least ? least : v);
    }
}

// trunk = shortcut + x in single precision, kept where there is a trunk to keep it in, and y = trunk * scale + shift by channel, and
// ReLU: a block's sum and the BatchNorm that the next block begins with.
template <class T>
static void step(const bf16 *x, const T *shortcut, float *trunk, bf16 *y, i64 rows, i64 channels, const float *scale,
                 const float *shift, int relu, int threads) {
    const Lines lines(rows, channels);
    const std::vector<float> scales = repeated(std::vector<float>(scale, scale + channels), lines.width);
    const std::vector<float> shifts = repeated(std::vector<float>(shift, shift + channels), lines.width);
    const float least = relu ? 0.f : -INFINITY;
    #pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        const float *a = scales.data(), *b = shifts.data();
        std::vector<float> unread(lines.width);
        for (i64 line = lines.count * t / threads; line < lines.count * (t + 1) / threads; line++) {
            const bf16 *in = x + line * lines.width;
            const T *before = shortcut + line * lines.width;
            float *sum = trunk ? trunk + line * lines.width : unread.data();
            bf16 *out = y + line * lines.width;
            const i64 length = lines.length(line);
            #pragma omp simd
            for (i64 i = 0; i < length; i++) {
                float total = read(before[i]) + read(in[i]), v = total * a[i] + b[i];
                sum[i] = total;
                write(out[i], v < least ? least : v);
            }
        }
    }
}

#define EXPORT(T, NAME)                                                                                                                 \
    extern "C" void forward_##NAME(const T *x, T *y, i64 rows, i64 channels, const float *weight, const float *bias, float *running_mean, \
                                   float *running_var, float momentum, float eps, float *mean, float *invstd, u32 threshold,            \
                                   uint64_t key, int threads) {                                                                         \
        forward<T>(x, y, rows, channels, weight, bias, running_mean, running_var, momentum, eps, mean, invstd, threshold, key, threads); \
    }                                                                                                                                   \
    extern "C" void backward_##NAME(const T *x, const T *y, const T *dy, T *dx, i64 rows, i64 channels, const float *weight,            \
                                    const float *mean, const float *invstd, float *dweight, float *dbias, u32 threshold, int threads) { \
        backward<T>(x, y, dy, dx, rows, channels, weight, mean, invstd, dweight, dbias, threshold, threads);                            \
    }                                                                                                                                   \
    extern "C" void second_##NAME(const T *x, const T *y, const T *dy, const T *v, T *ddy, T *ddx, i64 rows, i64 channels,               \
                                  const float *weight, const float *mean, const float *invstd, const float *p, const float *q,          \
                                  float *ddweight, u32 threshold, int threads) {                                                        \
        second<T>(x, y, dy, v, ddy, ddx, rows, channels, weight, mean, invstd, p, q, ddweight, threshold, threads);                     \
    }                                                                                                                                   \
    extern "C" void affine_##NAME(const T *x, T *y, i64 rows, i64 channels, const float *scale, const float *shift, int relu, int threads) { \
        affine<T>(x, y, rows, channels, scale, shift, relu, threads);                                                                   \
    }                                                                                                                                   \
    extern "C" void step_##NAME(const bf16 *x, const T *shortcut, float *trunk, bf16 *y, i64 rows, i64 channels, const float *scale,     \
                                const float *shift, int relu, int threads) {                                                          \
        step<T>(x, shortcut, trunk, y, rows, channels, scale, shift, relu, threads);                                                  \
    }                                                                                                                                 \
    extern "C" void sum_##NAME(const T *x, T *y, i64 count, int relu, int threads) { sum<T>(x, y, count, relu, threads); }
EXPORT(float, float32)
EXPORT(bf16, bfloat16)
