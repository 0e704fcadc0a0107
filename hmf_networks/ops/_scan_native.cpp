// The selective scan on a CPU, forward and backward; `_scan_reference.py` is the definition.
//
// Compiled once for each instruction set (`_scan_native_build.py`): HMF_LANES channels ride side by side in one
// vector register, their states stay in registers while time runs, and time is cut into tiles that fit into the
// first cache. Only the states at the tile starts are kept for backward, which walks each tile again.
// Plain C interface, no torch: `_scan_native.py` fills a Scan and calls.
//
// Letters as in selective_scan: batch, G groups of d channels, N states, L steps.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef __has_builtin
#define HMF_SHUFFLEVECTOR __has_builtin(__builtin_shufflevector)
#endif
#define HMF_JOIN_(a, b) a##_##b
#define HMF_JOIN(a, b) HMF_JOIN_(a, b)

extern "C" struct Scan {
    int64_t batch, groups, group_channels, states, length;
    int64_t segments;  // parts a group's channels are cut into, so that every thread has work
    int64_t softplus, threads;
    const float *u, *delta, *A, *B, *C, *D, *z, *delta_bias;  // D, z, delta_bias may be null
    float *y;
    float *starts;  // (batch, tiles, N, G*d), null when no backward follows
    const float *grad_y;
    float *grad_u, *grad_delta, *grad_z;       // as u, delta, z
    float *grad_A, *grad_D, *grad_delta_bias;  // with a leading batch axis, summed by the caller
    float *grad_B, *grad_C;                    // with a leading segment axis, summed by the caller
};

namespace {

constexpr int kLanes = HMF_LANES;
constexpr int kTile = 32;  // steps; `TILE` of _scan_native.py
constexpr float kLog2e = 1.44269504088896341f;

typedef float Vec __attribute__((vector_size(4 * HMF_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * HMF_LANES)));

inline Vec all(float value) { return value - Vec{}; }

// 2^x, relative error 1e-7: a power of two times a polynomial of degree 5 on [-1/2, 1/2].
inline Vec exp2_of(Vec x) {
#ifdef __AVX512F__
    const Vec whole = (Vec)_mm512_roundscale_ps((__m512)x, 0);
    const Vec part = x - whole;
#else
    x = x < -126.0f ? all(-126.0f) : x;
    x = x > 128.0f ? all(128.0f) : x;
    const Vec shifted = x + 12582912.0f;  // 1.5 * 2^23: the fraction is rounded away
    const Vec part = x - (shifted - 12582912.0f);
#endif
    Vec p = all(1.327647129e-3f);
    p = p * part + 9.675541893e-3f;
    p = p * part + 5.550713465e-2f;
    p = p * part + 2.402202124e-1f;
    p = p * part + 6.931469440e-1f;
    p = p * part + 1.0f;
#ifdef __AVX512F__
    return (Vec)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    IntVec bits, power;
    std::memcpy(&bits, &p, sizeof bits);
    std::memcpy(&power, &shifted, sizeof power);
    bits += power << 23;
    std::memcpy(&p, &bits, sizeof p);
    return p;
#endif
}

inline Vec exp_of_minus_abs(Vec x) { return exp2_of((x < 0 ? x : -x) * kLog2e); }

// log(1 + exp(x)), relatively exact for large negative x too: log1p(e) = 2 atanh(e / (2 + e)).
inline Vec softplus_of(Vec x) {
    const Vec e = exp_of_minus_abs(x), s = e / (2.0f + e), s2 = s * s;
    Vec p = all(0.140891701f);
    p = p * s2 + 0.139802992f;
    p = p * s2 + 0.200124547f;
    p = p * s2 + 0.333331585f;
    p = p * s2 + 1.0f;
    return (x > 0 ? x : Vec{}) + 2.0f * s * p;
}

inline Vec sigmoid_of(Vec x) {
    const Vec e = exp_of_minus_abs(x);
    return (x < 0 ? e : all(1.0f)) / (1.0f + e);
}

struct Buffer {  // vectors, aligned
    std::vector<float> memory;
    Vec *at = nullptr;
    void reserve(int64_t vectors) {
        memory.assign((vectors + 1) * kLanes, 0.0f);
        const auto address = reinterpret_cast<uintptr_t>(memory.data());
        at = reinterpret_cast<Vec *>((address + sizeof(Vec) - 1) / sizeof(Vec) * sizeof(Vec));
    }
};

// A square of vectors mirrored at its diagonal: bit by bit, rows and lanes trade places.
template <int S, int... J>
inline void trade(Vec &low, Vec &high, std::integer_sequence<int, J...>) {
    const Vec a = low, b = high;
#if HMF_SHUFFLEVECTOR
    low = __builtin_shufflevector(a, b, (J & S ? kLanes + J - S : J)...);
    high = __builtin_shufflevector(a, b, (J & S ? kLanes + J : J + S)...);
#else
    ((low[J] = J & S ? b[J - S] : a[J]), ...);
    ((high[J] = J & S ? b[J] : a[J + S]), ...);
#endif
}

template <int S = 1>
inline void transpose(Vec *square) {
    for (int i = 0; i < kLanes; ++i)
        if (!(i & S)) trade<S>(square[i], square[i + S], std::make_integer_sequence<int, kLanes>{});
    if constexpr (2 * S < kLanes) transpose<2 * S>(square);
}

// Channels of (.., channels, L) from `rows` into lanes, `steps` of them, and back.
inline void load_tile(const float *rows, int64_t stride, int lanes, int steps, Vec *tile) {
    int t = 0;
    if (lanes == kLanes)
        for (; t + kLanes <= steps; t += kLanes) {
            for (int lane = 0; lane < kLanes; ++lane) std::memcpy(tile + t + lane, rows + lane * stride + t, sizeof(Vec));
            transpose(tile + t);
        }
    float *out = reinterpret_cast<float *>(tile);
    for (int lane = 0; lane < lanes; ++lane)
        for (int rest = t; rest < steps; ++rest) out[rest * kLanes + lane] = rows[lane * stride + rest];
}

inline void store_tile(Vec *tile, int64_t stride, int lanes, int steps, float *rows) {
    int t = 0;
    if (lanes == kLanes)
        for (; t + kLanes <= steps; t += kLanes) {
            transpose(tile + t);
            for (int lane = 0; lane < kLanes; ++lane) std::memcpy(rows + lane * stride + t, tile + t + lane, sizeof(Vec));
        }
    const float *in = reinterpret_cast<const float *>(tile);
    for (int lane = 0; lane < lanes; ++lane)
        for (int rest = t; rest < steps; ++rest) rows[lane * stride + rest] = in[rest * kLanes + lane];
}

// The sum over the lanes of each of `steps` vectors that lie `stride` vectors apart.
inline void sum_lanes(const Vec *vectors, int64_t stride, int steps, float *sums) {
    for (int t = 0; t < steps; t += kLanes) {
        const int count = std::min(kLanes, steps - t);
        Vec square[kLanes] = {}, sum{};
        for (int i = 0; i < count; ++i) square[i] = vectors[(t + i) * stride];
        transpose(square);
        for (int lane = 0; lane < kLanes; ++lane) sum += square[lane];
        std::memcpy(sums + t, &sum, 4 * count);
    }
}

inline Vec load_lanes(const float *values, int lanes) {
    Vec out{};
    std::memcpy(&out, values, 4 * lanes);
    return out;
}

inline void store_lanes(Vec value, int lanes, float *values) { std::memcpy(values, &value, 4 * lanes); }

// States first .. first + K of one block of channels, `steps` of time.
struct Walk {
    int steps;
    int64_t states;               // row length of B and C
    const Vec *delta, *drive;     // (steps)
    const float *B, *C;           // (steps, states), at `first`
    const Vec *A;                 // (states) times log2 e, at `first`
};

template <int K>
void walk(const Walk &w, Vec *state, Vec *y) {
    Vec h[K];
    for (int n = 0; n < K; ++n) h[n] = state[n];
    for (int t = 0; t < w.steps; ++t) {
        const Vec delta = w.delta[t], drive = w.drive[t];
        const float *B = w.B + t * w.states, *C = w.C + t * w.states;
        Vec sum = y[t];
        for (int n = 0; n < K; ++n) {
            h[n] = exp2_of(delta * w.A[n]) * h[n] + drive * B[n];
            sum += h[n] * C[n];
        }
        y[t] = sum;
    }
    for (int n = 0; n < K; ++n) state[n] = h[n];
}

// The same, and every decay (steps, K) and state (steps + 1, K) is kept.
template <int K>
void walk_and_keep(const Walk &w, const Vec *start, Vec *decays, Vec *kept, Vec *y) {
    Vec h[K];
    for (int n = 0; n < K; ++n) kept[n] = h[n] = start[n];
    for (int t = 0; t < w.steps; ++t) {
        const Vec delta = w.delta[t], drive = w.drive[t];
        const float *B = w.B + t * w.states, *C = w.C + t * w.states;
        Vec sum = y[t];
        for (int n = 0; n < K; ++n) {
            const Vec decay = exp2_of(delta * w.A[n]);
            decays[t * K + n] = decay;
            h[n] = decay * h[n] + drive * B[n];
            kept[(t + 1) * K + n] = h[n];
            sum += h[n] * C[n];
        }
        y[t] = sum;
    }
}

struct Gradients {
    Vec *carry, *A;             // (K): of the state handed on, and of A
    Vec *B, *C;                 // (steps, K): of all blocks so far, summed over the lanes at the end
    Vec *exponent, *drive;      // (steps): of delta through the decay, and of delta * u
};

template <int K>
void walk_back(const Walk &w, const Vec *grad_y, const Vec *decays, const Vec *kept, const Gradients &g) {
    Vec carry[K], grad_A[K];
    for (int n = 0; n < K; ++n) carry[n] = g.carry[n], grad_A[n] = g.A[n];
    for (int t = w.steps - 1; t >= 0; --t) {
        const Vec delta = w.delta[t], drive = w.drive[t], gradient = grad_y[t];
        const float *B = w.B + t * w.states, *C = w.C + t * w.states;
        Vec *grad_B = g.B + t * K, *grad_C = g.C + t * K;
        Vec of_drive = g.drive[t], of_exponent = g.exponent[t];
        for (int n = 0; n < K; ++n) {
            carry[n] += gradient * C[n];
            grad_C[n] += gradient * kept[(t + 1) * K + n];
            grad_B[n] += carry[n] * drive;
            of_drive += carry[n] * B[n];
            carry[n] *= decays[t * K + n];
            const Vec product = carry[n] * kept[t * K + n];
            of_exponent += product * w.A[n];
            grad_A[n] += product * delta;
        }
        g.drive[t] = of_drive;
        g.exponent[t] = of_exponent;
    }
    for (int n = 0; n < K; ++n) g.carry[n] = carry[n], g.A[n] = grad_A[n];
}

// Calls step(integral constant K, first) over all states, in the largest bites up to `Largest`.
template <int Largest, typename Step>
void for_states(int64_t states, int64_t first, const Step &step) {
    for (; first + Largest <= states; first += Largest) step(std::integral_constant<int, Largest>{}, first);
    if constexpr (Largest > 1) for_states<Largest / 2>(states, first, step);
}

constexpr int kForwardBite = kLanes == 16 ? 16 : 8;  // as many states as there are registers for
constexpr int kBackwardBite = 4;                     // as many as leave all that is kept in the first cache

// One batch entry, one group, one segment of its channels.
struct Item {
    const Scan &s;
    int64_t b, g, segment, channels, first, last;  // channels: of the whole scan; first..last of this item
    int64_t num_blocks, num_tiles;
    Buffer A, A_log2, state;
    std::vector<float> B_tile, C_tile;

    Item(const Scan &scan, int64_t index) : s(scan) {
        segment = index % s.segments;
        g = index / s.segments % s.groups;
        b = index / s.segments / s.groups;
        channels = s.groups * s.group_channels;
        const int64_t blocks = (s.group_channels + kLanes - 1) / kLanes;
        const int64_t start = blocks * segment / s.segments, stop = blocks * (segment + 1) / s.segments;
        first = g * s.group_channels + start * kLanes;
        last = std::min(g * s.group_channels + stop * kLanes, (g + 1) * s.group_channels);
        num_blocks = stop - start;
        num_tiles = (s.length + kTile - 1) / kTile;
        A.reserve(num_blocks * s.states);
        A_log2.reserve(num_blocks * s.states);
        state.reserve(num_blocks * s.states);
        for (int64_t block = 0; block < num_blocks; ++block)
            for (int lane = 0; lane < lanes(block); ++lane)
                for (int64_t n = 0; n < s.states; ++n) {
                    const float value = s.A[(channel(block) + lane) * s.states + n];
                    A.at[block * s.states + n][lane] = value;
                    A_log2.at[block * s.states + n][lane] = value * kLog2e;
                }
        B_tile.resize(kTile * s.states);
        C_tile.resize(kTile * s.states);
    }

    int64_t channel(int64_t block) const { return first + block * kLanes; }
    int lanes(int64_t block) const { return int(std::min<int64_t>(kLanes, last - channel(block))); }
    int steps(int64_t tile) const { return int(std::min<int64_t>(kTile, s.length - tile * kTile)); }
    int64_t row(int64_t block, int64_t tile) const {  // where a tile of u, delta, z, y begins
        return (b * channels + channel(block)) * s.length + tile * kTile;
    }
    float *start_of(int64_t block, int64_t tile, int64_t n) const {
        return s.starts + ((b * num_tiles + tile) * s.states + n) * channels + channel(block);
    }

    void load_matrices(int64_t tile) {
        const int64_t offset = (b * s.groups + g) * s.states * s.length + tile * kTile;
        for (int64_t n = 0; n < s.states; ++n)
            for (int t = 0; t < steps(tile); ++t) {
                B_tile[t * s.states + n] = s.B[offset + n * s.length + t];
                C_tile[t * s.states + n] = s.C[offset + n * s.length + t];
            }
    }

    Walk walk_of(int64_t block, int64_t tile, int64_t n, const Vec *delta, const Vec *drive) const {
        return {steps(tile), s.states, delta, drive, B_tile.data() + n, C_tile.data() + n,
                A_log2.at + block * s.states + n};
    }
};

struct Tile {  // what a block of channels reads and writes in one tile
    Vec u[kTile] = {}, raw[kTile] = {}, z[kTile] = {};
    Vec delta[kTile], drive[kTile], y[kTile];
    Vec bias, D;
    int steps, lanes;

    void load(const Item &item, int64_t block, int64_t tile) {
        const Scan &s = item.s;
        const int64_t row = item.row(block, tile), channel = item.channel(block);
        steps = item.steps(tile), lanes = item.lanes(block);
        load_tile(s.u + row, s.length, lanes, steps, u);
        load_tile(s.delta + row, s.length, lanes, steps, raw);
        if (s.z) load_tile(s.z + row, s.length, lanes, steps, z);
        bias = s.delta_bias ? load_lanes(s.delta_bias + channel, lanes) : Vec{};
        D = s.D ? load_lanes(s.D + channel, lanes) : Vec{};
        for (int t = 0; t < steps; ++t) {
            raw[t] += bias;
            delta[t] = s.softplus ? softplus_of(raw[t]) : raw[t];
            drive[t] = delta[t] * u[t];
            y[t] = D * u[t];
        }
    }
};

void forward(Item &item) {
    const Scan &s = item.s;
    Tile tile;
    for (int64_t k = 0; k < item.num_tiles; ++k) {
        item.load_matrices(k);
        for (int64_t block = 0; block < item.num_blocks; ++block) {
            tile.load(item, block, k);
            Vec *state = item.state.at + block * s.states;
            if (s.starts)
                for (int64_t n = 0; n < s.states; ++n) store_lanes(state[n], tile.lanes, item.start_of(block, k, n));
            for_states<kForwardBite>(s.states, 0, [&](auto bite, int64_t n) {
                walk<bite>(item.walk_of(block, k, n, tile.delta, tile.drive), state + n, tile.y);
            });
            if (s.z)
                for (int t = 0; t < tile.steps; ++t) tile.y[t] *= tile.z[t] * sigmoid_of(tile.z[t]);
            store_tile(tile.y, s.length, tile.lanes, tile.steps, s.y + item.row(block, k));
        }
    }
}

struct BackwardTile : Tile {
    Vec grad_y[kTile], gate[kTile], of_exponent[kTile], of_drive[kTile];

    void load(const Item &item, int64_t block, int64_t tile) {
        const Scan &s = item.s;
        Tile::load(item, block, tile);
        std::fill(grad_y, grad_y + kTile, Vec{});
        std::fill(of_exponent, of_exponent + kTile, Vec{});
        std::fill(of_drive, of_drive + kTile, Vec{});
        load_tile(s.grad_y + item.row(block, tile), s.length, lanes, steps, grad_y);
        if (s.z)
            for (int t = 0; t < steps; ++t) {
                const Vec sigmoid = sigmoid_of(z[t]);
                gate[t] = grad_y[t] * sigmoid * (1.0f + z[t] * (1.0f - sigmoid));  // times y: gradient of z
                grad_y[t] *= z[t] * sigmoid;
            }
    }

    void finish(const Item &item, int64_t block, int64_t tile, Vec &grad_D, Vec &grad_bias) {
        const Scan &s = item.s;
        const int64_t row = item.row(block, tile);
        for (int t = 0; t < steps; ++t) {
            Vec grad_delta = of_drive[t] * u[t] + of_exponent[t] * (1.0f / kLog2e);
            if (s.softplus) grad_delta *= sigmoid_of(raw[t]);
            grad_bias += grad_delta;
            grad_D += grad_y[t] * u[t];
            of_drive[t] = of_drive[t] * delta[t] + grad_y[t] * D;  // now of u
            of_exponent[t] = grad_delta;                           // now of delta
            if (s.z) gate[t] *= y[t];
        }
        store_tile(of_drive, s.length, lanes, steps, s.grad_u + row);
        store_tile(of_exponent, s.length, lanes, steps, s.grad_delta + row);
        if (s.z) store_tile(gate, s.length, lanes, steps, s.grad_z + row);
    }
};

// A tile is walked state by state and not block by block, so that the sums over channels stay in the first cache.
void backward(Item &item) {
    const Scan &s = item.s;
    const int64_t N = s.states;
    Buffer decays, kept, start, grad_A, grad_B, grad_C, grad_D, grad_bias;
    decays.reserve(kTile * kBackwardBite);
    kept.reserve((kTile + 1) * kBackwardBite);
    start.reserve(kBackwardBite);
    grad_A.reserve(item.num_blocks * N);
    grad_B.reserve(kTile * kBackwardBite);
    grad_C.reserve(kTile * kBackwardBite);
    grad_D.reserve(item.num_blocks);
    grad_bias.reserve(item.num_blocks);
    std::vector<BackwardTile> tiles(item.num_blocks);
    Buffer &carry = item.state;  // zero after the last step
    for (int64_t k = item.num_tiles - 1; k >= 0; --k) {
        const int steps = item.steps(k);
        item.load_matrices(k);
        for (int64_t block = 0; block < item.num_blocks; ++block) tiles[block].load(item, block, k);
        for_states<kBackwardBite>(N, 0, [&](auto bite, int64_t n) {
            std::fill(grad_B.at, grad_B.at + steps * bite, Vec{});
            std::fill(grad_C.at, grad_C.at + steps * bite, Vec{});
            for (int64_t block = 0; block < item.num_blocks; ++block) {
                BackwardTile &tile = tiles[block];
                const Walk w = item.walk_of(block, k, n, tile.delta, tile.drive);
                for (int i = 0; i < bite; ++i) start.at[i] = load_lanes(item.start_of(block, k, n + i), tile.lanes);
                walk_and_keep<bite>(w, start.at, decays.at, kept.at, tile.y);
                walk_back<bite>(w, tile.grad_y, decays.at, kept.at,
                                {carry.at + block * N + n, grad_A.at + block * N + n, grad_B.at, grad_C.at,
                                 tile.of_exponent, tile.of_drive});
            }
            const int64_t matrix = ((item.segment * s.batch + item.b) * s.groups + item.g) * N + n;
            for (int i = 0; i < bite; ++i) {
                sum_lanes(grad_B.at + i, bite, steps, s.grad_B + (matrix + i) * s.length + k * kTile);
                sum_lanes(grad_C.at + i, bite, steps, s.grad_C + (matrix + i) * s.length + k * kTile);
            }
        });
        for (int64_t block = 0; block < item.num_blocks; ++block)
            tiles[block].finish(item, block, k, grad_D.at[block], grad_bias.at[block]);
    }
    for (int64_t block = 0; block < item.num_blocks; ++block) {
        const int lanes = item.lanes(block);
        const int64_t channel = item.b * item.channels + item.channel(block);
        for (int lane = 0; lane < lanes; ++lane)
            for (int64_t n = 0; n < N; ++n) s.grad_A[(channel + lane) * N + n] = grad_A.at[block * N + n][lane];
        if (s.D) store_lanes(grad_D.at[block], lanes, s.grad_D + channel);
        if (s.delta_bias) store_lanes(grad_bias.at[block], lanes, s.grad_delta_bias + channel);
    }
}

template <typename Work>
int run(const Scan &s, const Work &work) {
    const int64_t items = s.batch * s.groups * s.segments;
    bool failed = false;
#pragma omp parallel for schedule(static) num_threads(int(s.threads)) reduction(|| : failed)
    for (int64_t index = 0; index < items; ++index) {
        try {
            Item item(s, index);
            work(item);
        } catch (const std::bad_alloc &) {  // must not leave the parallel region
            failed = true;
        }
    }
    return failed;
}

}  // namespace

extern "C" int HMF_JOIN(hmf_scan_forward, HMF_ISA)(const Scan *scan) { return run(*scan, forward); }
extern "C" int HMF_JOIN(hmf_scan_backward, HMF_ISA)(const Scan *scan) { return run(*scan, backward); }
extern "C" __attribute__((weak)) const char *hmf_scan_hash() { return HMF_HASH; }  // once in the library
