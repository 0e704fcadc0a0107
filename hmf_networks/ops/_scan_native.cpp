// The selective scan on a CPU, forward and backward; `_scan_reference.py` is the definition.
//
// Compiled once for each instruction set (`_scan_native_build.py`): HMF_LANES channels ride side by side in one
// vector register, their states stay in registers while time runs, and time is cut into tiles that fit into the
// first cache. Only the states at the tile starts are kept for backward, which walks each tile again.
// Plain C interface, no torch: `_scan_native.py` fills a Scan and calls.
//
// Nothing here may be seen by the linker but the entry points: of functions of one name, as templates of the standard
// library leave behind, it keeps one for all instruction sets, and a CPU would run what it does not have.
//
// Letters as in selective_scan: batch, G groups of d channels, N states, L steps. In `selective_scan_2d` the groups
// are the directions in which one map is walked: they share u and y, and a step leads to another token of the map.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#ifdef __has_builtin
#define HMF_SHUFFLEVECTOR __has_builtin(__builtin_shufflevector)
#endif
#define HMF_JOIN_(a, b) a##_##b
#define HMF_JOIN(a, b) HMF_JOIN_(a, b)

// A tensor over batch, group, token and channel (or state), with its strides in elements. Null where it is missing.
// Either channels lie side by side (channel 1), or tokens do (token 1).
struct Strided {
    void *data;
    int64_t batch, group, token, channel;
};

extern "C" struct Scan {
    int64_t batch, groups, group_channels, states, length;
    int64_t width;     // of the map; 0 for sequences, walked as they lie
    int64_t segments;  // parts a group's channels are cut into, so that every thread has work
    int64_t softplus, bfloat16, threads;
    Strided u, delta, z, B, C;  // bfloat16 if it says so and channels lie side by side
    Strided y, grad_y, grad_u, grad_delta, grad_z;
    Strided grad_B, grad_C;  // one after the other for each segment, summed by the caller
    const float *A, *D, *delta_bias;  // (G*d, N), (G*d), (G*d); the last two may be null
    float *starts;                    // states at the tile starts, (batch, tiles, N, G*d), null when no backward follows
    float *grad_A, *grad_D, *grad_delta_bias;  // with a leading batch axis, summed by the caller
};

namespace {

constexpr int kLanes = HMF_LANES;
constexpr int kTile = 32;  // steps; `TILE` of _scan_native.py
constexpr int64_t kLargeOutput = 1 << 19;  // floats: as much as a second cache holds
constexpr float kLog2e = 1.44269504088896341f;

typedef float Vec __attribute__((vector_size(4 * HMF_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * HMF_LANES)));
typedef uint16_t HalfVec __attribute__((vector_size(2 * HMF_LANES)));

inline Vec all(float value) { return value - Vec{}; }

constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
constexpr float kSafe = 125.0f;          // exponents up to here are those of ordinary numbers

// 2^(a b), relative error 1e-7: a power of two times a polynomial of degree 5 on [-1/2, 1/2].
// `Safe` promises that |a b| <= kSafe.
template <bool Safe>
inline Vec exp2_of(Vec a, Vec b) {
#ifndef __AVX512F__
    if constexpr (!Safe) {
        Vec product = a * b;
        product = product < -126.0f ? all(-126.0f) : product;
        a = product > 128.0f ? all(128.0f) : product;
        b = all(1.0f);
    }
#endif
    const Vec shifted = a * b + kRounder, whole = shifted - kRounder;
    const Vec part = a * b - whole;
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

inline Vec exp_of_minus_abs(Vec x) { return exp2_of<false>(x < 0 ? x : -x, all(kLog2e)); }

// log(1 + exp(x)), relatively exact for large negative x too: log1p(e) = 2 atanh(e / (2 + e)). And its slope.
inline Vec softplus_of(Vec x, Vec *slope) {
    const Vec e = exp_of_minus_abs(x), s = e / (2.0f + e), s2 = s * s;
    Vec p = all(0.140891701f);
    p = p * s2 + 0.139802992f;
    p = p * s2 + 0.200124547f;
    p = p * s2 + 0.333331585f;
    p = p * s2 + 1.0f;
    if (slope) *slope = (x < 0 ? e : all(1.0f)) / (1.0f + e);
    return (x > 0 ? x : Vec{}) + 2.0f * s * p;
}

inline Vec sigmoid_of(Vec x) {
    const Vec e = exp_of_minus_abs(x);
    return (x < 0 ? e : all(1.0f)) / (1.0f + e);
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline void fill(Vec *from, int64_t count, Vec value) {
    for (int64_t i = 0; i < count; ++i) from[i] = value;
}

template <typename T = Vec>
struct Buffer {  // zeros, aligned for vectors
    T *at = nullptr;
    void *memory = nullptr;
    Buffer() = default;
    Buffer(const Buffer &) = delete;
    ~Buffer() { std::free(memory); }
    bool reserve(int64_t count) {  // false when memory ran out
        memory = std::calloc(count * sizeof(T) + sizeof(Vec), 1);
        const auto address = reinterpret_cast<uintptr_t>(memory);
        at = reinterpret_cast<T *>((address + sizeof(Vec) - 1) / sizeof(Vec) * sizeof(Vec));
        return memory != nullptr;
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

inline Vec load_lanes(const float *values, int lanes) {
    Vec out{};
    std::memcpy(&out, values, 4 * lanes);
    return out;
}

inline void store_lanes(Vec value, int lanes, float *values) { std::memcpy(values, &value, 4 * lanes); }

// Past the caches: what is larger than they are only pushes out what is still needed, and need not be read first.
inline void stream(Vec value, float *values) {
#if defined(__AVX512F__)
    _mm512_stream_ps(values, (__m512)value);
#elif defined(__AVX__)
    _mm256_stream_ps(values, (__m256)value);
#elif defined(__SSE2__)
    _mm_stream_ps(values, (__m128)value);
#else
    std::memcpy(values, &value, sizeof value);
#endif
}

inline void finish_streams() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

inline Vec load_bfloat16(const uint16_t *values, int lanes) {  // the upper half of a float
    HalfVec half{};
    std::memcpy(&half, values, 2 * lanes);
    const IntVec bits = __builtin_convertvector(half, IntVec) << 16;
    Vec out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

// Where a tile lies: `token` is that of every step, `at` its batch entry, group and first channel.
struct Place {
    const int32_t *token;
    int steps, lanes;
    int64_t batch, group, channel;

    int64_t offset(const Strided &x) const { return batch * x.batch + group * x.group + channel * x.channel; }
};

// Channels into lanes and steps into vectors, and back.
void load_tile(const Strided &x, const Place &place, bool bfloat16, Vec *tile) {
    const int steps = place.steps, lanes = place.lanes;
    if (bfloat16) {
        const uint16_t *from = static_cast<const uint16_t *>(x.data) + place.offset(x);
        for (int t = 0; t < steps; ++t)
            tile[t] = load_bfloat16(from + place.token[t] * x.token, lanes == kLanes ? kLanes : lanes);
        return;
    }
    const float *from = static_cast<const float *>(x.data) + place.offset(x);
    if (x.channel == 1) {
        for (int t = 0; t < steps; ++t)
            tile[t] = load_lanes(from + place.token[t] * x.token, lanes == kLanes ? kLanes : lanes);
        return;
    }
    int t = 0;
    from += place.token[0];
    if (lanes == kLanes)
        for (; t + kLanes <= steps; t += kLanes) {
            for (int lane = 0; lane < kLanes; ++lane)
                std::memcpy(tile + t + lane, from + lane * x.channel + t, sizeof(Vec));
            transpose(tile + t);
        }
    float *out = reinterpret_cast<float *>(tile);
    for (int lane = 0; lane < lanes; ++lane)
        for (int rest = t; rest < steps; ++rest) out[rest * kLanes + lane] = from[lane * x.channel + rest];
}

enum class Store { kPlain, kStream, kAdd };  // kAdd: to what earlier groups have left there

void store_tile(Vec *tile, const Place &place, Store how, const Strided &x) {
    const int steps = place.steps, lanes = place.lanes;
    float *to = static_cast<float *>(x.data) + place.offset(x);
    const int64_t apart = x.channel == 1 ? x.token : x.channel;
    const bool aligned = (reinterpret_cast<uintptr_t>(to + place.token[0] * x.token) | apart * 4) % sizeof(Vec) == 0;
    const bool streams = how == Store::kStream && aligned && lanes == kLanes;
    if (x.channel == 1) {
        for (int t = 0; t < steps; ++t) {
            float *row = to + place.token[t] * x.token;
            const int count = lanes == kLanes ? kLanes : lanes;
            if (streams)
                stream(tile[t], row);
            else
                store_lanes(how == Store::kAdd ? tile[t] + load_lanes(row, count) : tile[t], count, row);
        }
        return;
    }
    int t = 0;
    to += place.token[0];
    if (lanes == kLanes)
        for (; t + kLanes <= steps; t += kLanes) {
            transpose(tile + t);
            for (int lane = 0; lane < kLanes; ++lane) {
                float *row = to + lane * x.channel + t;
                streams ? stream(tile[t + lane], row) : store_lanes(tile[t + lane], kLanes, row);
            }
        }
    const float *in = reinterpret_cast<const float *>(tile);
    for (int lane = 0; lane < lanes; ++lane)
        for (int rest = t; rest < steps; ++rest) to[lane * x.channel + rest] = in[rest * kLanes + lane];
}

// The sums over the lanes of `steps` vectors that lie `stride` vectors apart.
inline void sum_lanes(const Vec *vectors, int64_t stride, int steps, float *sums) {
    for (int t = 0; t < steps; t += kLanes) {
        const int count = int(smaller(kLanes, steps - t));
        Vec square[kLanes] = {}, sum{};
        for (int i = 0; i < count; ++i) square[i] = vectors[(t + i) * stride];
        transpose(square);
        for (int lane = 0; lane < kLanes; ++lane) sum += square[lane];
        store_lanes(sum, count, sums + t);
    }
}

// States first .. first + K of one block of channels, `steps` of time.
struct Walk {
    int steps;
    int64_t states;               // row length of B and C
    const Vec *delta, *drive;     // (steps)
    const float *B, *C;           // (steps, states), at `first`
    const Vec *A;                 // (states) times log2 e, at `first`
};

template <int K, bool Safe>
void walk(const Walk &w, Vec *state, Vec *y) {
    Vec h[K];
    for (int n = 0; n < K; ++n) h[n] = state[n];
    for (int t = 0; t < w.steps; ++t) {
        const Vec delta = w.delta[t], drive = w.drive[t];
        const float *B = w.B + t * w.states, *C = w.C + t * w.states;
        Vec sum = y[t];
        for (int n = 0; n < K; ++n) {
            h[n] = exp2_of<Safe>(delta, w.A[n]) * h[n] + drive * B[n];
            sum += h[n] * C[n];
        }
        y[t] = sum;
    }
    for (int n = 0; n < K; ++n) state[n] = h[n];
}

// The same, and every decay (steps, K) and state (steps + 1, K) is kept; y may be null.
template <int K, bool Safe>
void walk_and_keep(const Walk &w, const Vec *start, Vec *decays, Vec *kept, Vec *y) {
    Vec h[K];
    for (int n = 0; n < K; ++n) kept[n] = h[n] = start[n];
    for (int t = 0; t < w.steps; ++t) {
        const Vec delta = w.delta[t], drive = w.drive[t];
        const float *B = w.B + t * w.states, *C = w.C + t * w.states;
        for (int n = 0; n < K; ++n) {
            const Vec decay = exp2_of<Safe>(delta, w.A[n]);
            decays[t * K + n] = decay;
            h[n] = decay * h[n] + drive * B[n];
            kept[(t + 1) * K + n] = h[n];
        }
        if (y)
            for (int n = 0; n < K; ++n) y[t] += h[n] * C[n];
    }
}

struct Gradients {
    Vec *carry, *A;             // (K): of the state handed on, and of A
    Vec *B, *C;                 // (steps, K): of all blocks so far, summed over the lanes at the end
    Vec *exponent, *drive;      // (steps): of delta through the decay, and of delta * u
};

template <int K>
void walk_back(const Walk &w, const Vec *grad_y, const Vec *decays, const Vec *kept, const Gradients &g) {
    Vec carry[K], grad_A[K], after[K];  // after: the states that the step led to
    for (int n = 0; n < K; ++n) carry[n] = g.carry[n], grad_A[n] = g.A[n], after[n] = kept[w.steps * K + n];
    for (int t = w.steps - 1; t >= 0; --t) {
        const Vec delta = w.delta[t], drive = w.drive[t], gradient = grad_y[t];
        const float *B = w.B + t * w.states, *C = w.C + t * w.states;
        Vec *grad_B = g.B + t * K, *grad_C = g.C + t * K;
        Vec of_drive = g.drive[t], of_exponent = g.exponent[t];
        for (int n = 0; n < K; ++n) {
            carry[n] += gradient * C[n];
            grad_C[n] += gradient * after[n];
            after[n] = kept[t * K + n];
            grad_B[n] += carry[n] * drive;
            of_drive += carry[n] * B[n];
            carry[n] *= decays[t * K + n];
            const Vec product = carry[n] * after[n];
            of_exponent += product * w.A[n];
            grad_A[n] += product * delta;
        }
        g.drive[t] = of_drive;
        g.exponent[t] = of_exponent;
    }
    for (int n = 0; n < K; ++n) g.carry[n] = carry[n], g.A[n] = grad_A[n];
}

template <int K>
struct Bite {
    constexpr operator int() const { return K; }
};

// Calls step(Bite<K>, first) over all states, in the largest bites up to `Largest`.
template <int Largest, typename Step>
void for_states(int64_t states, int64_t first, const Step &step) {
    for (; first + Largest <= states; first += Largest) step(Bite<Largest>{}, first);
    if constexpr (Largest > 1) for_states<Largest / 2>(states, first, step);
}

constexpr int kForwardBite = kLanes == 16 ? 16 : 8;  // as many states as there are registers for
constexpr int kBackwardBite = 4;                     // as many as leave all that is kept in the first cache

// One batch entry, one group, one segment of its channels.
struct Item {
    const Scan &s;
    int64_t b, g, segment, channels, first, last;  // channels: of all groups; first .. last: of this item, in its group
    int64_t num_blocks, num_tiles;
    Buffer<> A, A_log2, state;
    Buffer<float> largest_A;  // of every block, times log2 e
    Buffer<float> B_tile, C_tile;
    int32_t token[kTile];

    Item(const Scan &scan, int64_t b, int64_t g, int64_t segment) : s(scan), b(b), g(g), segment(segment) {
        channels = s.groups * s.group_channels;
        const int64_t blocks = (s.group_channels + kLanes - 1) / kLanes;
        const int64_t start = blocks * segment / s.segments, stop = blocks * (segment + 1) / s.segments;
        first = start * kLanes;
        last = smaller(stop * kLanes, s.group_channels);
        num_blocks = stop - start;
        num_tiles = (s.length + kTile - 1) / kTile;
    }

    bool prepare() {  // false when memory ran out
        const int64_t states = num_blocks * s.states, matrix = kTile * s.states;
        if (!A.reserve(states) || !A_log2.reserve(states) || !state.reserve(states) || !largest_A.reserve(num_blocks) ||
            !B_tile.reserve(matrix) || !C_tile.reserve(matrix))
            return false;
        for (int64_t block = 0; block < num_blocks; ++block)
            for (int lane = 0; lane < lanes(block); ++lane)
                for (int64_t n = 0; n < s.states; ++n) {
                    const float value = s.A[(parameter(block) + lane) * s.states + n];
                    const float size = value < 0 ? -value * kLog2e : value * kLog2e;
                    A.at[block * s.states + n][lane] = value;
                    A_log2.at[block * s.states + n][lane] = value * kLog2e;
                    if (largest_A.at[block] < size) largest_A.at[block] = size;
                }
        return true;
    }

    int64_t channel(int64_t block) const { return first + block * kLanes; }
    int64_t parameter(int64_t block) const { return g * s.group_channels + channel(block); }
    int lanes(int64_t block) const { return int(smaller(kLanes, last - channel(block))); }
    int steps(int64_t tile) const { return int(smaller(kTile, s.length - tile * kTile)); }
    float *start_of(int64_t block, int64_t tile, int64_t n) const {
        return s.starts + ((b * num_tiles + tile) * s.states + n) * channels + parameter(block);
    }
    Place place(int64_t block, int64_t tile) const { return {token, steps(tile), lanes(block), b, g, channel(block)}; }

    // Directions of `scan_order.py`: rows, rows backwards, columns, columns backwards.
    int64_t token_of(int64_t step) const {
        if (!s.width) return step;
        if (g % 2) step = s.length - 1 - step;
        const int64_t height = s.length / s.width;
        return g < 2 ? step : step % height * s.width + step / height;
    }

    void load_matrices(int64_t tile) {
        for (int t = 0; t < steps(tile); ++t) token[t] = int32_t(token_of(tile * kTile + t));
        load_matrix(s.B, tile, B_tile.at);
        load_matrix(s.C, tile, C_tile.at);
    }

    void load_matrix(const Strided &x, int64_t tile, float *to) const {
        const int64_t offset = b * x.batch + g * x.group;
        for (int64_t n = 0; n < s.states; ++n)
            for (int t = 0; t < steps(tile); ++t) {
                const int64_t at = offset + token[t] * x.token + n * x.channel;
                if (s.bfloat16) {
                    const uint32_t bits = uint32_t(static_cast<const uint16_t *>(x.data)[at]) << 16;
                    std::memcpy(to + t * s.states + n, &bits, 4);
                } else {
                    to[t * s.states + n] = static_cast<const float *>(x.data)[at];
                }
            }
    }

    // The sums over channels of one state, to this segment's part.
    void store_sums(const Vec *vectors, int64_t stride, int64_t n, int64_t tile, const Strided &x) const {
        float sums[kTile];
        sum_lanes(vectors, stride, steps(tile), sums);
        float *to = static_cast<float *>(x.data) + (segment * s.batch + b) * x.batch + g * x.group + n * x.channel;
        for (int t = 0; t < steps(tile); ++t) to[token[t] * x.token] = sums[t];
    }

    Store store() const {
        return s.batch * channels * s.length > kLargeOutput ? Store::kStream : Store::kPlain;
    }
    Store store_shared() const { return !s.width ? store() : g > 0 ? Store::kAdd : Store::kPlain; }  // u and y

    Walk walk_of(int64_t block, int64_t tile, int64_t n, const Vec *delta, const Vec *drive) const {
        return {steps(tile), s.states, delta, drive, B_tile.at + n, C_tile.at + n,
                A_log2.at + block * s.states + n};
    }
};

struct Tile {  // what a block of channels reads and writes in one tile
    Vec u[kTile], delta[kTile], z[kTile];  // zero where there is no channel
    Vec drive[kTile], y[kTile];
    Vec D;
    Place place;
    bool safe;  // no decay of this tile leaves the range of exp2_of<true>

    void load(const Item &item, int64_t block, int64_t tile, Vec *slope = nullptr) {  // slope: of softplus
        const Scan &s = item.s;
        place = item.place(block, tile);
        load_tile(s.u, place, s.bfloat16, u);
        load_tile(s.delta, place, s.bfloat16, delta);
        if (s.z.data) load_tile(s.z, place, s.bfloat16, z);
        const Vec bias = s.delta_bias ? load_lanes(s.delta_bias + item.parameter(block), place.lanes) : Vec{};
        D = s.D ? load_lanes(s.D + item.parameter(block), place.lanes) : Vec{};
        Vec largest{};
        for (int t = 0; t < place.steps; ++t) {
            delta[t] += bias;
            if (s.softplus) delta[t] = softplus_of(delta[t], slope ? slope + t : nullptr);
            drive[t] = delta[t] * u[t];
            y[t] = D * u[t];
            const Vec size = delta[t] < 0 ? -delta[t] : delta[t];
            largest = size > largest ? size : largest;
        }
        safe = true;
        for (int lane = 0; lane < place.lanes; ++lane) safe &= largest[lane] * item.largest_A.at[block] < kSafe;
    }
};

bool forward(Item &item) {
    const Scan &s = item.s;
    Tile tile = {};
    for (int64_t k = 0; k < item.num_tiles; ++k) {
        item.load_matrices(k);
        for (int64_t block = 0; block < item.num_blocks; ++block) {
            tile.load(item, block, k);
            Vec *state = item.state.at + block * s.states;
            if (s.starts)
                for (int64_t n = 0; n < s.states; ++n)
                    store_lanes(state[n], tile.place.lanes, item.start_of(block, k, n));
            for_states<kForwardBite>(s.states, 0, [&](auto bite, int64_t n) {
                const Walk w = item.walk_of(block, k, n, tile.delta, tile.drive);
                tile.safe ? walk<bite, true>(w, state + n, tile.y) : walk<bite, false>(w, state + n, tile.y);
            });
            if (s.z.data)
                for (int t = 0; t < tile.place.steps; ++t) tile.y[t] *= tile.z[t] * sigmoid_of(tile.z[t]);
            store_tile(tile.y, tile.place, item.store_shared(), s.y);
        }
    }
    return true;
}

struct BackwardTile : Tile {
    Vec slope[kTile], grad_y[kTile], gate[kTile], of_exponent[kTile], of_drive[kTile];

    void load(const Item &item, int64_t block, int64_t tile) {
        const Scan &s = item.s;
        fill(slope, kTile, all(1.0f));
        fill(grad_y, kTile, Vec{});
        fill(of_exponent, kTile, Vec{});
        fill(of_drive, kTile, Vec{});
        Tile::load(item, block, tile, slope);
        load_tile(s.grad_y, place, false, grad_y);
        if (s.z.data)
            for (int t = 0; t < place.steps; ++t) {
                const Vec sigmoid = sigmoid_of(z[t]);
                gate[t] = grad_y[t] * sigmoid * (1.0f + z[t] * (1.0f - sigmoid));  // times y: gradient of z
                grad_y[t] *= z[t] * sigmoid;
            }
    }

    void finish(const Item &item, Vec &grad_D, Vec &grad_bias) {
        const Scan &s = item.s;
        for (int t = 0; t < place.steps; ++t) {
            const Vec grad_delta = (of_drive[t] * u[t] + of_exponent[t] * (1.0f / kLog2e)) * slope[t];
            grad_bias += grad_delta;
            grad_D += grad_y[t] * u[t];
            of_drive[t] = of_drive[t] * delta[t] + grad_y[t] * D;  // now of u
            of_exponent[t] = grad_delta;                           // now of delta
            if (s.z.data) gate[t] *= y[t];
        }
        store_tile(of_drive, place, item.store_shared(), s.grad_u);
        store_tile(of_exponent, place, item.store(), s.grad_delta);
        if (s.z.data) store_tile(gate, place, item.store(), s.grad_z);
    }
};

// A tile is walked state by state and not block by block, so that the sums over channels stay in the first cache.
bool backward(Item &item) {
    const Scan &s = item.s;
    const int64_t N = s.states, steps_of_a_bite = kTile * kBackwardBite;
    Buffer<> decays, kept, start, grad_A, grad_B, grad_C, grad_D, grad_bias;
    Buffer<BackwardTile> tiles;
    if (!decays.reserve(steps_of_a_bite) || !kept.reserve(steps_of_a_bite + kBackwardBite) ||
        !start.reserve(kBackwardBite) || !grad_A.reserve(item.num_blocks * N) || !grad_B.reserve(steps_of_a_bite) ||
        !grad_C.reserve(steps_of_a_bite) || !grad_D.reserve(item.num_blocks) || !grad_bias.reserve(item.num_blocks) ||
        !tiles.reserve(item.num_blocks))
        return false;
    Vec *carry = item.state.at;  // zero after the last step
    for (int64_t k = item.num_tiles - 1; k >= 0; --k) {
        const int steps = item.steps(k);
        item.load_matrices(k);
        for (int64_t block = 0; block < item.num_blocks; ++block) tiles.at[block].load(item, block, k);
        for_states<kBackwardBite>(N, 0, [&](auto bite, int64_t n) {
            fill(grad_B.at, steps * bite, Vec{});
            fill(grad_C.at, steps * bite, Vec{});
            for (int64_t block = 0; block < item.num_blocks; ++block) {
                BackwardTile &tile = tiles.at[block];
                const Walk w = item.walk_of(block, k, n, tile.delta, tile.drive);
                Vec *y = s.z.data ? tile.y : nullptr;
                for (int i = 0; i < bite; ++i)
                    start.at[i] = load_lanes(item.start_of(block, k, n + i), tile.place.lanes);
                tile.safe ? walk_and_keep<bite, true>(w, start.at, decays.at, kept.at, y)
                          : walk_and_keep<bite, false>(w, start.at, decays.at, kept.at, y);
                walk_back<bite>(w, tile.grad_y, decays.at, kept.at,
                                {carry + block * N + n, grad_A.at + block * N + n, grad_B.at, grad_C.at,
                                 tile.of_exponent, tile.of_drive});
            }
            for (int i = 0; i < bite; ++i) {
                item.store_sums(grad_B.at + i, bite, n + i, k, s.grad_B);
                item.store_sums(grad_C.at + i, bite, n + i, k, s.grad_C);
            }
        });
        for (int64_t block = 0; block < item.num_blocks; ++block)
            tiles.at[block].finish(item, grad_D.at[block], grad_bias.at[block]);
    }
    for (int64_t block = 0; block < item.num_blocks; ++block) {
        const int lanes = item.lanes(block);
        const int64_t channel = item.b * item.channels + item.parameter(block);
        for (int lane = 0; lane < lanes; ++lane)
            for (int64_t n = 0; n < N; ++n) s.grad_A[(channel + lane) * N + n] = grad_A.at[block * N + n][lane];
        if (s.D) store_lanes(grad_D.at[block], lanes, s.grad_D + channel);
        if (s.delta_bias) store_lanes(grad_bias.at[block], lanes, s.grad_delta_bias + channel);
    }
    return true;
}

// The directions of a map add to the same places: one thread walks them one after the other.
template <typename Work>
int run(const Scan &s, const Work &work) {
    const int64_t together = s.width ? s.groups : 1, alone = s.groups / together;
    const int64_t items = s.batch * alone * s.segments;
    const auto walk_one = [&](int64_t index) {  // false when memory ran out
        const int64_t segment = index % s.segments, g = index / s.segments % alone, b = index / s.segments / alone;
        bool done = true;
        for (int64_t direction = 0; direction < together && done; ++direction) {
            Item item(s, b, g + direction, segment);
            done = item.prepare() && work(item);
        }
        finish_streams();
        return done;
    };
    bool failed = false;
    if (s.threads == 1) {  // without OpenMP, which ends the process where memory is short
        for (int64_t index = 0; index < items && !failed; ++index) failed = !walk_one(index);
        return failed;
    }
#pragma omp parallel for schedule(static) num_threads(int(s.threads)) reduction(|| : failed)
    for (int64_t index = 0; index < items; ++index) failed = !walk_one(index) || failed;
    return failed;
}

}  // namespace

extern "C" int HMF_JOIN(hmf_scan_forward, HMF_ISA)(const Scan *scan) { return run(*scan, forward); }
extern "C" int HMF_JOIN(hmf_scan_backward, HMF_ISA)(const Scan *scan) { return run(*scan, backward); }
#ifdef HMF_HASH  // once in the library
extern "C" const char *hmf_scan_hash() { return HMF_HASH; }
#endif
