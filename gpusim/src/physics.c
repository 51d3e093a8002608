/* How activity becomes power, clocks, heat and counters.
 *
 * Between two events a GPU's drive is constant: every counter grows linearly, and utilisation, clock and power approach
 * their targets as first-order lags; temperature follows power through a second lag. All are solved in closed form, so
 * the size of the steps does not matter. The constants are chosen, not measured. */
#include "gpusim.h"

#include <math.h>
#include <string.h>

static const double TAU_UTILISATION_S = 0.25, TAU_CLOCK_S = 0.2, TAU_POWER_S = 0.5, TAU_HEAT_S = 15;
static const double THROTTLE_RATIO = 0.5;    /* NVML: a hardware slowdown divides the clocks by 2 or more */
static const double SW_THERMAL_RATIO = 0.75; /* chosen: software slows down before hardware must */
static const double MEMORY_OVER_GPU_C = 8;   /* chosen: HBM runs warmer than the die under load */

/* Power above idle, as a share of the span from idle to the limit, per unit of each share. The weights give 572 W for
 * the published H100 training sample (the compute phase) and more than the limit for a pure matrix multiplication. */
static const struct { enum share share; double weight; } power_weights[] = {
    {SHARE_GR, 0.10}, {SHARE_SM, 0.46}, {SHARE_TENSOR, 0.60}, {SHARE_DRAM, 0.45}, {SHARE_FP64, 0.60},
    {SHARE_FP32, 0.20}, {SHARE_NVLINK_TX, 0.025}, {SHARE_NVLINK_RX, 0.025}};

/* 1 - exp(-x). expm1 because exp has a new version in glibc 2.29, and the library must load in older images. */
static double approach(double x) {
    return -expm1(-x);
}

bool link_is_active(const struct model *model, const struct state *state, unsigned link) {
    return link < model->nvlinks && !(state->faults.links_down >> link & 1);
}

unsigned links_active(const struct model *model, const struct state *state) {
    unsigned active = 0;
    for (unsigned link = 0; link < model->nvlinks; link++)
        active += link_is_active(model, state, link);
    return active;
}

/* The hint in force: a hang covers everything, a fresh hint covers the script, and without either the GPU is idle. */
static struct hint workload(const struct state *state, struct drive *out) {
    if (state->faults.lost)
        return (struct hint){.phase = PHASE_IDLE};
    if (state->faults.hang)
        return (struct hint){.phase = PHASE_HANG, .level = 1};
    if (state->hint.until_ns > state->ns)
        return state->hint;
    out->scripted = state->script.running;
    return out->scripted ? state->script.now : (struct hint){.phase = PHASE_IDLE};
}

static void set_shares(const struct model *model, const struct state *state, const struct hint *hint, struct drive *out) {
    double slow = state->faults.slow;
    for (int i = 0; i < SHARE_COUNT; i++)
        out->share[i] = model->profile[hint->phase][i] * hint->level * (i == SHARE_UTIL ? 1 : slow);
    double links = model->nvlinks ? (double)links_active(model, state) / model->nvlinks : 0;
    out->share[SHARE_NVLINK_TX] *= links;
    out->share[SHARE_NVLINK_RX] *= links;
}

static unsigned throttle_reasons(const struct model *model, const struct faults *faults) {
    unsigned reasons = faults->throttle;
    if (faults->has_temperature && faults->temperature_c >= model->temperature_slowdown_c)
        reasons |= REASON_HW_THERMAL | REASON_HW_SLOWDOWN;
    else if (faults->has_temperature && faults->temperature_c >= model->temperature_max_c)
        reasons |= REASON_SW_THERMAL;
    return reasons;
}

static double load(const double *share) {
    double sum = 0;
    for (size_t i = 0; i < sizeof power_weights / sizeof power_weights[0]; i++)
        sum += power_weights[i].weight * share[power_weights[i].share];
    return sum;
}

/* The clock ratio that throttling and the power limit leave; dynamic power goes with its square. */
static double clock_ratio(const struct model *model, const struct drive *drive, unsigned *reasons) {
    double ratio = *reasons & REASON_HW_SLOWDOWN ? THROTTLE_RATIO : *reasons & REASON_SW_THERMAL ? SW_THERMAL_RATIO : 1;
    double span = model->power_limit_w - model->power_idle_w, wanted = load(drive->share) * span;
    if (wanted * ratio * ratio > span) {
        *reasons |= REASON_SW_POWER_CAP;
        ratio = sqrt(span / wanted);
    }
    return ratio;
}

void drive_of(const struct model *model, const struct state *state, struct drive *out) {
    memset(out, 0, sizeof *out);
    struct hint hint = workload(state, out);
    set_shares(model, state, &hint, out);
    out->reasons = throttle_reasons(model, &state->faults);
    double ratio = clock_ratio(model, out, &out->reasons);
    double span = model->power_limit_w - model->power_idle_w, slow = state->faults.slow;
    out->power_w = model->power_idle_w + span * load(out->share) * ratio * ratio;
    bool busy = out->share[SHARE_UTIL] > 0;
    out->sm_mhz = busy ? model->sm_max_mhz * ratio * slow : model->sm_idle_mhz;
    out->reasons |= busy ? 0 : REASON_IDLE;
    for (int i = SHARE_NVLINK_TX; i <= SHARE_PCIE_RX; i++)
        out->share[i] *= ratio;
    out->share[SHARE_DRAM] *= ratio;
    out->until_ns = state->hint.until_ns > state->ns ? state->hint.until_ns : INT64_MAX;
    if (state->script.running && state->script.now.until_ns < out->until_ns)
        out->until_ns = state->script.now.until_ns;
}

static const unsigned violation_reasons[VIOLATION_COUNT] = {
    [VIOLATION_POWER] = REASON_SW_POWER_CAP | REASON_HW_POWER_BRAKE,
    [VIOLATION_THERMAL] = REASON_SW_THERMAL | REASON_HW_THERMAL};

static void count_reasons(struct state *state, unsigned reasons, double dt_s) {
    for (int bit = 0; bit < MAX_REASONS; bit++)
        if (reasons >> bit & 1)
            state->reason_s[bit] += dt_s;
    for (int i = 0; i < VIOLATION_COUNT; i++)
        if (reasons & violation_reasons[i])
            state->violation_s[i] += dt_s;
}

static void count(const struct model *model, struct state *state, const struct drive *drive, double dt_s) {
    for (int i = 0; i < SHARE_COUNT; i++)
        state->busy_s[i] += drive->share[i] * dt_s;
    count_reasons(state, drive->reasons, dt_s);
    unsigned active = links_active(model, state);
    double peak = active ? model->nvlinks * model->nvlink_bytes_per_s / active * dt_s : 0;
    for (unsigned link = 0; link < model->nvlinks; link++)
        if (link_is_active(model, state, link)) {
            state->link_tx_bytes[link] += drive->share[SHARE_NVLINK_TX] * peak;
            state->link_rx_bytes[link] += drive->share[SHARE_NVLINK_RX] * peak;
        }
}

static void lag(double *value, double target, double dt_s, double tau_s) {
    *value += (target - *value) * approach(dt_s / tau_s);
}

/* T' = (ambient + R P(t) - T) / tau_heat with P(t) = P1 + (P0 - P1) exp(-t / tau_power), solved exactly. */
static void heat(const struct model *model, struct state *state, const struct drive *drive, double dt_s) {
    double per_w = (model->temperature_full_c - model->temperature_idle_c) / (model->power_limit_w - model->power_idle_w);
    double final = model->temperature_idle_c + per_w * (drive->power_w - model->power_idle_w);
    double fast = per_w * (state->power_w - drive->power_w) * TAU_POWER_S / (TAU_POWER_S - TAU_HEAT_S);
    double slow = state->temperature_c - final - fast;
    state->temperature_c = final + fast * (1 - approach(dt_s / TAU_POWER_S)) + slow * (1 - approach(dt_s / TAU_HEAT_S));
}

static void step(const struct model *model, struct state *state, const struct drive *drive, int64_t to_ns) {
    double dt_s = (double)(to_ns - state->ns) * 1e-9;
    count(model, state, drive, dt_s);
    heat(model, state, drive, dt_s);
    state->energy_j += drive->power_w * dt_s + (state->power_w - drive->power_w) * TAU_POWER_S * approach(dt_s / TAU_POWER_S);
    lag(&state->power_w, drive->power_w, dt_s, TAU_POWER_S);
    lag(&state->sm_mhz, drive->sm_mhz, dt_s, TAU_CLOCK_S);
    lag(&state->utilisation, drive->share[SHARE_UTIL], dt_s, TAU_UTILISATION_S);
    lag(&state->memory_utilisation, drive->share[SHARE_DRAM], dt_s, TAU_UTILISATION_S);
    state->ns = to_ns;
    if (state->script.running && state->script.now.until_ns <= to_ns)
        script_next(&state->script);
}

void state_settle(const struct model *model, struct state *state, int64_t ns) {
    struct drive drive;
    for (drive_of(model, state, &drive); drive.until_ns <= ns; drive_of(model, state, &drive))
        step(model, state, &drive, drive.until_ns);
}

void state_advance(const struct model *model, struct state *state, int64_t ns) {
    struct drive drive;
    state_settle(model, state, ns);
    if (ns > state->ns) {
        drive_of(model, state, &drive);
        step(model, state, &drive, ns);
    }
}

double temperature_reading_c(const struct model *model, const struct state *state) {
    const struct faults *faults = &state->faults;
    if (faults->has_temperature)
        return faults->temperature_c;
    bool thermal = faults->throttle & REASON_HW_THERMAL;
    return thermal ? fmax(state->temperature_c, model->temperature_slowdown_c) : state->temperature_c;
}

double memory_temperature_c(const struct model *model, const struct state *state) {
    double share = (state->power_w - model->power_idle_w) / (model->power_limit_w - model->power_idle_w);
    return temperature_reading_c(model, state) + MEMORY_OVER_GPU_C * fmax(share, 0);
}
