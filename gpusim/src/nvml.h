/* The part of NVML's binary interface that the simulator offers: result codes, structures and their versions, as
 * nvidia-ml-py 12 and 13 call them. Names are NVML's own. */
#ifndef PIOLET_NVML_H
#define PIOLET_NVML_H

#include "gpusim.h"

#define NVML_API __attribute__((visibility("default")))

typedef enum {
    NVML_SUCCESS = 0, NVML_ERROR_UNINITIALIZED = 1, NVML_ERROR_INVALID_ARGUMENT = 2, NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4, NVML_ERROR_NOT_FOUND = 6, NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9, NVML_ERROR_TIMEOUT = 10, NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_GPU_IS_LOST = 15, NVML_ERROR_MEMORY = 20, NVML_ERROR_NO_DATA = 21,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25, NVML_ERROR_UNKNOWN = 999
} nvmlReturn_t;

typedef struct nvmlDevice { unsigned index; } *nvmlDevice_t;

typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned long long referenceTime, violationTime; } nvmlViolationTime_t;
typedef struct { unsigned max, high, partial, low, none; } nvmlRowRemapperHistogramValues_t;
typedef struct { unsigned version, sensorType; int temperature; } nvmlTemperature_t;
typedef struct { unsigned version; int marginTemperature; } nvmlMarginTemperature_t;
typedef struct {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
typedef struct {
    unsigned version, domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass;
    char busId[32];
} nvmlPciInfoExt_t;
typedef struct {
    unsigned version;
    unsigned long long aggregateUncParity, aggregateUncSecDed, aggregateCor, volatileUncParity, volatileUncSecDed,
        volatileCor, aggregateUncBucketL2, aggregateUncBucketSm, aggregateUncBucketPcie, aggregateUncBucketMcu,
        aggregateUncBucketOther;
    unsigned bThresholdExceeded;
} nvmlEccSramErrorStatus_t;
typedef union {
    double dVal;
    unsigned uiVal;
    unsigned long ulVal;
    unsigned long long ullVal;
    long long sllVal;
} nvmlValue_t;
typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;
typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

/* Version words: the size of the structure in the low 24 bits, its number above. */
#define NVML_STRUCT_VERSION(type, number) ((unsigned)(sizeof(type) | (unsigned)(number) << 24))

/* Look at a device for a call that answers through `out`: NVML_ERROR_UNINITIALIZED, _INVALID_ARGUMENT, _GPU_IS_LOST
 * after Xid 79, or NVML_SUCCESS with the view filled. */
nvmlReturn_t look(nvmlDevice_t device, const void *out, struct view *view);
/* As `look`, also for a GPU that is lost: events about it still arrive. */
nvmlReturn_t look_even_lost(nvmlDevice_t device, const void *out, struct view *view);
nvmlDevice_t handle_of(unsigned index);
/* Copy a text; NVML_ERROR_INSUFFICIENT_SIZE if it does not fit with its end. */
nvmlReturn_t copy_text(char *to, unsigned size, const char *text);
void fill_pci_info(const struct model *model, const struct device *at, nvmlPciInfo_t *out);

#endif
