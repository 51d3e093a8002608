/* NVLink and PCIe: states, partners, errors, rates. */
#include "nvml.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REMOTE_GPU = 0x00, REMOTE_SWITCH = 0x02, NVSWITCH_PCI_ID = 0x22A310DE };
enum { ERROR_REPLAY, ERROR_RECOVERY, ERROR_CRC_FLIT, ERROR_CRC_DATA, ERROR_ECC_DATA, ERROR_COUNT };
enum { CAPABILITY_COUNT = 6, CAPABILITY_SYSMEM_ACCESS = 1, CAPABILITY_SLI_BRIDGE = 4 };

static nvmlReturn_t look_link(nvmlDevice_t device, unsigned link, const void *out, struct view *view) {
    nvmlReturn_t result = look(device, out, view);
    return result == NVML_SUCCESS && link >= view->model->nvlinks ? NVML_ERROR_INVALID_ARGUMENT : result;
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active) {
    struct view view;
    nvmlReturn_t result = look_link(device, link, active, &view);
    if (result == NVML_SUCCESS)
        *active = link_is_active(view.model, &view.state, link);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned link, unsigned *version) {
    struct view view;
    nvmlReturn_t result = look_link(device, link, version, &view);
    if (result == NVML_SUCCESS)
        *version = view.model->nvlink_version;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned link, unsigned capability, unsigned *out) {
    struct view view;
    nvmlReturn_t result = look_link(device, link, out, &view);
    if (result != NVML_SUCCESS || capability >= CAPABILITY_COUNT)
        return result != NVML_SUCCESS ? result : NVML_ERROR_INVALID_ARGUMENT;
    *out = capability != CAPABILITY_SLI_BRIDGE && capability != CAPABILITY_SYSMEM_ACCESS;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned link, unsigned *type) {
    struct view view;
    nvmlReturn_t result = look_link(device, link, type, &view);
    if (result == NVML_SUCCESS)
        *type = view.model->nvlink_to_switch ? REMOTE_SWITCH : REMOTE_GPU;
    return result;
}

/* Links go to the other GPUs in equal groups, in the order of their indices. */
static const struct device *peer_of(const struct view *view, unsigned link) {
    unsigned peers = view->inventory->count - 1;
    if (peers == 0)
        return NULL;
    unsigned peer = link * peers / view->model->nvlinks;
    return &view->inventory->device[peer + (peer >= view->device->index)];
}

static void switch_info(unsigned link, nvmlPciInfo_t *out) {
    memset(out, 0, sizeof *out);
    out->bus = 5 + link % 4; /* an HGX board has four NVSwitches */
    out->pciDeviceId = NVSWITCH_PCI_ID;
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "0000:%02X:00.0", out->bus & 0xFF);
    snprintf(out->busId, sizeof out->busId, "00000000:%02X:00.0", out->bus);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned link, nvmlPciInfo_t *out) {
    struct view view;
    nvmlReturn_t result = look_link(device, link, out, &view);
    if (result != NVML_SUCCESS)
        return result;
    if (view.model->nvlink_to_switch) {
        switch_info(link, out);
        return result;
    }
    const struct device *peer = peer_of(&view, link);
    if (!peer)
        return NVML_ERROR_NOT_SUPPORTED;
    fill_pci_info(view.model, peer, out);
    return result;
}

/* All injected link errors are CRC errors of link 0, each healed by a replay. */
NVML_API nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned link, unsigned counter,
                                                      unsigned long long *out) {
    struct view view;
    nvmlReturn_t result = look_link(device, link, out, &view);
    if (result != NVML_SUCCESS || counter >= ERROR_COUNT)
        return result != NVML_SUCCESS ? result : NVML_ERROR_INVALID_ARGUMENT;
    bool counted = link == 0 && (counter == ERROR_CRC_FLIT || counter == ERROR_REPLAY);
    *out = counted ? view.state.faults.nvlink_errors : 0;
    return result;
}

/* ---- PCIe ---- */

#define NUMBER_CALL(function, value)                                     \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned *out) { \
        struct view view;                                                \
        nvmlReturn_t result = look(device, out, &view);                  \
        if (result == NVML_SUCCESS)                                      \
            *out = (value);                                              \
        return result;                                                   \
    }

static unsigned lanes_left(const struct view *view) {
    unsigned left = view->state.faults.pcie_width;
    return left && left < view->model->pcie_width ? left : view->model->pcie_width;
}

/* 8, 16, 32 GT/s from generation 3 on. */
static unsigned lane_mbps(const struct model *model) {
    return 1000u << model->pcie_generation;
}

NUMBER_CALL(nvmlDeviceGetCurrPcieLinkGeneration, view.model->pcie_generation)
NUMBER_CALL(nvmlDeviceGetMaxPcieLinkGeneration, view.model->pcie_generation)
NUMBER_CALL(nvmlDeviceGetGpuMaxPcieLinkGeneration, view.model->pcie_generation)
NUMBER_CALL(nvmlDeviceGetCurrPcieLinkWidth, lanes_left(&view))
NUMBER_CALL(nvmlDeviceGetMaxPcieLinkWidth, view.model->pcie_width)
NUMBER_CALL(nvmlDeviceGetPcieLinkMaxSpeed, view.model->pcie_generation)
NUMBER_CALL(nvmlDeviceGetPcieSpeed, lane_mbps(view.model))
NUMBER_CALL(nvmlDeviceGetPcieReplayCounter, 0)

NVML_API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned counter, unsigned *kib_per_s) {
    struct view view;
    nvmlReturn_t result = look(device, kib_per_s, &view);
    if (result != NVML_SUCCESS || counter > 1)
        return result != NVML_SUCCESS ? result : NVML_ERROR_INVALID_ARGUMENT;
    double share = view.drive.share[counter == 0 ? SHARE_PCIE_TX : SHARE_PCIE_RX];
    *kib_per_s = (unsigned)lround(share * view.model->pcie_bytes_per_s / 1024);
    return result;
}
