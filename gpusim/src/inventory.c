/* The inventory: `key value` lines of the model, `profile PHASE share=value ...`, and one `gpu N key=value ...` line a GPU.
 * Unknown keys are ignored, so that an older library reads a newer inventory. */
#include "gpusim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const phase_names[PHASE_COUNT] = {"idle", "startup", "compute", "communication", "input", "checkpoint", "hang"};

static const char *const share_names[SHARE_COUNT] = {
    "util", "gr", "sm", "occupancy", "integer", "tensor", "dram", "fp64", "fp32",
    "fp16", "nvlink_tx", "nvlink_rx", "pcie_tx", "pcie_rx", "memory"};

struct field {
    const char *key;
    enum { TEXT, UNSIGNED, REAL, MEBIBYTES } kind;
    size_t offset, size;
};

#define FIELD(key, kind, member) {key, kind, offsetof(struct model, member), sizeof(((struct model *)0)->member)}
#define SAME(kind, member) FIELD(#member, kind, member)

static const struct field fields[] = {
    SAME(TEXT, name), SAME(TEXT, vbios), SAME(TEXT, part_number), SAME(UNSIGNED, architecture),
    SAME(UNSIGNED, pci_device_id), SAME(UNSIGNED, pci_subsystem_id), SAME(UNSIGNED, cores), SAME(UNSIGNED, memory_bus_bits),
    SAME(UNSIGNED, sm_idle_mhz), SAME(UNSIGNED, sm_max_mhz), SAME(UNSIGNED, memory_mhz), SAME(UNSIGNED, video_max_mhz),
    SAME(UNSIGNED, nvlinks), SAME(UNSIGNED, nvlink_version), SAME(UNSIGNED, pcie_generation), SAME(UNSIGNED, pcie_width),
    SAME(UNSIGNED, row_banks), FIELD("memory_mib", MEBIBYTES, memory_bytes),
    FIELD("memory_reserved_mib", MEBIBYTES, reserved_bytes), SAME(REAL, power_idle_w), SAME(REAL, power_limit_w),
    SAME(REAL, power_min_limit_w), SAME(REAL, temperature_idle_c), SAME(REAL, temperature_full_c),
    SAME(REAL, temperature_max_c), SAME(REAL, temperature_slowdown_c), SAME(REAL, temperature_shutdown_c),
    SAME(REAL, memory_temperature_max_c), SAME(REAL, memory_bytes_per_s), SAME(REAL, nvlink_bytes_per_s),
    SAME(REAL, pcie_bytes_per_s)};

int word_index(const char *word, size_t length, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (strlen(names[i]) == length && memcmp(names[i], word, length) == 0)
            return i;
    return -1;
}

static void set_field(struct model *model, const struct field *field, const char *value) {
    char *to = (char *)model + field->offset;
    if (field->kind == TEXT)
        snprintf(to, field->size, "%s", value);
    else if (field->kind == UNSIGNED)
        *(unsigned *)(void *)to = (unsigned)strtoul(value, NULL, 10);
    else if (field->kind == REAL)
        *(double *)(void *)to = strtod(value, NULL);
    else
        *(uint64_t *)(void *)to = strtoull(value, NULL, 10) << 20;
}

static void read_profile(struct model *model, char *rest) {
    char *save = NULL, *word = strtok_r(rest, " ", &save);
    int phase = word ? word_index(word, strlen(word), phase_names, PHASE_COUNT) : -1;
    while (phase >= 0 && (word = strtok_r(NULL, " ", &save))) {
        char *equals = strchr(word, '=');
        int share = equals ? word_index(word, (size_t)(equals - word), share_names, SHARE_COUNT) : -1;
        if (share >= 0)
            model->profile[phase][share] = strtod(equals + 1, NULL);
    }
}

static void read_gpu(struct inventory *out, char *rest) {
    if (out->count == MAX_GPUS)
        return;
    struct device *device = &out->device[out->count];
    device->index = out->count++;
    char *save = NULL;
    for (char *word = strtok_r(rest, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        if (strncmp(word, "minor=", 6) == 0)
            device->minor = (unsigned)strtoul(word + 6, NULL, 10);
        else if (strncmp(word, "uuid=", 5) == 0)
            snprintf(device->uuid, sizeof device->uuid, "%s", word + 5);
        else if (strncmp(word, "serial=", 7) == 0)
            snprintf(device->serial, sizeof device->serial, "%s", word + 7);
        else if (strncmp(word, "bus=", 4) == 0)
            sscanf(word + 4, "%x:%x:%x", &device->pci_domain, &device->pci_bus, &device->pci_device);
    }
}

static void read_line(struct inventory *out, const char *key, char *value) {
    struct model *model = &out->model;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(fields[i].key, key) == 0)
            set_field(model, &fields[i], value);
    if (strcmp(key, "driver") == 0)
        snprintf(out->driver, sizeof out->driver, "%s", value);
    else if (strcmp(key, "cuda") == 0)
        out->cuda = (int)strtol(value, NULL, 10);
    else if (strcmp(key, "boot_ns") == 0)
        out->boot_ns = strtoll(value, NULL, 10);
    else if (strcmp(key, "compute_capability") == 0)
        sscanf(value, "%u.%u", &model->capability_major, &model->capability_minor);
    else if (strcmp(key, "nvlink_remote") == 0)
        model->nvlink_to_switch = strcmp(value, "switch") == 0;
    else if (strcmp(key, "profile") == 0)
        read_profile(model, value);
    else if (strcmp(key, "gpu") == 0)
        read_gpu(out, value);
}

bool inventory_parse(const char *text, struct inventory *out) {
    memset(out, 0, sizeof *out);
    char line[1024];
    for (const char *end; (end = strchr(text, '\n')); text = end + 1) {
        size_t length = (size_t)(end - text);
        if (length >= sizeof line)
            continue;
        memcpy(line, text, length);
        line[length] = '\0';
        char *space = strchr(line, ' ');
        if (space) {
            *space = '\0';
            read_line(out, line, space + 1);
        }
    }
    if (out->model.nvlinks > MAX_LINKS)
        out->model.nvlinks = MAX_LINKS;
    return out->count > 0 && out->model.name[0] != '\0';
}
