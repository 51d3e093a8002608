/* How a device is: ECC, row remapping, retired pages, violations. All memory errors are in DRAM. */
#include "nvml.h"

enum { CORRECTED, UNCORRECTED, ERROR_TYPES };
enum { VOLATILE, AGGREGATE, COUNTER_TYPES };
enum { LOCATION_DRAM = 2, LOCATION_COUNT = 8 };
enum { POLICY_POWER = 0, POLICY_THERMAL = 1, POLICY_COUNT = 12 };

NVML_API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    struct view view;
    nvmlReturn_t result = look(device, current && pending ? current : NULL, &view);
    if (result == NVML_SUCCESS)
        *current = *pending = 1;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, unsigned *mode) {
    unsigned pending;
    return nvmlDeviceGetEccMode(device, mode, &pending);
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned type, unsigned counter,
                                                      unsigned location, unsigned long long *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (type >= ERROR_TYPES || counter >= COUNTER_TYPES || location >= LOCATION_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    uint64_t errors = type == CORRECTED ? view.state.faults.corrected : view.state.faults.uncorrected;
    *out = location == LOCATION_DRAM ? errors : 0;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter,
                                                  unsigned long long *out) {
    return nvmlDeviceGetMemoryErrorCounter(device, type, counter, LOCATION_DRAM, out);
}

NVML_API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (out->version != NVML_STRUCT_VERSION(nvmlEccSramErrorStatus_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    *out = (nvmlEccSramErrorStatus_t){.version = out->version};
    return result;
}

/* A pending row is remapped at the next reset, so the counts of remapped rows stay 0. */
NVML_API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected, unsigned *uncorrected,
                                                unsigned *pending, unsigned *failed) {
    struct view view;
    nvmlReturn_t result = look(device, corrected && uncorrected && pending && failed ? corrected : NULL, &view);
    if (result == NVML_SUCCESS) {
        *corrected = *uncorrected = 0;
        *pending = view.state.faults.remap_pending;
        *failed = view.state.faults.remap_failed;
    }
    return result;
}

/* Remapping fails when a bank has no spare row left. */
NVML_API nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result == NVML_SUCCESS) {
        unsigned none = view.state.faults.remap_failed;
        *out = (nvmlRowRemapperHistogramValues_t){.max = view.model->row_banks - none, .none = none};
    }
    return result;
}

/* Ampere and newer remap rows; they retire no pages. */
static nvmlReturn_t remaps_instead(nvmlDevice_t device, const void *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    return result == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : result;
}

NVML_API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *count,
                                                unsigned long long *addresses) {
    (void)cause, (void)addresses;
    return remaps_instead(device, count);
}

NVML_API nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, unsigned cause, unsigned *count,
                                                   unsigned long long *addresses, unsigned long long *times) {
    (void)cause, (void)addresses, (void)times;
    return remaps_instead(device, count);
}

NVML_API nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned *pending) {
    return remaps_instead(device, pending);
}

NVML_API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned policy, nvmlViolationTime_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS || policy >= POLICY_COUNT)
        return result != NVML_SUCCESS ? result : NVML_ERROR_INVALID_ARGUMENT;
    double seconds = policy == POLICY_POWER     ? view.state.violation_s[VIOLATION_POWER]
                     : policy == POLICY_THERMAL ? view.state.violation_s[VIOLATION_THERMAL]
                                                : 0;
    out->referenceTime = (unsigned long long)(view.state.ns / 1000); /* microseconds */
    out->violationTime = (unsigned long long)(1e9 * seconds);
    return result;
}
