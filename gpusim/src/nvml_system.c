/* Initialisation, versions, counting and finding devices. */
#include "nvml.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int references;
static struct nvmlDevice devices[MAX_GPUS];

NVML_API nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    bool good = references > 0 || simulator_load();
    references += good;
    for (unsigned i = 0; i < MAX_GPUS; i++)
        devices[i].index = i;
    pthread_mutex_unlock(&lock);
    return good ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}

NVML_API nvmlReturn_t nvmlInit_v2(void) {
    return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlInit(void) {
    return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    bool good = references > 0;
    references -= good;
    pthread_mutex_unlock(&lock);
    return good ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

static nvmlReturn_t ready(const void *out) {
    pthread_mutex_lock(&lock);
    bool good = references > 0;
    pthread_mutex_unlock(&lock);
    if (!good)
        return NVML_ERROR_UNINITIALIZED;
    return out ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlDevice_t handle_of(unsigned index) {
    return &devices[index];
}

nvmlReturn_t look_even_lost(nvmlDevice_t device, const void *out, struct view *view) {
    nvmlReturn_t result = ready(out);
    if (result != NVML_SUCCESS)
        return result;
    for (unsigned i = 0; i < simulator_inventory()->count; i++)
        if (device == &devices[i]) {
            simulator_look(i, view);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t look(nvmlDevice_t device, const void *out, struct view *view) {
    nvmlReturn_t result = look_even_lost(device, out, view);
    return result == NVML_SUCCESS && view->state.faults.lost ? NVML_ERROR_GPU_IS_LOST : result;
}

nvmlReturn_t copy_text(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, text);
    return NVML_SUCCESS;
}

static const struct { nvmlReturn_t result; const char *text; } error_texts[] = {
    {NVML_SUCCESS, "Success"}, {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
    {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"}, {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
    {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"}, {NVML_ERROR_NOT_FOUND, "Not Found"},
    {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"}, {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
    {NVML_ERROR_TIMEOUT, "Timeout"}, {NVML_ERROR_FUNCTION_NOT_FOUND, "Function Not Found"},
    {NVML_ERROR_GPU_IS_LOST, "GPU is lost"}, {NVML_ERROR_MEMORY, "Insufficient Memory"},
    {NVML_ERROR_NO_DATA, "No data"}, {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch"}};

NVML_API const char *nvmlErrorString(nvmlReturn_t result) {
    for (size_t i = 0; i < sizeof error_texts / sizeof error_texts[0]; i++)
        if (error_texts[i].result == result)
            return error_texts[i].text;
    return "Unknown Error";
}

NVML_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    nvmlReturn_t result = ready(version);
    return result ? result : copy_text(version, length, simulator_inventory()->driver);
}

NVML_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    char text[100];
    nvmlReturn_t result = ready(version);
    snprintf(text, sizeof text, "12.%s", simulator_inventory()->driver);
    return result ? result : copy_text(version, length, text);
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    nvmlReturn_t result = ready(version);
    if (result == NVML_SUCCESS)
        *version = simulator_inventory()->cuda;
    return result;
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

/* The first word of the command line, as the driver gives it. */
NVML_API nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    char path[64], text[1024] = "";
    nvmlReturn_t result = ready(name);
    if (result != NVML_SUCCESS)
        return result;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return NVML_ERROR_NOT_FOUND;
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    return got ? copy_text(name, length, text) : NVML_ERROR_NOT_FOUND;
}

NVML_API nvmlReturn_t nvmlUnitGetCount(unsigned *count) {
    nvmlReturn_t result = ready(count);
    if (result == NVML_SUCCESS)
        *count = 0;
    return result;
}

/* A GPU that fell off the bus stays in the count until the driver is loaded again. */
NVML_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    nvmlReturn_t result = ready(count);
    if (result == NVML_SUCCESS)
        *count = simulator_inventory()->count;
    return result;
}

static nvmlReturn_t give(unsigned index, nvmlDevice_t *device) {
    struct view view;
    nvmlReturn_t result = look(&devices[index], device, &view);
    if (result == NVML_SUCCESS)
        *device = &devices[index];
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    nvmlReturn_t result = ready(device);
    if (result != NVML_SUCCESS)
        return result;
    return index < simulator_inventory()->count ? give(index, device) : NVML_ERROR_INVALID_ARGUMENT;
}

static nvmlReturn_t find(const char *text, nvmlDevice_t *device, bool (*is)(const struct device *, const char *)) {
    nvmlReturn_t result = ready(text && device ? text : NULL);
    if (result != NVML_SUCCESS)
        return result;
    for (unsigned i = 0; i < simulator_inventory()->count; i++)
        if (is(&simulator_inventory()->device[i], text))
            return give(i, device);
    return NVML_ERROR_NOT_FOUND;
}

static bool has_uuid(const struct device *device, const char *text) {
    return strcmp(device->uuid, text) == 0;
}

static bool has_serial(const struct device *device, const char *text) {
    return strcmp(device->serial, text) == 0;
}

static bool has_bus_id(const struct device *device, const char *text) {
    unsigned domain, bus, slot;
    return sscanf(text, "%x:%x:%x", &domain, &bus, &slot) == 3 && domain == device->pci_domain &&
           bus == device->pci_bus && slot == device->pci_device;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    return find(uuid, device, has_uuid);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) {
    return find(serial, device, has_serial);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    return find(bus_id, device, has_bus_id);
}
