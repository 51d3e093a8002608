/* nvmlDeviceGetFieldValues. A field that is not here answers NVML_ERROR_NOT_SUPPORTED in its own result.
 *
 * For NVLink throughput, scopeId is the link, and UINT_MAX the sum of all links. */
#include "nvml.h"

#include <limits.h>
#include <math.h>

enum { FIELD_MAX = 308, NVLINK_WIRE_OVERHEAD_PERCENT = 6 };
enum value_type { TYPE_UNSIGNED = 1, TYPE_ULL = 3 };
static const double KIB = 1024, MBPS_PER_BYTE_PER_S = 1.0625e-6; /* 25 GB/s of data is 26562 MB/s on the wire */

/* Per-link fields come in two runs: links 0-5 from `low`, links 6-11 from `high`. */
static bool link_of(unsigned id, unsigned low, unsigned high, unsigned *link) {
    if (id >= low && id < low + 6)
        *link = id - low;
    else if (id >= high && id < high + 6)
        *link = id - high + 6;
    else
        return false;
    return true;
}

static nvmlReturn_t give(nvmlFieldValue_t *field, enum value_type type, double value) {
    field->valueType = type;
    if (type == TYPE_UNSIGNED)
        field->value.uiVal = (unsigned)llround(value);
    else
        field->value.ullVal = (unsigned long long)value;
    return NVML_SUCCESS;
}

static nvmlReturn_t ecc_field(const struct view *view, nvmlFieldValue_t *field) {
    const struct faults *faults = &view->state.faults;
    switch (field->fieldId) {
    case 1: case 2: return give(field, TYPE_UNSIGNED, 1);                                     /* mode */
    case 3: case 5: case 11: case 22: return give(field, TYPE_ULL, (double)faults->corrected);   /* totals and DRAM */
    case 4: case 6: case 12: case 23: return give(field, TYPE_ULL, (double)faults->uncorrected);
    case 142: case 143: return give(field, TYPE_UNSIGNED, 0);                                 /* rows already remapped */
    case 144: return give(field, TYPE_UNSIGNED, faults->remap_pending);
    case 145: return give(field, TYPE_UNSIGNED, faults->remap_failed);
    case 230: return give(field, TYPE_UNSIGNED, faults->remap_pending);                       /* recovery: 1 is reset */
    default: return field->fieldId >= 7 && field->fieldId <= 28 ? give(field, TYPE_ULL, 0) : NVML_ERROR_NOT_SUPPORTED;
    }
}

static nvmlReturn_t power_field(const struct view *view, nvmlFieldValue_t *field) {
    const struct model *model = view->model;
    switch (field->fieldId) {
    case 82: return give(field, TYPE_UNSIGNED, memory_temperature_c(model, &view->state));
    case 83: case 191: return give(field, TYPE_ULL, 1e3 * view->state.energy_j);
    case 185: case 186: return give(field, TYPE_UNSIGNED, 1e3 * view->state.power_w);
    case 187: return give(field, TYPE_UNSIGNED, 1e3 * model->power_min_limit_w);
    case 188: case 189: case 190: case 192: return give(field, TYPE_UNSIGNED, 1e3 * model->power_limit_w);
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

static nvmlReturn_t violation_field(const struct view *view, nvmlFieldValue_t *field) {
    const struct state *state = &view->state;
    switch (field->fieldId) {
    case 74: return give(field, TYPE_ULL, 1e9 * state->violation_s[VIOLATION_POWER]);
    case 75: return give(field, TYPE_ULL, 1e9 * state->violation_s[VIOLATION_THERMAL]);
    case 76: case 77: case 78: case 79: case 80: case 81: return give(field, TYPE_ULL, 0);
    case 269: return give(field, TYPE_ULL, 1e9 * state->reason_s[5]); /* bit of REASON_SW_THERMAL */
    case 270: return give(field, TYPE_ULL, 1e9 * state->reason_s[6]); /* ... of REASON_HW_THERMAL */
    case 271: return give(field, TYPE_ULL, 1e9 * state->reason_s[7]); /* ... of REASON_HW_POWER_BRAKE */
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

static nvmlReturn_t pcie_field(const struct view *view, nvmlFieldValue_t *field) {
    double peak = view->model->pcie_bytes_per_s;
    switch (field->fieldId) {
    case 94: case 95: return give(field, TYPE_UNSIGNED, 0); /* replays, and their roll-overs */
    case 197: return give(field, TYPE_ULL, peak * view->state.busy_s[SHARE_PCIE_TX]);
    case 198: return give(field, TYPE_ULL, peak * view->state.busy_s[SHARE_PCIE_RX]);
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

static nvmlReturn_t throughput_field(const struct view *view, nvmlFieldValue_t *field) {
    bool transmit = field->fieldId == 138 || field->fieldId == 140, raw = field->fieldId >= 140;
    const double *bytes = transmit ? view->state.link_tx_bytes : view->state.link_rx_bytes;
    double sum = 0;
    if (field->scopeId != UINT_MAX && field->scopeId >= view->model->nvlinks)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned link = 0; link < view->model->nvlinks; link++)
        if (field->scopeId == UINT_MAX || field->scopeId == link)
            sum += bytes[link];
    return give(field, TYPE_ULL, sum * (raw ? 1 + NVLINK_WIRE_OVERHEAD_PERCENT / 100.0 : 1) / KIB);
}

static double link_mbps(const struct view *view, unsigned link) {
    return link_is_active(view->model, &view->state, link) ? view->model->nvlink_bytes_per_s * MBPS_PER_BYTE_PER_S : 0;
}

/* Fields of one link that is named by scopeId. */
static nvmlReturn_t scoped_field(const struct view *view, nvmlFieldValue_t *field) {
    unsigned link = field->scopeId;
    double errors = link == 0 ? (double)view->state.faults.nvlink_errors : 0;
    if (link >= view->model->nvlinks)
        return NVML_ERROR_INVALID_ARGUMENT;
    switch (field->fieldId) {
    case 161: case 163: return give(field, TYPE_ULL, errors); /* replays and CRC */
    case 162: return give(field, TYPE_ULL, 0);                /* recoveries */
    case 164: return give(field, TYPE_UNSIGNED, link_mbps(view, link));
    case 165: return give(field, TYPE_UNSIGNED, link_is_active(view->model, &view->state, link));
    case 166: return give(field, TYPE_UNSIGNED, view->model->nvlink_version);
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

/* Fields with the link in their number, and their totals. All errors are CRC errors of link 0, each with a replay. */
static nvmlReturn_t link_field(const struct view *view, nvmlFieldValue_t *field) {
    unsigned id = field->fieldId, link = 0;
    double errors = (double)view->state.faults.nvlink_errors;
    if (id == 38 || id == 52)
        return give(field, TYPE_ULL, errors);
    if (id == 45 || id == 59 || (id >= 148 && id <= 160))
        return give(field, TYPE_ULL, 0);
    if (id == 91)
        return give(field, TYPE_UNSIGNED, view->model->nvlinks);
    if (id == 147)
        return give(field, TYPE_UNSIGNED, view->model->nvlink_to_switch ? view->model->nvlinks : 0);
    if (id == 90)
        return give(field, TYPE_UNSIGNED, view->model->nvlink_bytes_per_s * MBPS_PER_BYTE_PER_S);
    if (link_of(id, 32, 96, &link) || link_of(id, 46, 108, &link))
        return give(field, TYPE_ULL, link == 0 ? errors : 0);
    if (link_of(id, 39, 102, &link) || link_of(id, 53, 114, &link))
        return give(field, TYPE_ULL, 0);
    if (link_of(id, 84, 132, &link))
        return give(field, TYPE_UNSIGNED, link_mbps(view, link));
    return NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t value_of(const struct view *view, nvmlFieldValue_t *field) {
    static nvmlReturn_t (*const topics[])(const struct view *, nvmlFieldValue_t *) = {
        ecc_field, power_field, violation_field, pcie_field, link_field};
    unsigned id = field->fieldId;
    if (id == 0 || id >= FIELD_MAX)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (id >= 138 && id <= 141)
        return throughput_field(view, field);
    if (id >= 161 && id <= 166)
        return scoped_field(view, field);
    nvmlReturn_t result = NVML_ERROR_NOT_SUPPORTED;
    for (size_t i = 0; i < sizeof topics / sizeof topics[0] && result == NVML_ERROR_NOT_SUPPORTED; i++)
        result = topics[i](view, field);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    struct view view;
    nvmlReturn_t result = look(device, count > 0 ? values : NULL, &view);
    for (int i = 0; result == NVML_SUCCESS && i < count; i++) {
        values[i].timestamp = view.state.ns / 1000;
        values[i].latencyUsec = 0;
        values[i].value.ullVal = 0;
        values[i].nvmlReturn = value_of(&view, &values[i]);
    }
    return result;
}
