"""The selective scan as Triton kernels. Imported by `_scan_triton.py` alone, as it needs Triton to load.

One program walks one direction of one batch entry for a block of channels, STEPS tokens at a time, and finds
its way over the map by itself. One tile of numbers is ROWS x STATE_LANES x LANES: the lanes of a warp are
shared by states and channels, so that sums over either take few exchanges, and a thread holds ROWS channels.
The states are taken STATE_LANES at a time; between the tiles they lie in memory, which the first cache holds,
so that their number is not bounded by registers. Exponentials are powers of two: A comes times log2(e).

Letters as in `selective_scan_2d`; strides are in the order batch, row, column, direction, channel or state.
"""

# mypy: ignore-errors
# Triton reads these functions itself and gives their operators another meaning.

import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _softplus(x):
    """Within a few units of the last digit also where it is small: log(1 + e) as 2 atanh(e / (2 + e))."""
    e = tl.exp(-tl.abs(x))
    ratio = e / (2.0 + e)
    square = ratio * ratio
    series = 1.0 / 15.0
    for odd in tl.static_range(13, 0, -2):
        series = series * square + 1.0 / odd
    return tl.maximum(x, 0.0) + 2.0 * ratio * series


@triton.jit
def _place(step, direction, height, width):
    """Row and column of a step in a direction; the order of `scan_order.py`."""
    along_rows = direction < 2
    length = tl.where(along_rows, width, height)
    place = tl.where(direction % 2 == 1, height * width - 1 - step, step)
    major, minor = place // length, place % length
    row, column = tl.where(along_rows, major, minor), tl.where(along_rows, minor, major)
    return row.to(tl.int64), column.to(tl.int64)


@triton.jit
def _program(channels, directions, BLOCK: tl.constexpr):
    """Batch entry, direction and block of channels; neighbours share B and C, so these stay in the cache."""
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, BLOCK)
    block, rest = program % blocks, program // blocks
    return (rest // directions).to(tl.int64), rest % directions, block


@triton.jit
def _step(tile, i, STEPS: tl.constexpr):
    """The i-th step of a tile, as a tensor, so that comparisons with it are masks."""
    return tile * STEPS + i + tl.zeros((1, 1, 1), tl.int32)


@triton.jit
def _step_size(delta, delta_bias, SOFTPLUS: tl.constexpr):
    size = delta.to(tl.float32) + delta_bias
    if SOFTPLUS:
        size = _softplus(size)
    return size


@triton.jit
def _over_channels(x):
    """Rows first: they lie in one thread."""
    return tl.sum(tl.sum(x, 0, keep_dims=True), 2, keep_dims=True)


@triton.jit
def walk(
    u,
    delta,
    A,
    B,
    C,
    D,
    delta_bias,
    y,
    states,
    starts,
    u_strides,
    delta_strides,
    B_strides,
    C_strides,
    sizes,
    TURNING: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    KEEP_STARTS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    STATE_LANES: tl.constexpr,
    LANES: tl.constexpr,
):
    """Outputs of every direction, y (B, H, W, K, d); with KEEP_STARTS the states at every tile's start."""
    height, width, directions, channels, num_states = sizes
    length = height * width
    tiles = tl.cdiv(length, STEPS)
    batch, k, block = _program(channels, directions, ROWS * LANES)
    turn = k if TURNING else 0
    row, lane = tl.arange(0, ROWS)[:, None, None], tl.arange(0, LANES)[None, None, :]
    channel = block * (ROWS * LANES) + row * LANES + lane
    inside = channel < channels

    walked = batch * directions + k
    u += batch * u_strides[0] + k * u_strides[3] + channel * u_strides[4]
    delta += batch * delta_strides[0] + k * delta_strides[3] + channel * delta_strides[4]
    B += batch * B_strides[0] + k * B_strides[3]
    C += batch * C_strides[0] + k * C_strides[3]
    y += (batch * length * directions + k) * channels + channel
    A += k * num_states * channels + channel
    states += walked * num_states * channels + channel
    starts += walked * tiles * num_states * channels + channel
    bias = tl.zeros((ROWS, 1, LANES), tl.float32)
    skip_weight = tl.zeros((ROWS, 1, LANES), tl.float32)
    if delta_bias is not None:
        bias = tl.load(delta_bias + k * channels + channel, inside, 0.0)
    if D is not None:
        skip_weight = tl.load(D + k * channels + channel, inside, 0.0)

    for tile in range(tiles):
        tl.debug_barrier()  # the state that the last tile left may have been written by another thread
        steps, drives, skips, sums = (), (), (), ()
        for i in tl.static_range(STEPS):
            there = inside & (_step(tile, i, STEPS) < length)
            r, c = _place(_step(tile, i, STEPS), turn, height, width)
            x = tl.load(u + r * u_strides[1] + c * u_strides[2], there, 0.0).to(tl.float32)
            raw = tl.load(delta + r * delta_strides[1] + c * delta_strides[2], there, 0.0)
            step = tl.where(there, _step_size(raw, bias, SOFTPLUS), 0.0)  # 0 leaves the state as it is
            steps += (step,)
            drives += (step * x,)
            skips += (skip_weight * x,)
            sums += (tl.zeros((ROWS, STATE_LANES, LANES), tl.float32),)

        for first in range(0, num_states, STATE_LANES):
            n = first + tl.arange(0, STATE_LANES)[None, :, None]
            known = inside & (n < num_states)
            A_n = tl.load(A + n * channels, known, 0.0)
            h = tl.load(states + n * channels, known, 0.0)
            if KEEP_STARTS:
                tl.store(starts + (tile * num_states + n) * channels, h, known)
            added = ()
            for i in tl.static_range(STEPS):
                read = (n < num_states) & (_step(tile, i, STEPS) < length)
                r, c = _place(_step(tile, i, STEPS), turn, height, width)
                B_t = tl.load(B + r * B_strides[1] + c * B_strides[2] + n * B_strides[4], read, 0.0)
                C_t = tl.load(C + r * C_strides[1] + c * C_strides[2] + n * C_strides[4], read, 0.0)
                h = tl.exp2(steps[i] * A_n) * h + drives[i] * B_t.to(tl.float32)
                added += (sums[i] + h * C_t.to(tl.float32),)
            sums = added
            tl.store(states + n * channels, h, known)

        for i in tl.static_range(STEPS):
            there = inside & (_step(tile, i, STEPS) < length)
            r, c = _place(_step(tile, i, STEPS), turn, height, width)
            y_t = tl.sum(sums[i], 1, keep_dims=True) + skips[i]
            tl.store(y + (r * width + c) * directions * channels, y_t, there)


@triton.jit
def walk_back(
    grad_y,
    u,
    delta,
    A,
    B,
    C,
    D,
    delta_bias,
    starts,
    carries,
    grad_u,
    grad_delta,
    grad_A,
    grad_B,
    grad_C,
    grad_D,
    grad_delta_bias,
    grad_y_strides,
    u_strides,
    delta_strides,
    B_strides,
    C_strides,
    sizes,
    TURNING: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    STATE_LANES: tl.constexpr,
    LANES: tl.constexpr,
):
    """Every direction walked in reverse: in each tile the states are recomputed from its start.

    Gradients of u and delta are (B, H, W, K, d), of A (B, K, N, d), of D and delta_bias (B, K, d), of B and C
    (blocks, B, H, W, K, N): parts that the caller sums, in a fixed order. `carries` and `grad_A` come zeroed.
    """
    height, width, directions, channels, num_states = sizes
    length = height * width
    tiles = tl.cdiv(length, STEPS)
    batch, k, block = _program(channels, directions, ROWS * LANES)
    turn = k if TURNING else 0
    row, lane = tl.arange(0, ROWS)[:, None, None], tl.arange(0, LANES)[None, None, :]
    channel = block * (ROWS * LANES) + row * LANES + lane
    inside = channel < channels

    walked = batch * directions + k
    grad_y += batch * grad_y_strides[0] + k * grad_y_strides[3] + channel * grad_y_strides[4]
    u += batch * u_strides[0] + k * u_strides[3] + channel * u_strides[4]
    delta += batch * delta_strides[0] + k * delta_strides[3] + channel * delta_strides[4]
    B += batch * B_strides[0] + k * B_strides[3]
    C += batch * C_strides[0] + k * C_strides[3]
    A += k * num_states * channels + channel
    starts += walked * tiles * num_states * channels + channel
    carries += walked * num_states * channels + channel
    grad_A += walked * num_states * channels + channel
    grad_u += (batch * length * directions + k) * channels + channel
    grad_delta += (batch * length * directions + k) * channels + channel
    batches = tl.num_programs(0) // (directions * tl.cdiv(channels, ROWS * LANES))
    of_block = ((block * batches + batch) * length * directions + k) * num_states
    grad_B += of_block
    grad_C += of_block
    bias = tl.zeros((ROWS, 1, LANES), tl.float32)
    skip_weight = tl.zeros((ROWS, 1, LANES), tl.float32)
    if delta_bias is not None:
        bias = tl.load(delta_bias + k * channels + channel, inside, 0.0)
    if D is not None:
        skip_weight = tl.load(D + k * channels + channel, inside, 0.0)
    bias_sum = tl.zeros((ROWS, 1, LANES), tl.float32)
    skip_sum = tl.zeros((ROWS, 1, LANES), tl.float32)

    for tile_after in range(tiles):
        tile = tiles - 1 - tile_after
        tl.debug_barrier()  # what the last tile left may have been written by another thread
        steps, drives, towards, to_drives, to_steps = (), (), (), (), ()
        for i in tl.static_range(STEPS):
            there = inside & (_step(tile, i, STEPS) < length)
            r, c = _place(_step(tile, i, STEPS), turn, height, width)
            x = tl.load(u + r * u_strides[1] + c * u_strides[2], there, 0.0).to(tl.float32)
            raw = tl.load(delta + r * delta_strides[1] + c * delta_strides[2], there, 0.0)
            grad = tl.load(grad_y + r * grad_y_strides[1] + c * grad_y_strides[2], there, 0.0)
            step = tl.where(there, _step_size(raw, bias, SOFTPLUS), 0.0)
            steps += (step,)
            drives += (step * x,)
            towards += (grad.to(tl.float32),)
            to_drives += (tl.zeros((ROWS, STATE_LANES, LANES), tl.float32),)
            to_steps += (tl.zeros((ROWS, STATE_LANES, LANES), tl.float32),)

        for first in range(0, num_states, STATE_LANES):
            n = first + tl.arange(0, STATE_LANES)[None, :, None]
            known = inside & (n < num_states)
            A_n = tl.load(A + n * channels, known, 0.0)
            h = tl.load(starts + (tile * num_states + n) * channels, known, 0.0)
            carry = tl.load(carries + n * channels, known, 0.0)  # gradient of the state handed on
            A_sum = tl.load(grad_A + n * channels, known, 0.0)
            before, decays, inputs = (), (), ()
            for i in tl.static_range(STEPS):
                read = (n < num_states) & (_step(tile, i, STEPS) < length)
                r, c = _place(_step(tile, i, STEPS), turn, height, width)
                B_t = tl.load(B + r * B_strides[1] + c * B_strides[2] + n * B_strides[4], read, 0.0)
                before += (h,)
                decays += (tl.exp2(steps[i] * A_n),)
                inputs += (B_t.to(tl.float32),)
                h = decays[i] * h + drives[i] * inputs[i]

            drives_so_far, steps_so_far = (), ()
            for i in tl.static_range(STEPS - 1, -1, -1):
                read = (n < num_states) & (_step(tile, i, STEPS) < length)
                r, c = _place(_step(tile, i, STEPS), turn, height, width)
                C_t = tl.load(C + r * C_strides[1] + c * C_strides[2] + n * C_strides[4], read, 0.0)
                carry += C_t.to(tl.float32) * towards[i]  # now of the state after step i
                at = (r * width + c) * directions * num_states + n
                tl.store(grad_C + at, _over_channels(h * towards[i]), read)
                tl.store(grad_B + at, _over_channels(carry * drives[i]), read)
                drives_so_far = (to_drives[i] + carry * inputs[i],) + drives_so_far  # noqa: RUF005 -- Triton knows no stars
                carry *= decays[i]
                h = before[i]
                to_exponent = carry * h
                steps_so_far = (to_steps[i] + to_exponent * A_n,) + steps_so_far  # noqa: RUF005
                A_sum += to_exponent * steps[i]
            to_drives, to_steps = drives_so_far, steps_so_far
            tl.store(carries + n * channels, carry, known)
            tl.store(grad_A + n * channels, A_sum, known)

        for i in tl.static_range(STEPS):
            there = inside & (_step(tile, i, STEPS) < length)
            r, c = _place(_step(tile, i, STEPS), turn, height, width)
            x = tl.load(u + r * u_strides[1] + c * u_strides[2], there, 0.0).to(tl.float32)
            to_drive = tl.sum(to_drives[i], 1, keep_dims=True)
            to_delta = LN_2 * tl.sum(to_steps[i], 1, keep_dims=True) + to_drive * x
            if SOFTPLUS:
                raw = tl.load(delta + r * delta_strides[1] + c * delta_strides[2], there, 0.0)
                to_delta *= tl.sigmoid(raw.to(tl.float32) + bias)
            to_u = to_drive * steps[i] + skip_weight * towards[i]
            at = (r * width + c) * directions * channels
            tl.store(grad_u + at, to_u, there)
            tl.store(grad_delta + at, to_delta, there)
            bias_sum += to_delta
            skip_sum += towards[i] * x

    tl.store(grad_delta_bias + walked * channels + channel, bias_sum, inside)
    tl.store(grad_D + walked * channels + channel, skip_sum, inside)
