/* What a device does: utilisation, memory, power, clocks, temperature, throttling, processes. */
#include "nvml.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEM, CLOCK_VIDEO };
enum { LEFTOVER_PID_BASE = 4190000 }; /* near the kernel's largest pid: hardly any real process has it */
static const unsigned SUPPORTED_REASONS = 0x1FF, NO_INSTANCE = 0xFFFFFFFF, SAMPLING_PERIOD_US = 167000;

#define NUMBER_CALL(function, type, value)                           \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, type *out) { \
        struct view view;                                            \
        nvmlReturn_t result = look(device, out, &view);              \
        if (result == NVML_SUCCESS)                                  \
            *out = (type)(value);                                    \
        return result;                                               \
    }

NVML_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result == NVML_SUCCESS)
        *out = (nvmlUtilization_t){(unsigned)lround(100 * view.state.utilisation),
                                   (unsigned)lround(100 * view.state.memory_utilisation)};
    return result;
}

static nvmlReturn_t media_utilisation(nvmlDevice_t device, unsigned *utilisation, unsigned *period_us) {
    struct view view;
    nvmlReturn_t result = look(device, utilisation && period_us ? utilisation : NULL, &view);
    if (result == NVML_SUCCESS) {
        *utilisation = 0;
        *period_us = SAMPLING_PERIOD_US;
    }
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned *utilisation, unsigned *period_us) {
    return media_utilisation(device, utilisation, period_us);
}

NVML_API nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned *utilisation, unsigned *period_us) {
    return media_utilisation(device, utilisation, period_us);
}

/* ---- who is alive ---- */

/* The inode of this process's pid namespace, as in the link "pid:[4026531836]"; 0 if unknown. */
static uint64_t own_pid_namespace(void) {
    char link[64];
    ssize_t length = readlink("/proc/self/ns/pid", link, sizeof link - 1);
    if (length < 6)
        return 0;
    link[length] = '\0';
    return strtoull(link + 5, NULL, 10);
}

/* A process of another pid namespace cannot be looked up: its hint's time to live decides. */
static bool is_alive(const struct process *process) {
    bool foreign = process->pid_namespace && process->pid_namespace != own_pid_namespace();
    return foreign || kill((pid_t)process->pid, 0) == 0 || errno != ESRCH;
}

/* A process takes its memory with it when it dies, as on a real device, whatever time its last hint had left. */
static void bury_the_dead(struct state *state) {
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (state->process[i].pid > 0 && !is_alive(&state->process[i]))
            state->process[i].until_ns = 0;
}

static uint64_t used_bytes(struct view *view) {
    bury_the_dead(&view->state);
    return allocated_bytes(view->model, &view->state);
}

/* ---- memory: in version 1 `used` includes what the driver reserves, in version 2 it does not ---- */

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result == NVML_SUCCESS) {
        uint64_t used = used_bytes(&view) + view.model->reserved_bytes;
        *out = (nvmlMemory_t){view.model->memory_bytes, view.model->memory_bytes - used, used};
    }
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (out->version != NVML_STRUCT_VERSION(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    uint64_t total = view.model->memory_bytes, reserved = view.model->reserved_bytes;
    uint64_t used = used_bytes(&view);
    *out = (nvmlMemory_v2_t){out->version, total, reserved, total - reserved - used, used};
    return result;
}

/* ---- power, milliwatts and millijoules ---- */

NUMBER_CALL(nvmlDeviceGetPowerUsage, unsigned, lround(1e3 * view.state.power_w))
NUMBER_CALL(nvmlDeviceGetEnforcedPowerLimit, unsigned, 1e3 * view.model->power_limit_w)
NUMBER_CALL(nvmlDeviceGetPowerManagementLimit, unsigned, 1e3 * view.model->power_limit_w)
NUMBER_CALL(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 1e3 * view.model->power_limit_w)
NUMBER_CALL(nvmlDeviceGetPowerManagementMode, unsigned, 1)
NUMBER_CALL(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 1e3 * view.state.energy_j)

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *low, unsigned *high) {
    struct view view;
    nvmlReturn_t result = look(device, low && high ? low : NULL, &view);
    if (result == NVML_SUCCESS) {
        *low = (unsigned)(1e3 * view.model->power_min_limit_w);
        *high = (unsigned)(1e3 * view.model->power_limit_w);
    }
    return result;
}

/* ---- clocks, MHz ---- */

static nvmlReturn_t clock_of(nvmlDevice_t device, unsigned type, unsigned *out, bool now) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS || type > CLOCK_VIDEO)
        return result != NVML_SUCCESS ? result : NVML_ERROR_INVALID_ARGUMENT;
    double ratio = now ? view.state.sm_mhz / view.model->sm_max_mhz : 1;
    if (type == CLOCK_MEM)
        *out = view.model->memory_mhz;
    else
        *out = (unsigned)lround(ratio * (type == CLOCK_VIDEO ? view.model->video_max_mhz : view.model->sm_max_mhz));
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *out) {
    return clock_of(device, type, out, true);
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *out) {
    return clock_of(device, type, out, false);
}

NVML_API nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *out) {
    return clock_of(device, type, out, false);
}

NVML_API nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *out) {
    return clock_of(device, type, out, false);
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t device, unsigned type, unsigned *out) {
    return clock_of(device, type, out, false);
}

NVML_API nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned type, unsigned id, unsigned *out) {
    return id > 3 ? NVML_ERROR_INVALID_ARGUMENT : clock_of(device, type, out, id == 0);
}

NUMBER_CALL(nvmlDeviceGetPerformanceState, unsigned, 0) /* data-centre GPUs stay in P0, idle or not */
NUMBER_CALL(nvmlDeviceGetPowerState, unsigned, 0)
NUMBER_CALL(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, view.drive.reasons)
NUMBER_CALL(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, view.drive.reasons)
NUMBER_CALL(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, SUPPORTED_REASONS)
NUMBER_CALL(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, SUPPORTED_REASONS)

/* ---- temperature, degrees Celsius ---- */

NVML_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS || sensor != 0)
        return result != NVML_SUCCESS ? result : NVML_ERROR_INVALID_ARGUMENT;
    *out = (unsigned)lround(temperature_reading_c(view.model, &view.state));
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *out) {
    unsigned celsius = 0;
    if (out && out->version != NVML_STRUCT_VERSION(nvmlTemperature_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = nvmlDeviceGetTemperature(device, out ? out->sensorType : 0, out ? &celsius : NULL);
    if (result == NVML_SUCCESS)
        out->temperature = (int)celsius;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned which, unsigned *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    const struct model *model = view.model;
    double thresholds[] = {model->temperature_shutdown_c, model->temperature_slowdown_c, model->memory_temperature_max_c,
                           model->temperature_max_c};
    if (which >= sizeof thresholds / sizeof thresholds[0])
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (unsigned)lround(thresholds[which]);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (out->version != NVML_STRUCT_VERSION(nvmlMarginTemperature_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    out->marginTemperature = (int)lround(view.model->temperature_slowdown_c - temperature_reading_c(view.model, &view.state));
    return result;
}

/* ---- processes ---- */

static unsigned list_processes(struct view *view, nvmlProcessInfo_t *list) {
    const struct state *state = &view->state;
    unsigned count = 0;
    bury_the_dead(&view->state);
    for (int i = 0; i < MAX_PROCESSES; i++) {
        const struct process *process = &state->process[i];
        if (process->pid > 0 && process->until_ns > state->ns)
            list[count++] = (nvmlProcessInfo_t){(unsigned)process->pid, process->bytes, NO_INSTANCE, NO_INSTANCE};
    }
    if (state->faults.leftover_bytes)
        list[count++] = (nvmlProcessInfo_t){LEFTOVER_PID_BASE + view->device->index, state->faults.leftover_bytes,
                                            NO_INSTANCE, NO_INSTANCE};
    return count;
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {
    struct view view;
    nvmlProcessInfo_t list[MAX_PROCESSES + 1];
    nvmlReturn_t result = look(device, count, &view);
    if (result != NVML_SUCCESS)
        return result;
    unsigned found = list_processes(&view, list), room = *count;
    *count = found;
    if (found > room || (found && !infos))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++)
        infos[i] = list[i];
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, infos);
}

static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned *count) {
    struct view view;
    nvmlReturn_t result = look(device, count, &view);
    if (result == NVML_SUCCESS)
        *count = 0;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {
    (void)infos;
    return no_processes(device, count);
}

NVML_API nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {
    (void)infos;
    return no_processes(device, count);
}
