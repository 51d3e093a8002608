/* A check that says where it failed, and the small model that the tests share. */
#ifndef PIOLET_GPUSIM_CHECK_H
#define PIOLET_GPUSIM_CHECK_H

#include "gpusim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

#define CHECK_NEAR(a, b, tolerance) CHECK(fabs((a) - (b)) <= (tolerance))

enum { SECOND = 1000000000 };

static const char *const test_inventory =
    "driver 1.0-sim\ncuda 12040\nboot_ns 0\nname Test GPU\ncompute_capability 9.0\narchitecture 9\n"
    "memory_mib 1000\nmemory_reserved_mib 10\npower_idle_w 70\npower_limit_w 700\npower_min_limit_w 200\n"
    "sm_idle_mhz 345\nsm_max_mhz 1980\ntemperature_idle_c 30\ntemperature_full_c 70\ntemperature_max_c 87\n"
    "temperature_slowdown_c 89\ntemperature_shutdown_c 92\nnvlinks 4\nnvlink_bytes_per_s 25e9\n"
    "pcie_bytes_per_s 63e9\nunknown_key 1\n"
    "profile compute util=1 gr=0.97 sm=0.91 tensor=0.279 dram=0.214 fp32=0.054 nvlink_tx=0.15 nvlink_rx=0.15 memory=0.5\n"
    "profile communication util=1 gr=0.95 sm=0.2 dram=0.12 nvlink_tx=0.6 nvlink_rx=0.6 memory=0.5\n"
    "profile hang util=1 gr=1 sm=0.18 dram=0.002 memory=0.5\n"
    "gpu 0 minor=3 uuid=GPU-a serial=1 bus=0009:1b:00.0\ngpu 1 minor=1 uuid=GPU-b serial=2 bus=0000:43:00.0\n";

static inline void load(struct inventory *inventory) {
    CHECK(inventory_parse(test_inventory, inventory));
}

/* Apply one line, given without its time, at `seconds`. */
static inline void happen(const struct model *model, struct state *state, double seconds, const char *what) {
    char line[512];
    struct event event;
    snprintf(line, sizeof line, "%lld %s", (long long)(seconds * SECOND), what);
    CHECK(event_parse(line, strlen(line), &event));
    state_advance(model, state, event.ns);
    state_apply(model, state, &event);
}

static inline void until(const struct model *model, struct state *state, double seconds) {
    state_advance(model, state, (int64_t)(seconds * SECOND));
}

#endif
