/* What a device is: names, numbers, its place on the bus, fixed modes. */
#include "nvml.h"

#include <stdio.h>
#include <string.h>

enum { BRAND_NVIDIA = 14, BUS_TYPE_PCIE = 2, PCI_CLASS_DISPLAY = 3, PCI_SUBCLASS_3D = 2, ENABLED = 1, DISABLED = 0 };

#define TEXT_CALL(function, text)                                                  \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned size) { \
        struct view view;                                                          \
        nvmlReturn_t result = look(device, out, &view);                            \
        return result ? result : copy_text(out, size, text);                       \
    }

#define NUMBER_CALL(function, type, value)                              \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, type *out) {    \
        struct view view;                                               \
        nvmlReturn_t result = look(device, out, &view);                 \
        if (result == NVML_SUCCESS)                                     \
            *out = (value);                                             \
        return result;                                                  \
    }

TEXT_CALL(nvmlDeviceGetName, view.model->name)
TEXT_CALL(nvmlDeviceGetUUID, view.device->uuid)
TEXT_CALL(nvmlDeviceGetSerial, view.device->serial)
TEXT_CALL(nvmlDeviceGetVbiosVersion, view.model->vbios)
TEXT_CALL(nvmlDeviceGetBoardPartNumber, view.model->part_number)

NUMBER_CALL(nvmlDeviceGetIndex, unsigned, view.device->index)
NUMBER_CALL(nvmlDeviceGetMinorNumber, unsigned, view.device->minor)
NUMBER_CALL(nvmlDeviceGetModuleId, unsigned, view.device->index + 1)
NUMBER_CALL(nvmlDeviceGetBoardId, unsigned, view.device->pci_domain << 16 | view.device->pci_bus << 8)
NUMBER_CALL(nvmlDeviceGetMultiGpuBoard, unsigned, 0)
NUMBER_CALL(nvmlDeviceGetBrand, unsigned, BRAND_NVIDIA)
NUMBER_CALL(nvmlDeviceGetArchitecture, unsigned, view.model->architecture)
NUMBER_CALL(nvmlDeviceGetNumGpuCores, unsigned, view.model->cores)
NUMBER_CALL(nvmlDeviceGetMemoryBusWidth, unsigned, view.model->memory_bus_bits)
NUMBER_CALL(nvmlDeviceGetBusType, unsigned, BUS_TYPE_PCIE)
NUMBER_CALL(nvmlDeviceGetPersistenceMode, unsigned, ENABLED)
NUMBER_CALL(nvmlDeviceGetComputeMode, unsigned, 0)
NUMBER_CALL(nvmlDeviceGetDisplayMode, unsigned, DISABLED)
NUMBER_CALL(nvmlDeviceGetDisplayActive, unsigned, DISABLED)
NUMBER_CALL(nvmlDeviceIsMigDeviceHandle, unsigned, 0)

NVML_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    struct view view;
    nvmlReturn_t result = look(device, major && minor ? major : NULL, &view);
    if (result == NVML_SUCCESS) {
        *major = (int)view.model->capability_major;
        *minor = (int)view.model->capability_minor;
    }
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    struct view view;
    nvmlReturn_t result = look(device, current && pending ? current : NULL, &view);
    if (result == NVML_SUCCESS)
        *current = *pending = DISABLED;
    return result;
}

void fill_pci_info(const struct model *model, const struct device *at, nvmlPciInfo_t *out) {
    memset(out, 0, sizeof *out);
    out->domain = at->pci_domain;
    out->bus = at->pci_bus;
    out->device = at->pci_device;
    out->pciDeviceId = model->pci_device_id;
    out->pciSubSystemId = model->pci_subsystem_id;
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0", at->pci_domain & 0xFFFF, at->pci_bus & 0xFF,
             at->pci_device & 0xFF);
    snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0", at->pci_domain, at->pci_bus, at->pci_device);
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *out) {
    struct view view;
    nvmlReturn_t result = look(device, out, &view);
    if (result == NVML_SUCCESS)
        fill_pci_info(view.model, view.device, out);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *out) {
    nvmlPciInfo_t info;
    nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(device, out ? &info : NULL);
    if (result != NVML_SUCCESS)
        return result;
    if (out->version != NVML_STRUCT_VERSION(nvmlPciInfoExt_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    *out = (nvmlPciInfoExt_t){out->version, info.domain, info.bus, info.device, info.pciDeviceId, info.pciSubSystemId,
                              PCI_CLASS_DISPLAY, PCI_SUBCLASS_3D, ""};
    memcpy(out->busId, info.busId, sizeof out->busId);
    return result;
}
