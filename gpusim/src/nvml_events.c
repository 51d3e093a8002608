/* Event sets: a set remembers, per device, how many notices it has seen, and delivers the next one. */
#include "nvml.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static const uint64_t SUPPORTED = 0x1 | 0x2 | 0x8; /* single-bit, double-bit, Xid */
static const long POLL_NS = 20000000;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* several threads may wait on one set */

typedef struct {
    struct { uint64_t types, seen; } device[MAX_GPUS];
} *nvmlEventSet_t;

NVML_API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    if (!set)
        return NVML_ERROR_INVALID_ARGUMENT;
    *set = calloc(1, sizeof **set);
    return *set ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

NVML_API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    if (!set)
        return NVML_ERROR_INVALID_ARGUMENT;
    free(set);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    struct view view;
    nvmlReturn_t result = look(device, types, &view);
    if (result == NVML_SUCCESS)
        *types = SUPPORTED;
    return result;
}

/* Only what happens after the registration is delivered. */
NVML_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    struct view view;
    nvmlReturn_t result = look(device, set, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (types & ~SUPPORTED)
        return NVML_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&lock);
    if (!set->device[view.device->index].types)
        set->device[view.device->index].seen = view.state.notices;
    set->device[view.device->index].types |= types;
    pthread_mutex_unlock(&lock);
    return result;
}

/* The next notice of this device that the set wants; older ones than the state keeps are lost. */
static const struct notice *next_notice(nvmlEventSet_t set, unsigned index, const struct state *state) {
    uint64_t *seen = &set->device[index].seen;
    if (state->notices > *seen + MAX_NOTICES)
        *seen = state->notices - MAX_NOTICES;
    for (; *seen < state->notices; ++*seen)
        if (state->notice[*seen % MAX_NOTICES].type & set->device[index].types)
            return &state->notice[(*seen)++ % MAX_NOTICES];
    return NULL;
}

static bool deliver(nvmlEventSet_t set, nvmlEventData_t *data) {
    struct view view;
    for (unsigned index = 0; index < MAX_GPUS; index++) {
        if (!set->device[index].types || look_even_lost(handle_of(index), data, &view) != NVML_SUCCESS)
            continue;
        const struct notice *notice = next_notice(set, index, &view.state);
        if (notice) {
            *data = (nvmlEventData_t){handle_of(index), notice->type, notice->data, 0xFFFFFFFF, 0xFFFFFFFF};
            return true;
        }
    }
    return false;
}

static bool deliver_locked(nvmlEventSet_t set, nvmlEventData_t *data) {
    pthread_mutex_lock(&lock);
    bool delivered = deliver(set, data);
    pthread_mutex_unlock(&lock);
    return delivered;
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

NVML_API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    int64_t end_ns = monotonic_ns() + (int64_t)timeout_ms * 1000000;
    if (!set || !data)
        return NVML_ERROR_INVALID_ARGUMENT;
    while (!deliver_locked(set, data)) {
        int64_t left_ns = end_ns - monotonic_ns();
        if (left_ns <= 0)
            return NVML_ERROR_TIMEOUT;
        nanosleep(&(struct timespec){.tv_nsec = left_ns < POLL_NS ? (long)left_ns : POLL_NS}, NULL);
    }
    return NVML_SUCCESS;
}
