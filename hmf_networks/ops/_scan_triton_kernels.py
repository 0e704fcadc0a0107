"""The selective scan as Triton kernels. Imported by `_scan_triton.py` alone, as it needs Triton to load.

One program walks one direction of one batch entry for a block of channels, STEPS tokens at a time, and finds
its way over the map by itself: in every direction a map is lines, and along a line tokens lie a fixed stride
apart. A thread holds ROWS channels of one state; the lanes of a warp are STATE_LANES states x LANES channels,
as sums over both are needed. The states are taken STATE_LANES at a time and wait in memory for the next tile
(the first cache holds them), so that registers do not bound their number. A tile is unrolled into tuples, one
entry for each of its steps. Exponentials are powers of two: A comes times log2(e).

Letters as in `selective_scan_2d`; strides are in the order batch, row, column, direction, channel or state.
"""

# flake8: noqa: N803, N806

# mypy: ignore-errors
# Triton reads these functions itself and gives their operators another meaning.

import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x):
    """max(x, 0) + log(1 + e), e = exp(-|x|): exact to the last digits also where it is small.

    log(1 + e) / e is a polynomial through the Chebyshev points of [0, 1], 4e-8 off at most.
    """
    e = tl.exp2(tl.abs(x) * -LOG2_E)
    series = -0.0290740646 + e * 0.00512610212
    series = 0.0775160866 + e * series
    series = -0.136022476 + e * series
    series = 0.190768807 + e * series
    series = -0.24835399 + e * series
    series = 0.333181217 + e * series
    series = -0.49999445 + e * series
    series = 0.999999966 + e * series
    return tl.maximum(x, 0.0) + e * series


@triton.jit
def _step_size(delta, delta_bias, SOFTPLUS: tl.constexpr):
    size = delta.to(tl.float32) + delta_bias
    if SOFTPLUS:
        size = _softplus(size)
    return size


@triton.jit
def _program(channels, directions, BLOCK: tl.constexpr):
    """Batch entry, direction and block of channels; neighbours share B and C, so these stay in the cache."""
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, BLOCK)
    block, rest = program % blocks, program // blocks
    return (rest // directions).to(tl.int64), rest % directions, block


@triton.jit
def _path(row_stride, column_stride, direction, height, width):
    """Where a direction of `scan_order.py` starts, and its strides from line to line and along a line."""
    reversed_ = (direction % 2).to(tl.int64)
    start = reversed_ * (height - 1) * row_stride + reversed_ * (width - 1) * column_stride
    sign = 1 - 2 * reversed_
    across = sign * tl.where(direction < 2, row_stride, column_stride)
    along = sign * tl.where(direction < 2, column_stride, row_stride)
    return start, across, along


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
    """Outputs of every direction, y (B, H, W, K, d), and with KEEP_STARTS every tile's first states.

    `states` (B, K, N, d) comes zeroed; `starts` is (B, K, tiles, N, d), tiles the most of any direction.
    """
    height, width, directions, channels, num_states, most_tiles = sizes
    batch, k, block = _program(channels, directions, ROWS * LANES)
    direction = k * TURNING
    lines = tl.where(direction < 2, height, width)
    line_length = tl.where(direction < 2, width, height)
    line_tiles = tl.cdiv(line_length, STEPS)
    row, lane = tl.arange(0, ROWS)[:, None, None], tl.arange(0, LANES)[None, None, :]
    channel = block * (ROWS * LANES) + row * LANES + lane
    inside = channel < channels

    pixel = directions * channels
    u_start, u_across, u_along = _path(u_strides[1], u_strides[2], direction, height, width)
    delta_start, delta_across, delta_along = _path(delta_strides[1], delta_strides[2], direction, height, width)
    B_start, B_across, B_along = _path(B_strides[1], B_strides[2], direction, height, width)
    C_start, C_across, C_along = _path(C_strides[1], C_strides[2], direction, height, width)
    y_start, y_across, y_along = _path(width * pixel, pixel, direction, height, width)
    u += u_start + batch * u_strides[0] + k * u_strides[3] + channel * u_strides[4]
    delta += delta_start + batch * delta_strides[0] + k * delta_strides[3] + channel * delta_strides[4]
    B += B_start + batch * B_strides[0] + k * B_strides[3]
    C += C_start + batch * C_strides[0] + k * C_strides[3]
    y += y_start + batch * height * width * pixel + k * channels + channel
    A += k * num_states * channels + channel
    states += (batch * directions + k) * num_states * channels + channel
    starts += (batch * directions + k) * most_tiles * num_states * channels + channel
    bias = tl.zeros((ROWS, 1, LANES), tl.float32)
    skip_weight = tl.zeros((ROWS, 1, LANES), tl.float32)
    if delta_bias is not None:
        bias = tl.load(delta_bias + k * channels + channel, inside, 0.0)
    if D is not None:
        skip_weight = tl.load(D + k * channels + channel, inside, 0.0)

    for tile in range(lines * line_tiles):
        tl.debug_barrier()  # the state that the last tile left may have been written by another thread
        line, first = tile // line_tiles, tile % line_tiles * STEPS
        place = first + tl.zeros((1, 1, 1), tl.int32)  # a tensor, so that comparisons with it are masks
        u_tile = u + (line * u_across + first * u_along)
        delta_tile = delta + (line * delta_across + first * delta_along)
        B_tile = B + (line * B_across + first * B_along)
        C_tile = C + (line * C_across + first * C_along)
        y_tile = y + (line * y_across + first * y_along)
        steps, drives, skips, sums = (), (), (), ()
        for i in tl.static_range(STEPS):
            there = inside & (place + i < line_length)
            x = tl.load(u_tile + i * u_along, there, 0.0).to(tl.float32)
            raw = tl.load(delta_tile + i * delta_along, there, 0.0)
            step = tl.where(there, _step_size(raw, bias, SOFTPLUS), 0.0)  # 0 leaves the state as it is
            steps += (step,)
            drives += (step * x,)
            skips += (skip_weight * x,)
            sums += (tl.zeros((ROWS, STATE_LANES, LANES), tl.float32),)

        for first_state in range(0, num_states, STATE_LANES):
            n = first_state + tl.arange(0, STATE_LANES)[None, :, None]
            known = inside & (n < num_states)
            A_n = tl.load(A + n * channels, known, 0.0)
            h = tl.load(states + n * channels, known, 0.0)
            if KEEP_STARTS:
                tl.store(starts + (tile * num_states + n) * channels, h, known)
            B_n, C_n = B_tile + n * B_strides[4], C_tile + n * C_strides[4]
            added = ()
            for i in tl.static_range(STEPS):
                read = (n < num_states) & (place + i < line_length)
                B_t = tl.load(B_n + i * B_along, read, 0.0).to(tl.float32)
                C_t = tl.load(C_n + i * C_along, read, 0.0).to(tl.float32)
                h = tl.exp2(steps[i] * A_n) * h + drives[i] * B_t
                added += (sums[i] + h * C_t,)
            sums = added
            tl.store(states + n * channels, h, known)

        for i in tl.static_range(STEPS):
            y_t = tl.sum(sums[i], 1, keep_dims=True) + skips[i]
            tl.store(y_tile + i * y_along, y_t, inside & (place + i < line_length))


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
    (blocks, B, H, W, K, N): parts that the caller sums, in a fixed order. `carries` (B, K, N, d), gradients
    of the states that tiles hand on, and `grad_A` come zeroed.
    """
    height, width, directions, channels, num_states, most_tiles = sizes
    batch, k, block = _program(channels, directions, ROWS * LANES)
    direction = k * TURNING
    lines = tl.where(direction < 2, height, width)
    line_length = tl.where(direction < 2, width, height)
    line_tiles = tl.cdiv(line_length, STEPS)
    row, lane = tl.arange(0, ROWS)[:, None, None], tl.arange(0, LANES)[None, None, :]
    channel = block * (ROWS * LANES) + row * LANES + lane
    inside = channel < channels

    pixel, of_states = directions * channels, directions * num_states
    g_start, g_across, g_along = _path(grad_y_strides[1], grad_y_strides[2], direction, height, width)
    u_start, u_across, u_along = _path(u_strides[1], u_strides[2], direction, height, width)
    delta_start, delta_across, delta_along = _path(delta_strides[1], delta_strides[2], direction, height, width)
    B_start, B_across, B_along = _path(B_strides[1], B_strides[2], direction, height, width)
    C_start, C_across, C_along = _path(C_strides[1], C_strides[2], direction, height, width)
    d_start, d_across, d_along = _path(width * pixel, pixel, direction, height, width)
    n_start, n_across, n_along = _path(width * of_states, of_states, direction, height, width)
    walked = batch * directions + k
    grad_y += g_start + batch * grad_y_strides[0] + k * grad_y_strides[3] + channel * grad_y_strides[4]
    u += u_start + batch * u_strides[0] + k * u_strides[3] + channel * u_strides[4]
    delta += delta_start + batch * delta_strides[0] + k * delta_strides[3] + channel * delta_strides[4]
    B += B_start + batch * B_strides[0] + k * B_strides[3]
    C += C_start + batch * C_strides[0] + k * C_strides[3]
    A += k * num_states * channels + channel
    starts += walked * most_tiles * num_states * channels + channel
    carries += walked * num_states * channels + channel
    grad_A += walked * num_states * channels + channel
    to_token = d_start + batch * height * width * pixel + k * channels + channel
    grad_u += to_token
    grad_delta += to_token
    batches = tl.num_programs(0) // (directions * tl.cdiv(channels, ROWS * LANES))
    to_part = n_start + (block * batches + batch) * height * width * of_states + k * num_states
    grad_B += to_part
    grad_C += to_part
    bias = tl.zeros((ROWS, 1, LANES), tl.float32)
    skip_weight = tl.zeros((ROWS, 1, LANES), tl.float32)
    if delta_bias is not None:
        bias = tl.load(delta_bias + k * channels + channel, inside, 0.0)
    if D is not None:
        skip_weight = tl.load(D + k * channels + channel, inside, 0.0)
    bias_sum = tl.zeros((ROWS, 1, LANES), tl.float32)
    skip_sum = tl.zeros((ROWS, 1, LANES), tl.float32)

    tiles = lines * line_tiles
    for tiles_after in range(tiles):
        tl.debug_barrier()  # what the last tile left may have been written by another thread
        tile = tiles - 1 - tiles_after
        line, first = tile // line_tiles, tile % line_tiles * STEPS
        place = first + tl.zeros((1, 1, 1), tl.int32)  # a tensor, so that comparisons with it are masks
        g_tile = grad_y + (line * g_across + first * g_along)
        u_tile = u + (line * u_across + first * u_along)
        delta_tile = delta + (line * delta_across + first * delta_along)
        B_tile = B + (line * B_across + first * B_along)
        C_tile = C + (line * C_across + first * C_along)
        of_tile = line * d_across + first * d_along
        states_of_tile = line * n_across + first * n_along
        steps, drives, towards, to_drives, to_steps = (), (), (), (), ()
        for i in tl.static_range(STEPS):
            there = inside & (place + i < line_length)
            x = tl.load(u_tile + i * u_along, there, 0.0).to(tl.float32)
            raw = tl.load(delta_tile + i * delta_along, there, 0.0)
            step = tl.where(there, _step_size(raw, bias, SOFTPLUS), 0.0)
            steps += (step,)
            drives += (step * x,)
            towards += (tl.load(g_tile + i * g_along, there, 0.0).to(tl.float32),)
            to_drives += (tl.zeros((ROWS, STATE_LANES, LANES), tl.float32),)
            to_steps += (tl.zeros((ROWS, STATE_LANES, LANES), tl.float32),)

        for first_state in range(0, num_states, STATE_LANES):
            n = first_state + tl.arange(0, STATE_LANES)[None, :, None]
            known = inside & (n < num_states)
            A_n = tl.load(A + n * channels, known, 0.0)
            h = tl.load(starts + (tile * num_states + n) * channels, known, 0.0)
            carry = tl.load(carries + n * channels, known, 0.0)
            A_sum = tl.load(grad_A + n * channels, known, 0.0)
            B_n, C_n = B_tile + n * B_strides[4], C_tile + n * C_strides[4]
            to_B, to_C = grad_B + (states_of_tile + n), grad_C + (states_of_tile + n)
            before, decays, inputs = (), (), ()
            for i in tl.static_range(STEPS):
                read = (n < num_states) & (place + i < line_length)
                before += (h,)
                decays += (tl.exp2(steps[i] * A_n),)
                inputs += (tl.load(B_n + i * B_along, read, 0.0).to(tl.float32),)
                h = decays[i] * h + drives[i] * inputs[i]

            drives_after, steps_after = (), ()
            for i in tl.static_range(STEPS - 1, -1, -1):
                read = (n < num_states) & (place + i < line_length)
                C_t = tl.load(C_n + i * C_along, read, 0.0).to(tl.float32)
                carry += C_t * towards[i]  # now the gradient of the state after step i
                tl.store(to_C + i * n_along, _over_channels(h * towards[i]), read)
                tl.store(to_B + i * n_along, _over_channels(carry * drives[i]), read)
                # Triton knows no stars
                drives_after = (to_drives[i] + carry * inputs[i],) + drives_after  # noqa: RUF005
                carry *= decays[i]
                h = before[i]
                to_exponent = carry * h
                steps_after = (to_steps[i] + to_exponent * A_n,) + steps_after  # noqa: RUF005
                A_sum += to_exponent * steps[i]
            to_drives, to_steps = drives_after, steps_after
            tl.store(carries + n * channels, carry, known)
            tl.store(grad_A + n * channels, A_sum, known)

        for i in tl.static_range(STEPS):
            there = inside & (place + i < line_length)
            x = tl.load(u_tile + i * u_along, there, 0.0).to(tl.float32)
            to_drive = tl.sum(to_drives[i], 1, keep_dims=True)
            to_delta = tl.sum(to_steps[i], 1, keep_dims=True) * LN_2 + to_drive * x
            if SOFTPLUS:
                raw = tl.load(delta_tile + i * delta_along, there, 0.0)
                to_delta *= tl.sigmoid(raw.to(tl.float32) + bias)
            to_u = to_drive * steps[i] + skip_weight * towards[i]
            tl.store(grad_u + (of_tile + i * d_along), to_u, there)
            tl.store(grad_delta + (of_tile + i * d_along), to_delta, there)
            bias_sum += tl.where(there, to_delta, 0.0)
            skip_sum += towards[i] * x

    tl.store(grad_delta_bias + walked * channels + channel, bias_sum, inside)
    tl.store(grad_D + walked * channels + channel, skip_sum, inside)
