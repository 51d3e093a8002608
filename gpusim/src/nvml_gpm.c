/* GPM: metrics over the time between two samples, on Hopper and newer.
 *
 * A sample keeps the integrals of every share; a metric is their difference over the time between. Percentages carry a
 * deterministic noise of at most +-2 % of their value, one factor for all SM metrics of a pair of samples (so that
 * tensor never exceeds SM activity) and one for DRAM; rates in MiB/s carry none, so that counters integrate them. */
#include "nvml.h"

#include <math.h>
#include <stdlib.h>

enum { HOPPER = 9, GPM_VERSION = 1, FIRST_LINK = 62, LAST_LINK = 97 };
static const double NOISE = 0.02, MIB = 1 << 20;

typedef struct {
    bool taken;
    unsigned index;
    struct state state;
} *nvmlGpmSample_t;

typedef struct {
    unsigned metricId;
    nvmlReturn_t nvmlReturn;
    double value;
    struct { const char *shortName, *longName, *unit; } metricInfo;
} nvmlGpmMetric_t;

/* The array is as long as the caller's header says; only numMetrics of it are used. */
typedef struct {
    unsigned version, numMetrics;
    nvmlGpmSample_t sample1, sample2;
    nvmlGpmMetric_t metrics[];
} nvmlGpmMetricsGet_t;

typedef struct { unsigned version, isSupportedDevice; } nvmlGpmSupport_t;

/* Metrics that are a share of time or of a peak, in percent; SHARE_COUNT is a metric that is always 0 here. */
static const struct { unsigned id; enum share share; const char *name; } percentages[] = {
    {1, SHARE_GR, "GRAPHICS_UTIL"}, {2, SHARE_SM, "SM_UTIL"}, {3, SHARE_OCCUPANCY, "SM_OCCUPANCY"},
    {4, SHARE_INTEGER, "INTEGER_UTIL"}, {5, SHARE_TENSOR, "ANY_TENSOR_UTIL"}, {6, SHARE_COUNT, "DFMA_TENSOR_UTIL"},
    {7, SHARE_TENSOR, "HMMA_TENSOR_UTIL"}, {9, SHARE_COUNT, "IMMA_TENSOR_UTIL"}, {10, SHARE_DRAM, "DRAM_BW_UTIL"},
    {11, SHARE_FP64, "FP64_UTIL"}, {12, SHARE_FP32, "FP32_UTIL"}, {13, SHARE_FP16, "FP16_UTIL"}};

NVML_API nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (out->version != GPM_VERSION)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    out->isSupportedDevice = view.model->architecture >= HOPPER;
    return result;
}

NVML_API nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample) {
    if (!sample)
        return NVML_ERROR_INVALID_ARGUMENT;
    *sample = calloc(1, sizeof **sample);
    return *sample ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

NVML_API nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample) {
    if (!sample)
        return NVML_ERROR_INVALID_ARGUMENT;
    free(sample);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample) {
    struct view view;
    nvmlReturn_t result = look(device, sample, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (view.model->architecture < HOPPER)
        return NVML_ERROR_NOT_SUPPORTED;
    sample->taken = true;
    sample->index = view.device->index;
    sample->state = view.state;
    return result;
}

/* splitmix64: well mixed, and the same everywhere. */
static uint64_t mixed(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static double noise_factor(const struct state *from, const struct state *to, unsigned index, bool dram) {
    uint64_t hash = mixed(mixed((uint64_t)to->ns) ^ mixed((uint64_t)from->ns + index) ^ dram);
    return 1 + NOISE * (2 * (double)(hash >> 11) / 9007199254740992.0 - 1); /* 53 random bits over 2^53 */
}

static bool percentage(const nvmlGpmMetricsGet_t *get, nvmlGpmMetric_t *metric) {
    const struct state *from = &get->sample1->state, *to = &get->sample2->state;
    for (size_t i = 0; i < sizeof percentages / sizeof percentages[0]; i++) {
        enum share share = percentages[i].share;
        if (percentages[i].id != metric->metricId)
            continue;
        double busy_s = share == SHARE_COUNT ? 0 : to->busy_s[share] - from->busy_s[share];
        double noise = noise_factor(from, to, get->sample1->index, share == SHARE_DRAM);
        metric->value = fmin(100, 100 * noise * busy_s / ((double)(to->ns - from->ns) * 1e-9));
        metric->metricInfo.shortName = metric->metricInfo.longName = percentages[i].name;
        metric->metricInfo.unit = "%";
        return true;
    }
    return false;
}

static double link_bytes(const struct state *state, unsigned links, bool transmit, int only) {
    double sum = 0;
    for (unsigned link = 0; link < links; link++)
        if (only < 0 || (unsigned)only == link)
            sum += transmit ? state->link_tx_bytes[link] : state->link_rx_bytes[link];
    return sum;
}

/* Bytes since boot behind a rate metric; false if the metric is none. */
static bool bytes_behind(unsigned id, const struct model *model, const struct state *state, double *bytes) {
    bool odd = id % 2;
    if (id == 20 || id == 21)
        *bytes = model->pcie_bytes_per_s * state->busy_s[id == 20 ? SHARE_PCIE_TX : SHARE_PCIE_RX];
    else if (id == 60 || id == 61)
        *bytes = link_bytes(state, model->nvlinks, odd, -1);
    else if (id >= FIRST_LINK && id <= LAST_LINK && (id - FIRST_LINK) / 2 < model->nvlinks)
        *bytes = link_bytes(state, model->nvlinks, odd, (int)(id - FIRST_LINK) / 2);
    else
        return false;
    return true;
}

static bool rate(const nvmlGpmMetricsGet_t *get, nvmlGpmMetric_t *metric) {
    const struct state *from = &get->sample1->state, *to = &get->sample2->state;
    const struct model *model = &simulator_inventory()->model;
    double before, after;
    if (!bytes_behind(metric->metricId, model, from, &before) || !bytes_behind(metric->metricId, model, to, &after))
        return false;
    metric->value = (after - before) / ((double)(to->ns - from->ns) * 1e-9) / MIB;
    metric->metricInfo.shortName = metric->metricInfo.longName = metric->metricId < 60 ? "PCIE_PER_SEC" : "NVLINK_PER_SEC";
    metric->metricInfo.unit = "MiB/s";
    return true;
}

/* Without two samples of one device, taken one after the other, there is no time between: every metric is blank. */
static bool is_pair(const nvmlGpmMetricsGet_t *get) {
    return get->sample1->taken && get->sample2->taken && get->sample1->index == get->sample2->index &&
           get->sample2->state.ns > get->sample1->state.ns;
}

NVML_API nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get) {
    if (!get || !get->sample1 || !get->sample2)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (get->version != GPM_VERSION)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    bool pair = is_pair(get);
    for (unsigned i = 0; i < get->numMetrics; i++) {
        nvmlGpmMetric_t *metric = &get->metrics[i];
        metric->value = NAN;
        metric->nvmlReturn = NVML_ERROR_NO_DATA;
        if (pair)
            metric->nvmlReturn = percentage(get, metric) || rate(get, metric) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    }
    return NVML_SUCCESS;
}
