/* The physics: closed forms agree with small steps, counters with their rates, and faults with what they stand for. */
#include "check.h"

static struct inventory inventory;
static const struct model *const model = &inventory.model;

static struct state booted(void) {
    struct state state;
    state_boot(&inventory, &state);
    return state;
}

/* The size of the steps does not matter: one of 20 s gives what 20 000 of 1 ms give. */
static void is_solved_exactly(void) {
    struct state one = booted(), many = booted();
    happen(model, &one, 1, "activity compute ttl=30");
    happen(model, &many, 1, "activity compute ttl=30");
    until(model, &one, 21);
    for (int i = 0; i <= 20000; i++)
        until(model, &many, 1 + i * 1e-3);
    CHECK_NEAR(one.power_w, many.power_w, 1e-6);
    CHECK_NEAR(one.temperature_c, many.temperature_c, 1e-6);
    CHECK_NEAR(one.energy_j, many.energy_j, 1e-5);
    CHECK_NEAR(one.sm_mhz, many.sm_mhz, 1e-6);
    CHECK_NEAR(one.link_tx_bytes[0], many.link_tx_bytes[0], 1e3);
}

/* Euler's method with small steps, from the same differential equations, comes to the same temperature. */
static void heats_as_its_equation_says(void) {
    struct state state = booted();
    happen(model, &state, 0, "activity compute ttl=100");
    until(model, &state, 10);
    double power_w = 70, celsius = 30, dt_s = 1e-4, target_w = 0;
    struct drive drive;
    drive_of(model, &state, &drive);
    target_w = drive.power_w;
    for (int i = 0; i < 100000; i++) {
        celsius += dt_s * (30 + 40 * (power_w - 70) / 630 - celsius) / 15;
        power_w += dt_s * (target_w - power_w) / 0.5;
    }
    CHECK_NEAR(state.temperature_c, celsius, 0.01);
    CHECK_NEAR(state.power_w, power_w, 0.01);
}

static void compute_draws_the_published_power(void) {
    struct state state = booted();
    happen(model, &state, 0, "activity compute ttl=100");
    until(model, &state, 60);
    CHECK_NEAR(state.power_w, 572, 6);
    CHECK_NEAR(state.sm_mhz, 1980, 1);
}

static void hints_expire(void) {
    struct state state = booted();
    struct drive drive;
    happen(model, &state, 1, "activity compute ttl=2 pid=7");
    until(model, &state, 2.9);
    CHECK(allocated_bytes(model, &state) == model->memory_bytes / 2);
    until(model, &state, 10);
    drive_of(model, &state, &drive);
    CHECK(drive.reasons == REASON_IDLE && allocated_bytes(model, &state) == 0);
    CHECK_NEAR(state.busy_s[SHARE_UTIL], 2, 1e-9);
}

static void scripts_follow_their_loops(void) {
    struct state state = booted();
    happen(model, &state, 0, "script loop 3; compute 2; communication 1; end; idle 5; loop 2; compute 1; end");
    until(model, &state, 100);
    CHECK_NEAR(state.busy_s[SHARE_UTIL], 3 * 3 + 2, 1e-9);
    CHECK_NEAR(state.busy_s[SHARE_TENSOR], (3 * 2 + 2) * 0.279, 1e-9);
    CHECK(!state.script.running);
    happen(model, &state, 100, "script loop forever; loop 2; compute 1; end; idle 2; end");
    until(model, &state, 500);
    CHECK(state.script.running);
    CHECK_NEAR(state.busy_s[SHARE_UTIL], 11 + 200, 1e-6);
}

static void a_hint_covers_the_script(void) {
    struct state state = booted();
    happen(model, &state, 0, "script compute 10");
    happen(model, &state, 2, "activity idle ttl=3");
    until(model, &state, 20);
    CHECK_NEAR(state.busy_s[SHARE_UTIL], 7, 1e-9);
}

static void the_power_limit_caps_the_clock(void) {
    struct inventory small = inventory;
    small.model.power_limit_w = 300;
    small.model.profile[PHASE_COMPUTE][SHARE_TENSOR] = 0.9;
    struct state state = booted();
    struct drive drive;
    happen(&small.model, &state, 0, "activity compute ttl=100");
    until(&small.model, &state, 50);
    drive_of(&small.model, &state, &drive);
    CHECK(drive.reasons == REASON_SW_POWER_CAP);
    CHECK_NEAR(state.power_w, 300, 0.01);
    CHECK(state.sm_mhz < 1900);
}

static void throttling_lowers_clock_and_power(void) {
    struct state free_running = booted(), throttled = booted();
    happen(model, &throttled, 0, "throttle thermal");
    happen(model, &free_running, 0, "activity compute ttl=100");
    happen(model, &throttled, 0, "activity compute ttl=100");
    until(model, &free_running, 50);
    until(model, &throttled, 50);
    CHECK(throttled.sm_mhz < 0.6 * free_running.sm_mhz && throttled.power_w < 0.6 * free_running.power_w);
    CHECK(temperature_reading_c(model, &throttled) >= model->temperature_slowdown_c);
    CHECK_NEAR(throttled.reason_s[6], 50, 1e-9);
    happen(model, &throttled, 50, "clear");
    until(model, &throttled, 51);
    CHECK(temperature_reading_c(model, &throttled) < 80);
}

static void a_down_link_carries_nothing(void) {
    struct state state = booted();
    happen(model, &state, 0, "activity communication ttl=100");
    until(model, &state, 1);
    happen(model, &state, 1, "nvlink-down 2");
    until(model, &state, 3);
    CHECK_NEAR(state.link_tx_bytes[2], 0.6 * 25e9, 1);
    CHECK_NEAR(state.link_tx_bytes[1], 3 * 0.6 * 25e9, 10);
    CHECK_NEAR(state.busy_s[SHARE_NVLINK_TX], 0.6 * (1 + 2 * 0.75), 1e-9);
}

static void clear_undoes_every_fault(void) {
    static const char *const faults[] = {"xid 79", "throttle power", "ecc-corrected 5", "ecc-uncorrected 3", "remap failed",
                                         "nvlink-down 1", "nvlink-errors 9", "pcie-width 8", "slow 0.5", "leftover-memory 1000",
                                         "temp 95", "hang"};
    struct state state = booted(), fresh = booted();
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        happen(model, &state, 1, faults[i]);
        CHECK(memcmp(&state.faults, &fresh.faults, sizeof state.faults) != 0);
        happen(model, &state, 1, "clear");
        CHECK(memcmp(&state.faults, &fresh.faults, sizeof state.faults) == 0);
    }
}

int main(void) {
    load(&inventory);
    is_solved_exactly();
    heats_as_its_equation_says();
    compute_draws_the_published_power();
    hints_expire();
    scripts_follow_their_loops();
    a_hint_covers_the_script();
    the_power_limit_caps_the_clock();
    throttling_lowers_clock_and_power();
    a_down_link_carries_nothing();
    clear_undoes_every_fault();
    puts("test_physics: ok");
}
